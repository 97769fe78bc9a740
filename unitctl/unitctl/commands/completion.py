"""`unitctl completion`: the shell's completion script."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from unitctl.failures import Failure
from unitctl.render import out


@click.command(short_help="Print the completion script for a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell; it completes verbs, options, units and machines.

    \b
      bash:  echo 'eval "$(unitctl completion bash)"' >> ~/.bashrc
      zsh:   echo 'eval "$(unitctl completion zsh)"' >> ~/.zshrc
      fish:  unitctl completion fish > ~/.config/fish/completions/unitctl.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise Failure(f"cannot write a completion script for {shell}: it is not known here")
    out(kind(ctx.find_root().command, {}, "unitctl", "_UNITCTL_COMPLETE").source())
