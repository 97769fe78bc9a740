"""`unitctl images`: what machines hold of what they are to hold, and orders about it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from unitctl.arguments import table_options
from unitctl.client import connect
from unitctl.context import Invocation
from unitctl.render import Column, Style, escape, joined, out, show
from unitfleet.api import ImageOnMachine, ImageView
from unitfleet.problems import BadValue

MOST_MACHINES = 6
"""Up to so many machines have a column each; of more it is told how many hold an image."""


class Reference(click.ParamType[str]):
    """An image reference: [registry/]name[:tag][@sha256:…]."""

    name = "reference"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what no registry could be asked for."""
        from unitfleet.quadlet import image_reference

        try:
            return image_reference(str(value))
        except BadValue as error:
            self.fail(str(error), param, ctx)


class Pair(click.ParamType[tuple[str, str]]):
    """`key=value` of machines' metadata."""

    name = "pair"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Take a pair apart."""
        key, equals, wanted = str(value).partition("=")
        if not (key and equals and wanted):
            self.fail(f"{value!r} is no pair: write key=value, as in zone=a", param, ctx)
        return key, wanted


_REF = click.argument("reference", metavar="REF", type=Reference())


@click.group(short_help="Show which machines hold which images; hold one warm.")
def command() -> None:
    """Show which machines hold which images, and let them hold more.

    A machine's warm set is what the units that could run there need, and what `images warm` or its agent's own
    settings name. A new machine takes containers once it holds its warm set. REF is
    [registry/]name[:tag][@sha256:…].
    """


@command.command(short_help="Show images and where they are.")
@click.argument("reference", metavar="[REF]", required=False, type=Reference())
@table_options
@click.pass_obj
def ls(invocation: Invocation, reference: str | None, output: str, fields: str, no_legend: bool) -> None:
    """Show every image that machines are to hold, and where it is: held, pulled (41 %), waiting or missing.

    With REF: one line a machine, with why an image is missing.

    \b
      unitctl images ls registry:5000/adserver:3
    """
    rev, images = connect(invocation).images(reference or "")
    style = Style(sys.stdout, no_color=invocation.no_color)
    if reference and output in ("table", "wide"):
        pairs = [(image, machine) for image in images for machine in sorted(image.machines, key=_by_name)]
        show(
            output,
            rev=rev,
            items=images,
            names=[],
            columns=_ONE,
            rows=pairs,
            style=style,
            fields=fields,
            legend=not no_legend,
        )
        return
    show(
        output,
        rev=rev,
        items=images,
        names=[image.image for image in images],
        columns=[*_ALL, *_machines(images)],
        rows=images,
        style=style,
        fields=fields,
        legend=not no_legend,
    )
    if output in ("table", "wide"):
        for line in reasons(images):
            out(escape(line))


@command.command(short_help="Let machines hold an image.")
@_REF
@click.option(
    "--where",
    type=Pair(),
    metavar="KEY=VALUE",
    multiple=True,
    help="Only machines with this metadata; repeat for more.",
)
@click.pass_obj
def warm(invocation: Invocation, reference: str, where: tuple[tuple[str, str], ...]) -> None:
    """Let machines hold an image before any unit asks for it; garbage collection spares it.

    \b
      unitctl images warm registry:5000/adserver:4 --where pool=web
    """
    connect(invocation).warm_image(reference, dict(where))
    whom = "machines with " + " ".join(f"{key}={value}" for key, value in where) if where else "every machine"
    out(escape(f"{reference}  is to be held by {whom}; unitctl images ls {reference} shows how it comes along"))


@command.command(short_help="Take `warm` back.")
@_REF
@click.pass_obj
def unwarm(invocation: Invocation, reference: str) -> None:
    """Take `warm` back: machines go on to hold it while units need it, and until its room is needed."""
    connect(invocation).unwarm_image(reference)
    out(escape(f"{reference}  is held no longer than units need it"))


def reasons(images: Sequence[ImageView]) -> list[str]:
    """Why images are missing: each cause once, with the machines that tell it."""
    by_cause: dict[tuple[str, str], list[str]] = {}
    for image in images:
        for machine in image.machines:
            if machine.state == "missing":
                by_cause.setdefault((image.image, machine.why), []).append(machine.machine_name)
    lines = [f"{_short(image)} is missing on {joined(sorted(on))}: {why}" for (image, why), on in by_cause.items()]
    return ["", *lines] if lines else []


def state(machine: ImageOnMachine) -> str:
    """Where a machine is with an image, in a word: held, 41 %, waiting, missing."""
    return f"{machine.percent} %" if machine.state == "pulling" else machine.state


def _machines(images: Sequence[ImageView]) -> list[Column[ImageView]]:
    """A column for each machine, or one that counts when they are many."""
    names = {machine.machine: machine.machine_name for image in images for machine in image.machines}
    if len(names) > MOST_MACHINES:
        return [Column("HELD BY", _count), Column("OTHERS", _others, optional=True)]
    return [_column(id, name) for id, name in sorted(names.items(), key=lambda item: (item[1], item[0]))]


def _by_name(machine: ImageOnMachine) -> tuple[str, str]:
    return machine.machine_name, machine.machine


def _column(id: str, name: str) -> Column[ImageView]:
    def cell(image: ImageView) -> str:
        return next((state(machine) for machine in image.machines if machine.machine == id), "")

    return Column(name.upper(), cell, is_state=True)


def _count(image: ImageView) -> str:
    held = sum(machine.state == "held" for machine in image.machines)
    return f"{held} of {len(image.machines)}"


def _others(image: ImageView) -> str:
    """2 pulling, 1 missing."""
    words = [machine.state for machine in image.machines if machine.state != "held"]
    return ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))


def _for(image: ImageView) -> str:
    parts = list(image.units)
    shown = [joined(parts, 2)] if parts else []
    if image.ordered:
        where = ",".join(f"{key}={value}" for key, value in sorted(image.where.items()))
        shown.append(f"warm {where}".strip())
    if image.by_settings:
        shown.append("settings of machines")
    return "; ".join(shown)


def _name(image: ImageView) -> str:
    """How people call it: as unit texts have it, with the start of the digest that is pinned."""
    if "@" not in image.image or not image.names:
        return _short(image.image)
    return f"{', '.join(image.names)} ({image.image.partition('@')[2].removeprefix('sha256:')[:8]})"


def _short(reference: str) -> str:
    name, at, digest = reference.partition("@sha256:")
    return f"{name}@{digest[:8]}" if at else reference


_ALL: list[Column[ImageView]] = [
    Column("IMAGE", _name),
    Column("REFERENCE", lambda image: image.image, wide=True),
    Column("FOR", _for),
]
_ONE: list[Column[tuple[ImageView, ImageOnMachine]]] = [
    Column("MACHINE", lambda pair: pair[1].machine_name),
    Column("STATE", lambda pair: state(pair[1]), is_state=True),
    Column("IMAGE", lambda pair: _name(pair[0])),
    Column("WHY", lambda pair: pair[1].why, optional=True),
]
