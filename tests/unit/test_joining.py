"""Joining, as a host asks for it: what it takes for a no, and what for a later."""

from __future__ import annotations

import http.client
import io
from pathlib import Path
from typing import Any

import pytest

from unitfleet import certificates, joining
from unitfleet.errors import StoreUnavailable
from unitfleet.joinapi import Role
from unitfleet.jointoken import JoinToken


class Answers(http.client.HTTPSConnection):
    """A master that answers each request to join with `status`."""

    status = 0
    code = "x"
    authority = b""

    def __init__(self, *address: Any, **named: Any) -> None:
        self.asked = ""

    def close(self) -> None: ...

    def request(self, method: str, url: str, *more: Any, **named: Any) -> None:
        self.asked = url

    def getresponse(self) -> Any:
        answer = io.BytesIO(
            self.authority
            if self.asked == joining.CA_PATH
            else b'{"code":"%s","message":"no"}' % self.code.encode()
        )
        answer.status = 200 if self.asked == joining.CA_PATH else self.status  # type: ignore[attr-defined]
        return answer


@pytest.mark.parametrize(
    ("status", "code", "refused"),
    [
        (401, "denied", joining.JoinRefused),
        (409, "refused", joining.JoinRefused),
        (409, "not_yet", StoreUnavailable),
        (429, "too_many", StoreUnavailable),
        (503, "busy", StoreUnavailable),
    ],
)
def test_a_host_that_asks_too_early_asks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, code: str, refused: type[Exception]
) -> None:
    ca = certificates.make_ca("test", 1_800_000_000.0)
    monkeypatch.setattr(Answers, "status", status)
    monkeypatch.setattr(Answers, "code", code)
    monkeypatch.setattr(Answers, "authority", ca.certificate)
    monkeypatch.setattr(joining.http.client, "HTTPSConnection", Answers)  # type: ignore[attr-defined]
    token = JoinToken(("https://127.0.0.1:1",), certificates.digest(ca.certificate), "id", "ab" * 24)
    with pytest.raises(refused):
        joining.join(tmp_path / "tls", token, Role.AGENT, "1" * 32)
