"""Start unitctl: the only place that turns errors into text and exit codes."""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Sequence

import click

from unitctl.cli import cli
from unitctl.failures import FAILURE, INTERRUPTED, USAGE, Detached, Failure, Several, details, exit_code
from unitctl.render import Style, escape
from unitfleet.errors import UnitfleetError

_BROKEN_PIPE = 141  # as the shell says it: 128 + SIGPIPE


def main() -> None:
    """Run the command line and end the process with its exit code."""
    gc.set_threshold(100_000)  # all of a long list lives until it is written: no need to look it through ten times
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a ● must not fail in an ASCII locale
    if "_UNITCTL_COMPLETE" in os.environ:
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(cli, {}, "unitctl", "_UNITCTL_COMPLETE", os.environ["_UNITCTL_COMPLETE"]))
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor may the interpreter's last flush fail
        code = _BROKEN_PIPE
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command; write its error, if any, and return the exit code."""
    try:
        with cli.make_context("unitctl", list(arguments)) as context:
            code = cli.invoke(context)
            return code if isinstance(code, int) else 0
    except UnitfleetError as error:
        _complain(error)
        return exit_code(error)
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(f"{error.format_message()}\n")
        return USAGE
    except click.UsageError as error:
        _complain(UnitfleetError(_usage(error), hint=_usage_hint(error)))
        return USAGE
    except click.ClickException as error:
        _complain(UnitfleetError(error.format_message()))
        return FAILURE
    except click.exceptions.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("interrupted\n")
        return INTERRUPTED


def _usage(error: click.UsageError) -> str:
    text = error.format_message().rstrip(".")
    return text[:1].lower() + text[1:]


def _usage_hint(error: click.UsageError) -> str:
    command = error.ctx.command_path if error.ctx else "unitctl"
    if isinstance(error, click.NoSuchOption):
        before = {name for option in cli.params for name in option.opts}
        if error.option_name in before:
            return f"it goes before the verb: unitctl {error.option_name} … {command.removeprefix('unitctl ')}"
    return f"{command} --help"


def _complain(error: UnitfleetError) -> None:
    """Write an error as every command does: one cause, what is known of it, one hint."""
    sys.stdout.flush()
    if isinstance(error, Several):
        for failure in error.failures:
            _complain(failure)
        return
    style = Style(sys.stderr)
    if isinstance(error, Detached):
        sys.stderr.write(f"\n{escape(error.message)}\n")
    else:
        sys.stderr.write(f"{style.paint('error:', 'red')} {escape(error.message)}\n")
    for line in details(error):
        sys.stderr.write(f"  {escape(line)}\n")
    if error.hint:
        sys.stderr.write(f"{style.paint('hint:', 'bold')} {escape(error.hint)}\n")
    if isinstance(error, Failure) and error.see:
        sys.stderr.write(f"{style.paint('see:', 'bold')}  {escape(error.see)}\n")


if __name__ == "__main__":
    main()
