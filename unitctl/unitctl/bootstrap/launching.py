"""What `unitctl bootstrap launch` is asked for: its options, and user-data that was judged first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from unitctl.bootstrap.ec2 import Launch, tag
from unitctl.bootstrap.options import rendered
from unitctl.bootstrap.validate import validate
from unitctl.failures import Failure
from unitctl.render import say
from unitfleet.errors import InvalidConfig
from unitfleet.problems import BadValue, Severity


def wanted(options: Mapping[str, Any], read: Callable[[], bytes]) -> Launch:
    """Return what is to be launched; `read` gives the file of --user-data. Raises `InvalidConfig`, `Failure`."""
    try:
        tags = dict(tag(text) for text in options["tags"])
    except BadValue as error:
        raise InvalidConfig(f"cannot use --tag: {error}") from error
    if bool(options["user_data"]) == bool(options["role"]):
        raise InvalidConfig(
            "cannot launch: the user-data is a file, or made of the options of render",
            hint="--user-data FILE, or --role agent|master|cluster with its options",
        )
    return Launch(
        count=options["count"],
        type=options["kind"],
        image=options["image_id"],
        user_data=_judged(read()) if options["user_data"] else _made(options),
        subnet=options["subnet"],
        security_groups=options["groups"],
        key=options["key_name"],
        tags=tags,
    )


def _made(options: Mapping[str, Any]) -> str:
    made = rendered(options)
    for note in made.notes:
        say(f"note: {note}")
    return _judged(made.user_data.text().encode())


def _judged(raw: bytes) -> str:
    """Return user-data that an instance can boot with; raises `Failure` with all that is wrong."""
    wrong = [problem.text("user-data") for problem in validate(raw) if problem.severity is Severity.ERROR]
    if wrong:
        raise Failure(
            "cannot launch: the user-data is not fit for it", details=wrong, hint="unitctl bootstrap validate FILE"
        )
    return raw.decode()
