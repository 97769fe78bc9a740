"""The containers of one machine, asked of the Docker Engine itself: the agent that made them may be dead."""

from __future__ import annotations

import http.client
from urllib.parse import quote

import msgspec

from unitctl.context import Endpoint
from unitctl.transport import Connection

MACHINE_LABEL = "unitfleet.machine"
ANSWER_S = 30.0


class _Container(msgspec.Struct, frozen=True, rename="pascal"):
    id: str


class Engine:
    """An Engine behind its socket. Where none answers there are no containers."""

    def __init__(self, socket: str) -> None:
        self._endpoint = Endpoint(name=socket, socket=socket)

    def answers(self) -> bool:
        """Tell whether an Engine listens, and lets us in."""
        connection = Connection(self._endpoint, ANSWER_S)
        try:
            connection.connect()
        except OSError:
            return False
        finally:
            connection.close()
        return True

    def kill(self, machine_id: str) -> int:
        """Kill the machine's running containers as a power cut would; return how many."""
        running = self._find(machine_id, stopped=False)
        for container in running:
            self._ask("POST", f"/containers/{container}/kill")
        return len(running)

    def remove(self, machine_id: str) -> int:
        """Remove all of the machine's containers with their anonymous volumes; return how many."""
        found = self._find(machine_id, stopped=True)
        for container in found:
            self._ask("DELETE", f"/containers/{container}?force=true&v=true")
        return len(found)

    def _find(self, machine_id: str, *, stopped: bool) -> list[str]:
        filters = quote(msgspec.json.encode({"label": [f"{MACHINE_LABEL}={machine_id}"]}).decode())
        answer = self._ask("GET", f"/containers/json?all={str(stopped).lower()}&filters={filters}")
        return [each.id for each in msgspec.json.decode(answer, type=list[_Container])] if answer else []

    def _ask(self, method: str, path: str) -> bytes:
        """Return the answer's body, b"" for an error (a container that is gone already) or no Engine."""
        connection = Connection(self._endpoint, ANSWER_S)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return b""
        finally:
            connection.close()
        return body if response.status < 400 else b""
