"""EC2's instance-metadata service: a token first (IMDSv2), without one where the service knows none (v1).

Blocking, a question for at most `patience_s`. Nothing that it does not say is ever taken for a no.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping

from unitfleet.errors import UnitfleetError

ADDRESS = "http://169.254.169.254"
PATIENCE_S = 2.0

_MOST = 64 * 1024
_NO_TOKEN, _NOT_FOUND = 401, 404


class Silent(UnitfleetError):
    """The service does not say: nothing is known."""


class Absent(Silent):
    """It is not there."""


class MetadataService:
    """Asks the service at one address. A token lives for `token_s`; one that is over is replaced.

    Every question raises `Absent` when the service is not there.
    """

    def __init__(self, address: str = ADDRESS, patience_s: float = PATIENCE_S, *, token_s: int = 60) -> None:
        self.address = address.rstrip("/")
        self._patience_s = patience_s
        self._token_s = token_s
        self._headers: dict[str, str] | None = None  # what a question carries, once a token was asked for
        # Never through a proxy: the service is a neighbour, and it tells secrets.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def find(self, path: str) -> str | None:
        """Return one fact, None when it says that there is none; raises `Silent` for whatever is neither."""
        status, text = self._ask(path)
        if status == _NO_TOKEN:
            self._headers = None
            status, text = self._ask(path)
        if status == _NOT_FOUND:
            return None
        if status >= 300:
            raise Silent(f"the instance-metadata service at {self.address} answers {status} to {path}")
        return text

    def _ask(self, path: str) -> tuple[int, str]:
        if self._headers is None:
            self._headers = self._log_in()
        return self._answer(f"latest/meta-data/{path}", "GET", self._headers)

    def _log_in(self) -> dict[str, str]:
        """Get a token; a service that knows none is asked without."""
        ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(self._token_s)}
        status, token = self._answer("latest/api/token", "PUT", ttl)
        return {"X-aws-ec2-metadata-token": token} if status < 300 and token else {}

    def _answer(self, path: str, method: str, headers: Mapping[str, str]) -> tuple[int, str]:
        try:
            request = urllib.request.Request(f"{self.address}/{path}", method=method, headers=dict(headers))
            with self._opener.open(request, timeout=self._patience_s) as answer:
                return answer.status, answer.read(_MOST).decode("utf-8", "replace").strip()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, ""
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            why = (getattr(reason, "strerror", None) or str(reason)).lower()
            raise Absent(f"no instance-metadata service at {self.address}: {why}") from None
