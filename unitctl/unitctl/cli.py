"""The tree of commands. A verb's module is imported when the verb is used, so that `unitctl` starts at once."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import click

from unitctl.context import Invocation

# Verb → module under unitctl.commands that exports it as `command`; in the order the help shows them.
VERBS = {
    "submit": "submit",
    "load": "load",
    "start": "start",
    "stop": "stop",
    "unload": "unload",
    "destroy": "destroy",
    "restart": "restart",
    "scale": "scale",
    "list-units": "list_units",
    "list-unit-files": "list_unit_files",
    "list-machines": "list_machines",
    "status": "status",
    "cat": "cat",
    "lint": "lint",
    "logs": "logs",
    "explain": "explain",
    "events": "events",
    "top": "top",
    "net": "net",
    "scene": "scene",
    "machines": "machines",
    "images": "images",
    "cluster": "cluster",
    "doctor": "doctor",
    "secret": "secret",
    "token": "token",
    "audit": "audit",
    "bootstrap": "bootstrap",
    "dev": "dev",
    "completion": "completion",
    "version": "version",
}
ALIASES = {"ps": "list-units", "journal": "logs", "verify": "lint"}


class Verbs(click.Group):
    """Finds a verb by its name, an alias, or a prefix that fits one verb alone (as fleetctl did)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every verb, in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb; None for one that nobody wrote."""
        module = VERBS.get(ALIASES.get(cmd_name, cmd_name))
        if module is None:
            return None
        command: click.Command = import_module(f"unitctl.commands.{module}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Complete a prefix; an ambiguous or unknown verb is a usage error that names the nearest."""
        name = args[0]
        if name not in VERBS and name not in ALIASES:
            args = [self._complete(ctx, name), *args[1:]]
        return super().resolve_command(ctx, args)

    def _complete(self, ctx: click.Context, name: str) -> str:
        fits = [verb for verb in VERBS if verb.startswith(name)]
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise click.UsageError(f"command {name!r} is ambiguous: {', '.join(fits)}", ctx)
        import difflib

        near = difflib.get_close_matches(name, [*VERBS, *ALIASES], n=1, cutoff=0.5)
        raise click.UsageError(f"no such command: {name!r}.{f' Did you mean {near[0]!r}?' if near else ''}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each verb with its first sentence."""
        rows = []
        for name in VERBS:
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(limit=80)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(
    cls=Verbs,
    context_settings=CONTEXT,
    epilog="A command may be shortened to any prefix that fits it alone. "
    "Exit codes: 0 ok, 1 failure, 2 usage, 3 not placed, 4 not found, 5 conflict, 6 denied, "
    "7 API out of reach, 8 timed out.",
)
@click.option("-c", "--context", metavar="NAME", help="Talk to the API of this context (UNITCTL_CONTEXT).")
@click.option(
    "--endpoint",
    metavar="URL",
    help="Talk to this API: http://host:port or unix:///path; several with commas are tried in turn "
    "(UNITCTL_ENDPOINT).",
)
@click.option("-q", "--quiet", is_flag=True, help="Don't tell how a command comes along; errors are told.")
@click.option("--no-color", is_flag=True, help="Don't colour the output (NO_COLOR).")
@click.version_option(package_name="unitfleet", prog_name="unitctl", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, context: str | None, endpoint: str | None, quiet: bool, no_color: bool) -> None:
    """Run unit files on a fleet of hosts as if it were one machine."""
    if no_color:
        os.environ["NO_COLOR"] = "1"  # errors and the live view look there
    ctx.obj = Invocation(endpoint=endpoint, context=context, quiet=quiet, no_color=no_color)
