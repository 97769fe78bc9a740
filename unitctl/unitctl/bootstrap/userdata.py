"""User-data as cloud-init takes it: `#cloud-config` and YAML, within what EC2 lets an instance have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unitctl.bootstrap.libraries import load
from unitctl.failures import Failure

HEADER = "#cloud-config"
MOST_BYTES = 16 * 1024
"""What EC2 takes, before its base64; other clouds take more."""


@dataclass(frozen=True, slots=True)
class HostFile:
    """A file that cloud-init writes; `late`: after users are made, for one that belongs to such a user."""

    path: str
    content: str
    mode: str = "0644"
    owner: str = ""
    late: bool = False
    encoding: str = ""

    def entry(self) -> dict[str, Any]:
        """Return it as an entry of write_files. Modes are quoted: YAML takes 0644 for the number 420."""
        found: dict[str, Any] = {"path": self.path, "permissions": self.mode}
        if self.owner:
            found["owner"] = self.owner
        if self.encoding:
            found["encoding"] = self.encoding
        if self.late:
            found["defer"] = True
        return {**found, "content": self.content}


@dataclass(frozen=True, slots=True)
class UserData:
    """What a host is told. `other` holds cloud-init's keys that need no thought of ours."""

    about: Sequence[str] = ()  # comments under the header
    other: Mapping[str, Any] = field(default_factory=dict)
    packages: Sequence[str] = ()
    files: Sequence[HostFile] = ()
    commands: Sequence[Sequence[str]] = ()

    def text(self) -> str:
        """Return the text, whatever its size."""
        keys: dict[str, Any] = dict(self.other)
        if self.packages:
            keys["package_update"] = True
            keys["packages"] = list(self.packages)
        if self.files:
            keys["write_files"] = [file.entry() for file in self.files]
        if self.commands:
            keys["runcmd"] = [list(words) for words in self.commands]
        comments = "".join(f"# {line}\n" for line in self.about)
        return f"{HEADER}\n{comments}{_yaml(keys)}"


def size_said(text: str) -> str:
    """How much of the room is used: 1,234 of 16,384 bytes."""
    return f"{len(text.encode()):,} of {MOST_BYTES:,} bytes"


def check_size(text: str, what: str) -> None:
    """Raise `Failure` for user-data that EC2 would not take."""
    if len(text.encode()) > MOST_BYTES:
        raise Failure(
            f"cannot {what}: the user-data has {size_said(text)}",
            hint="have large files in the image, or fetched by a runcmd",
        )


def _yaml(keys: Mapping[str, Any]) -> str:
    yaml = load("yaml", "bootstrap", "write YAML")

    class Dumper(yaml.SafeDumper):  # type: ignore[name-defined, misc]  # known when it is loaded
        """Indents lists under their key, and writes texts of several lines as such."""

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)

    def words(dumper: Any, value: list[Any]) -> Any:
        short = all(isinstance(word, str) and "\n" not in word for word in value) and sum(map(len, value)) < 90
        return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=short)

    Dumper.add_representer(list, words)
    written: str = yaml.dump(
        dict(keys), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=10_000, default_flow_style=False
    )
    return written
