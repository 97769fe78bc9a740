"""`write_files` and `users`."""

from __future__ import annotations

import re
from typing import Any

from unitctl.bootstrap import contents
from unitctl.bootstrap.coreos.mend import mend, remarks
from unitctl.bootstrap.coreos.report import Keys, Report
from unitctl.bootstrap.userdata import HostFile
from unitctl.bootstrap.yamltree import Mapping, Node, Scalar, Sequence, plain

_MODE = re.compile(r"(?:0o?)?([0-7]{3,4})")
_ENCODINGS = ("b64", "base64", "gz", "gzip", "gz+base64", "gzip+base64", "gz+b64", "gzip+b64")
_USER = (
    *("passwd", "gecos", "homedir", "no_create_home", "primary_group", "no_user_group", "system", "no_log_init"),
    "shell",
)
NO_PASSWORD = "ALL=(ALL) NOPASSWD:ALL"
_TRUTHS = ("no_create_home", "no_user_group", "system", "no_log_init")


def read_files(node: Node, path: str, line: int, report: Report) -> list[HostFile]:
    """Read `write_files`."""
    found: list[HostFile] = []
    if not isinstance(node, Sequence):
        report.drop(path, line, "a list of files is expected here")
        return found
    for number, item in enumerate(node.items):
        place = item.entries.get("path") if isinstance(item, Mapping) else None
        if not isinstance(item, Mapping) or not isinstance(place, Scalar) or not place.text.startswith("/"):
            report.drop(f"{path}[{number}]", item.line, "a file has an absolute path")
            continue
        keys = Keys(item, f"{path}[{place.text}]", report)
        keys.take("path")
        found.append(_file(place.text, item.line, keys))
        for other in list(keys.rest()):
            keys.drop(other, "CoreOS knew no such key of a file")
    return found


def _file(path: str, line: int, keys: Keys) -> HostFile:
    encoding = (keys.text("encoding") or "") if "encoding" in keys else ""
    if encoding and encoding not in _ENCODINGS:
        keys.report.drop(f"{keys.path}.encoding", line, f"{encoding!r} is no encoding")
        encoding = ""
    at = keys.place("content")[1] if "content" in keys else line
    node = keys.take("content")
    content = node.text if isinstance(node, Scalar) and not node.is_null else ""
    if node is not None and not isinstance(node, Scalar):
        keys.report.drop(f"{keys.path}.content", at, "a text is expected here")
    if not encoding:
        content = _looked_at(path, content, at, keys)
    owner = keys.text("owner") or "" if "owner" in keys else ""
    return HostFile(
        path,
        content,
        _mode(keys),
        owner=owner if owner not in ("root", "root:root") else "",
        late=owner.partition(":")[0] not in ("", "root"),
        encoding=encoding,
    )


def _looked_at(path: str, content: str, line: int, keys: Keys) -> str:
    """Mend what systemd reads, and remark on what calls the tools of old."""
    mended, changes = mend(content) if path.startswith("/etc/systemd/") else (content, [])
    for what in changes + remarks(content):
        keys.report.change(f"{keys.path}.content", line, what)
    why = contents.refusal(path.rpartition("/")[2], content)
    if why:
        keys.report.change(f"{keys.path}.content", line, f"unitctl submit would refuse it: {why}")
    return mended


def _mode(keys: Keys) -> str:
    """Four octal digits. CoreOS read the digits as they stood: 0644, '0644' and 644 are the same."""
    if "permissions" not in keys:
        return "0644"
    path, line = keys.place("permissions")
    text = keys.text("permissions") or ""
    match = _MODE.fullmatch(text)
    if match is None:
        keys.report.drop(path, line, f"{text!r} names no permissions: 0644 is taken")
        return "0644"
    return match[1].rjust(4, "0")


def read_users(node: Node, path: str, line: int, report: Report) -> list[dict[str, Any]]:
    """Read `users` as cloud-init has them."""
    found: list[dict[str, Any]] = []
    if not isinstance(node, Sequence):
        report.drop(path, line, "a list of users is expected here")
        return found
    for number, item in enumerate(node.items):
        name = item.entries.get("name") if isinstance(item, Mapping) else None
        if not isinstance(item, Mapping) or not isinstance(name, Scalar) or not name.text:
            report.drop(f"{path}[{number}]", item.line, "a user has a name")
            continue
        keys = Keys(item, f"{path}[{name.text}]", report)
        keys.take("name")
        found.append({"name": name.text, **_user(keys)})
        for other in list(keys.rest()):
            keys.drop(other, "CoreOS knew no such key of a user")
    return found


def _user(keys: Keys) -> dict[str, Any]:
    user: dict[str, Any] = {}
    for key in _USER:
        if key in keys:
            value = keys.truth(key) if key in _TRUTHS else keys.text(key)
            if value is not None:
                user[key] = value
    if "passwd" in user:
        user["lock_passwd"] = False
    if "groups" in keys:
        path, line = keys.place("groups")
        user["groups"] = [word.strip() for word in keys.words("groups") if word.strip()]
        if "sudo" in user["groups"]:
            keys.report.change(path, line, "sudo asks no password, as on CoreOS")
            user["sudo"] = NO_PASSWORD
    if "ssh_authorized_keys" in keys:
        path, line = keys.place("ssh_authorized_keys")
        user["ssh_authorized_keys"] = read_keys(keys.take("ssh_authorized_keys"), path, line, keys.report)
    github = []
    for key in ("coreos_ssh_import_github", "coreos_ssh_import_github_users"):
        if key in keys:
            github += [f"gh:{word.strip()}" for word in keys.words(key) if word.strip()]
    if github:
        user["ssh_import_id"] = github
    keys.drop("coreos_ssh_import_url", "cloud-init fetches keys from GitHub and Launchpad alone")
    return user


def read_keys(node: Node | None, path: str, line: int, report: Report) -> list[str]:
    """Read a list of SSH keys."""
    if not isinstance(node, Sequence):
        report.drop(path, line, "a list of keys is expected here")
        return []
    found = []
    for number, item in enumerate(node.items):
        text = plain(item)
        if isinstance(text, str) and len(text.split()) > 1:
            found.append(text)
        else:
            report.drop(f"{path}[{number}]", item.line, "it is no key: it has no body")
    return found
