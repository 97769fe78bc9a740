"""`unitctl scene`: copies that failed for good and were kept as they were, for a look."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence

import click

from unitctl.arguments import UnitName, output_option, spread, table_options
from unitctl.client import connect
from unitctl.context import Invocation
from unitctl.failures import Failure
from unitctl.render import (
    Column,
    Style,
    age,
    escape,
    items_json,
    json_line,
    moment,
    out,
    say,
    short,
    show,
    size,
    warn,
)
from unitfleet import names
from unitfleet.api import Scene
from unitfleet.errors import NotFound

DOCKER = "docker"
LOOK_S = 10.0  # asking this host's Engine whether the container is its own

_UNIT = click.argument("unit", metavar="UNIT", type=UnitName())


class _ShowByDefault(click.Group):
    """`scene UNIT` is `scene show UNIT`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands:
            args = ["show", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=_ShowByDefault, short_help="Look at copies that failed and were kept (OnFailure=keep).")
def command() -> None:
    """Look at copies that failed for good and were kept as they were: units with OnFailure=keep.

    \b
      unitctl scene ls
      unitctl scene adserver@1
    """


def _machine(scene: Scene) -> str:
    return scene.machine_name or short(scene.machine)


def _where(scene: Scene) -> str:
    return "in place" if scene.in_place else scene.where


_COLUMNS: tuple[Column[Scene], ...] = (
    Column("UNIT", lambda scene: scene.unit),
    Column("MACHINE", _machine),
    Column("FAILED", lambda scene: age(scene.at)),
    Column("CAUSE", lambda scene: scene.cause.value),
    Column("EXIT", lambda scene: "" if scene.exit_code is None else str(scene.exit_code)),
    Column("SIZE", lambda scene: size(scene.size)),
    Column("WHERE", _where),
    Column("MESSAGE", lambda scene: scene.message),
)


@command.command("ls")
@table_options
@click.pass_obj
def list_scenes(invocation: Invocation, output: str, fields: str, no_legend: bool) -> None:
    """List what is kept, on every machine that can be asked."""
    found = connect(invocation).scenes()
    show(
        output,
        rev=found.rev,
        items=found.items,
        names=[scene.unit for scene in found.items],
        columns=_COLUMNS,
        rows=found.items,
        style=Style(sys.stdout, no_color=invocation.no_color),
        fields=fields,
        legend=not no_legend,
    )
    _tell_unasked(found.unasked)


@command.command("show")
@_UNIT
@output_option("table", "json", "jsonl")
@click.pass_obj
def show_scene(invocation: Invocation, unit: str, output: str) -> None:
    """Show why a copy failed, how it ended, what its checks and its output said at last, and where it lies."""
    found = connect(invocation).scenes(_name(unit))
    style = Style(sys.stdout, no_color=invocation.no_color)
    if output == "json":
        out(items_json(found.rev, found.items))
    for number, scene in enumerate(found.items):
        if output == "jsonl":
            out(json_line(scene))
        elif output == "table":
            for line in [""] * bool(number) + block(scene, style):
                out(line)
    _tell_unasked(found.unasked)


@command.command("rm")
@_UNIT
@click.pass_obj
def remove(invocation: Invocation, unit: str) -> None:
    """Remove what is kept of a unit, with the container that was set aside."""
    found = connect(invocation).remove_scenes(_name(unit))
    for scene in found.items:
        what = "forgotten; the failed copy goes when the unit runs again" if scene.in_place else "removed"
        out(escape(f"{scene.unit}  scene {scene.id} on {_machine(scene)} {what}"))
    _tell_unasked(found.unasked)


@command.command("shell", short_help="Open a shell on a kept container's files, on the host where it lies.")
@_UNIT
@click.option("--print", "only_print", is_flag=True, help="Print the commands and run nothing.")
@click.pass_obj
def shell(invocation: Invocation, unit: str, only_print: bool) -> int:
    """Open a shell on what a failed container has left: in a copy of it, without a network.

    The kept container itself is not started. It runs on the host where it lies; elsewhere the commands for that
    host are printed.
    """
    scene = connect(invocation).scenes(_name(unit)).items[-1]
    commands = shell_commands(scene)
    if not only_print and scene.driver == DOCKER and _is_here(scene):
        return _run(commands)
    if not only_print:
        say(f"{scene.unit} lies on {_machine(scene)}: run this there")
    for line in commands:
        out(escape(shlex.join(line)))
    return 0


