"""Cases of schemathesis for every operation that a master describes, and what its answers must be.

A case is made once and asked by every caller, so that each sees the same. Values that mean something (the name of
a unit that is there, a whole join token) stand in some of the cases in place of what was made up: else nothing
behind the first look at a name would ever be reached.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from unit_master.api.route import Route
from unit_master.api.routes import ROUTES

SEED = 20261129
BASE = "http://master.test"
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

OTHERS = {route.path for route in ROUTES}

Body = Callable[[random.Random], Any]


@dataclass(frozen=True, slots=True)
class Meant:
    """Values that mean something to the cluster: of parameters by name, bodies by the path they are sent to.

    `elsewhere` has other values of a parameter for some paths.
    """

    values: Mapping[str, Sequence[str]]
    bodies: Mapping[str, Body] = field(default_factory=dict)
    elsewhere: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)

    def value(self, rng: random.Random, path: str, name: str) -> str | None:
        """Return a value of a parameter, None when none means anything."""
        known = self.elsewhere.get(path, {}).get(name) or self.values.get(name)
        return rng.choice(known) if known else None


@dataclass(frozen=True, slots=True)
class Asked:
    """A case as it is sent, without who asks: method, target and body as bytes go over the wire."""

    route: Route
    case: Case[Any]
    sent: requests.PreparedRequest

    @property
    def operation(self) -> str:
        """Method and pattern."""
        return f"{self.route.method} {self.route.path}"

    @property
    def target(self) -> str:
        """Path and query."""
        return (self.sent.url or "").removeprefix(BASE)

    def __str__(self) -> str:
        body = f" {bytes(self.sent.body)[:300]!r}" if isinstance(self.sent.body, bytes) else ""
        return f"{self.route.method} {self.target[:300]}{body}"


@dataclass(frozen=True, slots=True)
class Got:
    """An answer; `cut` when it was of those that never end, and not read further."""

    status: int
    headers: Mapping[str, list[str]]
    content: bytes
    cut: bool = False


@schemathesis.serializer("application/x-ndjson")
def _lines(ctx: Any, value: Any) -> bytes:
    """Write a body of lines: one of what was made up, or some that were written already."""
    return value if isinstance(value, bytes) else json.dumps(value).encode() + b"\n"


def made(description: Mapping[str, Any], meant: Meant, examples: int) -> Iterator[list[Asked]]:
    """Yield the cases of each operation: half as the description has it, half not so, the same in every run.

    Those of an operation that takes nothing are few: there are no more.
    """
    schema = schemathesis.openapi.from_dict(dict(description))
    by_label = {f"{route.method} {route.path}": route for route in ROUTES}
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        route = by_label[operation.label]
        rng = random.Random(f"{SEED} {operation.label}")
        wrong = _generated(operation, GenerationMode.NEGATIVE, examples // 2)
        cases = [*_generated(operation, GenerationMode.POSITIVE, examples - len(wrong)), *wrong]
        asked = [_asked(route, case, meant, rng) for case in cases]
        yield [each for each in asked if not _is_of_another(each)]


def _generated(operation: Any, mode: GenerationMode, examples: int) -> list[Case[Any]]:
    cases: list[Case[Any]] = []

    @seed(SEED)
    @settings(
        max_examples=examples,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode, headers={"Authorization": "Bearer x"}))
    def generate(case: Case[Any]) -> None:
        cases.append(case)

    try:
        generate()
    except Unsatisfiable:
        pass  # it takes nothing: there is no wrong way to ask
    return cases


def _asked(route: Route, case: Case[Any], meant: Meant, rng: random.Random) -> Asked:
    for container in (case.path_parameters, case.query):
        for name in list(container or {}):
            value = meant.value(rng, route.path, name)
            if value is not None and rng.random() < 0.5:
                container[name] = value
    if route.path in meant.bodies and rng.random() < 0.4:
        case.body = meant.bodies[route.path](rng)
    sent = requests.Request(**case.as_transport_kwargs(BASE)).prepare()
    return Asked(route, case, sent)


def _is_of_another(asked: Asked) -> bool:
    """Whether what stands for {order} is the last word of another route."""
    path = asked.route.path
    return path.replace("{order}", str(asked.case.path_parameters.get("order", ""))) in OTHERS - {path}


def fault(asked: Asked, got: Got) -> str | None:
    """Return what is wrong with an answer, by the description; None when it is as described."""
    response = Response(
        status_code=got.status,
        headers=got.headers,
        content=got.content,
        request=asked.sent,
        elapsed=0.0,
        verify=False,
        stream_cut_short=got.cut,
    )
    try:
        asked.case.validate_response(response, checks=CHECKS)
    except FailureGroup as group:
        told = "; ".join(f"{type(each).__name__}: {str(each)[:300]}" for each in group.exceptions)
        return f"{told}\n    answered {got.status} {got.content[:300]!r}"
    return None
