"""What means something to the cluster of `tests/functional/test_openapi_roles.py`: names, bodies, odd lines."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

from harness.openapi import Meant
from unitfleet import certificates, jointoken
from unitfleet.shipped import ShippedLine, encode

GHOST = "9" * 32
"""A machine that is known and never was there: one that can be lost, shut out and removed."""

SERVICE = "[Service]\nExecStart=/bin/sh -c 'echo hello; echo oops >&2; exec sleep 100000'\n"
NAMES = ("web.service", "job@.service", "job@1.service", "job@2.service", "broken.service", "nowhere.service")
TARGETS = ("inactive", "loaded", "launched", "destroyed", None)
ODD_TEXTS = ("", "\0", "a\0b", "\ufffe", "\x1b[31m", "é" * 300, "x" * 300_000, "\u2028", "🚀")
"""What a unit may write, and what no unit may: a master takes it from agents, and is searched for all of it."""


def meanings(machine: str, token: str) -> Meant:
    """Return what stands for made up values; `machine` is the id of m1, `token` one by which hosts may join."""
    csr = certificates.make_csr(certificates.make_key(), "f" * 32).decode()
    held = jointoken.read(token)
    ghost = {"machine": (GHOST, "ghost", "9")}
    return Meant(
        values={
            "name": NAMES,
            "unit": (*NAMES, "*", "job@*", "[a", "web"),
            "units": ("web.service", "web.service,job@1.service", "nobody.service,,"),
            "machine": ("m1", machine, machine[:6], "ghost"),
            "order": ("cordon", "uncordon", "undrain"),
            "secret": ("made-0", "made-1"),
            "token": ("made-0", "made-1", "made-2"),
            "caller": ("a-admin", "nobody"),
            "image": ("registry:5000/app:1", "sha256:" + "0" * 64),
            "set": ("zone=a", "zone=", "zone=a,rack=r1", "zone", "=", ",,"),
            "min_revision": ("1", "7"),
            "since": ("0", "1", "1700000000.5"),
            "until": ("99999999999", "1"),
            "grep": ("hello", "(a+)+$", "[", "\\bo", "\0", "é"),
            "lines": ("0", "3", "all"),
            "limit": ("0", "5"),
        },
        bodies={
            "/v1/units": lambda rng: {"changes": [_change(rng) for _ in range(rng.randint(1, 4))]},
            "/fleet/v1/units/{name}": _fleet_unit,
            "/fleet/v1/machines": lambda rng: [_metadata(rng, machine) for _ in range(rng.randint(0, 3))],
            "/v1/images/warm": _warm,
            "/v1/images/unwarm": _warm,
            "/v1/net/{name}": lambda rng: {
                rng.choice(("egress", "ingress", "egress_limit")): rng.randint(0, 10**9)
            },
            "/v1/machines/{machine}/labels": lambda rng: {
                "metadata": {rng.choice(("zone", "rack", "", "a b")): rng.choice(("a", "", "x=y", "é"))}
            },
            "/v1/tokens": lambda rng: {"name": f"made-{rng.randint(0, 5)}", "role": "viewer", "ttl_s": 1000},
            "/v1/secrets": _secret,
            "/v1/join-tokens": lambda rng: {"ttl_s": 100, "uses": rng.randint(1, 3), "metadata": {"rack": "r1"}},
            "/v1/join": lambda rng: {
                "id": held.id,
                "secret": held.secret if rng.random() < 0.7 else "00" * 24,
                "role": rng.choice(("agent", "agent", "master", "admin")),
                "name": rng.choice(("f" * 32, machine, "x y", "")),
                "csr": rng.choice((csr, csr[:-40], "x")),
            },
            "/v1/renew": lambda rng: {"csr": rng.choice((csr, csr[40:]))},
            "/v1/ingest/logs": lambda rng: b"\n".join(_line(rng, machine) for _ in range(rng.randint(1, 5))),
            "/v1/archive/search": lambda rng: {"grep": rng.choice(("hello", "", "(", "x{1,3}")), "limit": 3},
        },
        elsewhere={
            "/v1/machines/{machine}/drain": {"machine": ("ghost", "m1", machine)},
            **{f"/v1/machines/{{machine}}/{order}": ghost for order in ("lost", "deny", "allow", "rm")},
        },
    )


def _change(rng: random.Random) -> dict[str, Any]:
    name = rng.choice((*NAMES, "made.service", "made.timer", "no name", "x" * 300))
    text = rng.choice((SERVICE, SERVICE, SERVICE + "Restart=sometimes\n", "", "[Service", "\0", "[Service]\n" * 9))
    fields: dict[str, Any] = {"name": name, "target": rng.choice(TARGETS), "replace": rng.random() < 0.5}
    if rng.random() < 0.5:
        fields["text"] = text
    if rng.random() < 0.2:
        fields["bandwidth"] = {"egress": rng.randint(0, 10**13), "reset": rng.random() < 0.2}
    return {key: value for key, value in fields.items() if value is not None}


def _fleet_unit(rng: random.Random) -> dict[str, Any]:
    words = ("Service", "X-Fleet", "Unit", "", "\n[X-Fleet]")
    options = [
        {
            "section": rng.choice(words),
            "name": rng.choice(("ExecStart", "Global", "MachineMetadata", "Bogus", "MachineID", "", "a=b")),
            "value": rng.choice(("/bin/sleep 1000", "true", "a=b c=d", "", "x\ny", "\ud800", "\0", "a \\\n b")),
        }
        for _ in range(rng.randint(0, 4))
    ]
    sleep = {"section": "Service", "name": "ExecStart", "value": "/bin/sleep 1000"}
    fields: dict[str, Any] = {
        "name": rng.choice(("", *NAMES)),
        "desiredState": rng.choice((*TARGETS, "zzz")),
        "options": rng.choice(([], options, [sleep], [sleep, *options])),
    }
    return {key: value for key, value in fields.items() if value is not None}


def _metadata(rng: random.Random, machine: str) -> dict[str, Any]:
    value = rng.choice(("x", {"value": "x"}, "", "\0", "é" * 300, 7))
    path = f"/{rng.choice((machine, 'm1', 'nobody'))}/metadata/{rng.choice(('made', 'a/b', '', 'é'))}"
    return {"op": rng.choice(("add", "remove", "replace", "zap")), "path": path, "value": value}


def _warm(rng: random.Random) -> dict[str, Any]:
    where = rng.choice(({}, {"rack": "r1"}, {"": "x"}, {"rack": ""}))
    return {"image": rng.choice(("registry:5000/app:1", "app@sha256:x", "UPPER")), "where": where}


def _secret(rng: random.Random) -> dict[str, Any]:
    value = base64.b64encode(rng.randbytes(rng.choice((0, 1, 40, 600_000)))).decode()
    return {"name": rng.choice(("made-0", "made-1", "no name", "")), "value": value[: rng.choice((8, None, None))]}


def _line(rng: random.Random, machine: str) -> bytes:
    """Return a line as an agent ships it, often an odd one."""
    line = encode(
        ShippedLine(
            unit=rng.choice((*NAMES, "", "a\0b", "x" * 5000)),
            machine=machine if rng.random() < 0.8 else rng.choice(("", "m1", "\0")),
            name=rng.choice(("m1", "")),
            epoch=rng.choice((0, 1, -1, 2**63 - 1)),
            seq=rng.choice((0, 1, rng.randint(2, 10**6), -5, 2**63 - 1)),
            at=rng.choice((0.0, 1.7e9 + rng.random(), -1.0, 1e300)),
            stream=rng.choice(("stdout", "stderr", "file", "gap", "odd", "")),
            text=rng.choice(ODD_TEXTS),
            file=rng.choice(("", "/log", "\0")),
        )
    )
    match rng.randint(0, 9):
        case 0:
            return line.replace(b'"seq":', b'"seq":9')  # perhaps a number that no column takes
        case 1:
            return line.replace(b'"text":"', b'"text":"\xff\xfe')
        case 2:
            return line.replace(b'"text":"', b'"text":"\\ud800')
        case 3:
            return line[: rng.randint(0, len(line))]
        case 4:
            return json.dumps({"unit": "web.service", "machine": machine, "seq": 1, "at": 1e999}).encode()
    return line