def shell_commands(scene: Scene) -> list[list[str]]:
    """Return what opens a shell: by a temporary image of a container, or in the directory of a process."""
    if scene.driver != DOCKER:
        return [["sh", "-c", f"cd {shlex.quote(_directory(scene))} && exec sh"]]
    image = f"unitfleet-scene:{scene.id}"
    run = [DOCKER, "run", "--rm", "-it", "--network", "none", "--volumes-from", f"{scene.copy_id}:ro"]
    return [
        [DOCKER, "commit", "--pause=false", scene.copy_id, image],
        [*run, "--entrypoint", "sh", image],
        [DOCKER, "rmi", image],
    ]


def _directory(scene: Scene) -> str:
    return scene.where if not scene.in_place else str(scene.inspect.get("directory", ""))


def _is_here(scene: Scene) -> bool:
    """Whether this host's Engine has the container."""
    if shutil.which(DOCKER) is None:
        return False
    look = [DOCKER, "container", "inspect", "--format", "{{.Id}}", scene.copy_id]
    try:
        return subprocess.run(look, capture_output=True, timeout=LOOK_S, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _run(commands: list[list[str]]) -> int:
    """Make the image, open the shell, remove the image whatever the shell said."""
    commit, run, clean = commands
    made = subprocess.run(commit, capture_output=True, text=True, check=False)
    if made.returncode:
        raise Failure(f"cannot open a shell: {made.stderr.strip()}")
    try:
        return subprocess.run(run, check=False).returncode
    finally:
        subprocess.run(clean, capture_output=True, check=False)


def block(scene: Scene, style: Style) -> list[str]:
    """One scene as lines."""
    ended = f"failed {moment(scene.finished or scene.at)} ({age(scene.finished or scene.at)} ago)"
    code = "" if scene.exit_code is None else f", exit code {scene.exit_code}"
    oom = ", killed for want of memory" if scene.oom_killed else ""
    fields = [
        ("Machine", f"{_machine(scene)} ({short(scene.machine)}), epoch {scene.epoch}, spec {short(scene.spec)}"),
        ("Why", scene.message),
        ("Ended", ended + code + oom),
        ("Cause", scene.cause.value),
        ("Restarts", str(scene.restarts) if scene.restarts else ""),
        ("Image", scene.image),
        ("Files", _files(scene)),
    ]
    shown = [f"{style.paint('✗', 'red')} {style.paint(escape(scene.unit), 'bold')} scene {scene.id}"]
    shown += [f"{title + ':':>10} {escape(text)}" for title, text in fields if text]
    for title, lines in (("Checks", _checks(scene)), ("Output", [line.text for line in scene.lines])):
        if lines:
            shown.append(f"{title + ':':>10}")
            shown += [f"{'':>10} {escape(line, keep=chr(9))}" for line in lines]
    return shown


def _files(scene: Scene) -> str:
    held = f", {size(scene.size)}"
    if scene.driver == DOCKER:
        stands = "stands where it failed" if scene.in_place else f"kept as {scene.where}"
        return f"container {scene.copy_id[:12]}, {stands}{held}; unitctl scene shell {scene.unit}"
    return f"{_directory(scene)}{held}"


def _checks(scene: Scene) -> list[str]:
    return [f"{moment(one.at)}  {'well' if one.ok else 'failed'}  {one.text.strip()}" for one in scene.health]


def _name(unit: str) -> str:
    """Return the one unit that is meant; a unit that was destroyed may have a scene too."""
    spelt = spread([unit])
    if len(spelt) != 1 or names.is_glob(spelt[0]):
        raise NotFound(f"cannot look at {unit}: name one unit", hint="unitctl scene ls")
    return names.complete(spelt[0])


def _tell_unasked(unasked: Sequence[str]) -> None:
    for each in unasked:
        warn(f"not asked: {each}")
