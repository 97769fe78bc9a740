"""What the API says of one of its routes: who may ask, what it takes and what it gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from unit_master.api.parameters import Parameter
from unitfleet.model import Role

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `many`: the answer is a list of `gives`, `bare` when it stands in no envelope. `takes` is its
    body, in JSON; with `lines` an object a line, with `takes_many` a list.

    `needs` is the least role that may ask; `does` says for what, after "cannot", where that is more than a viewer.
    `streams`: it may answer for hours, in `media`. `public`: asked without a token. `keyed`: for agents and other
    masters, who show the cluster's key. `own`: a machine's agent may ask it about that machine.
    `fleets`: it is of fleet's API, with fleet's errors, and at fleet's older place, too. `gives` None: an answer
    without a body; `also` is another status of success.
    """

    method: str
    path: str
    handler: Handler
    gives: type | None
    needs: Role = Role.VIEWER
    does: str = ""
    many: bool = False
    query: tuple[Parameter, ...] = ()
    takes: type | None = None
    takes_many: bool = False
    lines: bool = False
    status: int = 200
    media: str = "application/json"
    streams: bool = False
    public: bool = False
    keyed: bool = False
    own: bool = False
    bare: bool = False
    fleets: bool = False
    also: tuple[int, ...] = ()

    @property
    def audited(self) -> bool:
        """Whether it changes something that a user answers for."""
        return self.method != "GET" and not self.keyed
