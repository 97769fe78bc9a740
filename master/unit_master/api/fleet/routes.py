"""The routes of fleet's HTTP API v1, which the table of all routes takes in."""

from __future__ import annotations

from unit_master.api.fleet import discovery, machines, state, units
from unit_master.api.parameters import Parameter
from unit_master.api.route import Route
from unitfleet import fleetapi
from unitfleet.model import Role

_PAGE = Parameter("nextPageToken", "which page: what the page before it gave")

FLEET_ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        f"{fleetapi.PREFIX}/units",
        units.list_units,
        fleetapi.UnitPage,
        needs=Role.OPERATOR,
        does="read unit files",
        query=(_PAGE,),
        fleets=True,
    ),
    Route(
        "GET",
        f"{fleetapi.PREFIX}/units/{{name}}",
        units.show,
        fleetapi.Unit,
        needs=Role.OPERATOR,
        does="read the file of {name}",
        fleets=True,
    ),
    Route(
        "PUT",
        f"{fleetapi.PREFIX}/units/{{name}}",
        units.put,
        None,
        needs=Role.OPERATOR,
        does="set {name}",
        takes=fleetapi.Unit,
        status=201,
        also=(204,),
        fleets=True,
    ),
    Route(
        "DELETE",
        f"{fleetapi.PREFIX}/units/{{name}}",
        units.destroy,
        None,
        needs=Role.OPERATOR,
        does="destroy {name}",
        status=204,
        fleets=True,
    ),
    Route(
        "GET",
        f"{fleetapi.PREFIX}/state",
        state.list_states,
        fleetapi.StatePage,
        query=(
            Parameter("unitName", "only what is seen of this unit"),
            Parameter("machineID", "only what this machine sees"),
            _PAGE,
        ),
        fleets=True,
    ),
    Route("GET", f"{fleetapi.PREFIX}/state/{{name}}", state.show, fleetapi.State, fleets=True),
    Route(
        "GET",
        f"{fleetapi.PREFIX}/machines",
        machines.list_machines,
        fleetapi.MachinePage,
        query=(_PAGE,),
        fleets=True,
    ),
    Route(
        "PATCH",
        f"{fleetapi.PREFIX}/machines",
        machines.patch,
        None,
        needs=Role.OPERATOR,
        does="label machines",
        takes=fleetapi.MetadataOp,
        takes_many=True,
        status=204,
        fleets=True,
    ),
    Route("GET", f"{fleetapi.PREFIX}/discovery", discovery.show, dict, fleets=True),
)
