"""Requests that no `unitctl` would send, each with the status and the words that it is refused with."""

from __future__ import annotations

import json

SERVICE = "[Service]\nExecStart=/bin/sleep 100000\n"


def wish(**fields: object) -> bytes:
    return json.dumps({"changes": [fields]}).encode()


JSON = {"Content-Type": "application/json"}

REQUESTS: tuple[tuple[str, str, bytes | None, dict[str, str], int, str], ...] = (
    ("POST", "/v1/units", b"{}", {"Content-Type": "text/plain"}, 415, "cannot read a body of type text/plain"),
    ("POST", "/v1/units", b"{nope", JSON, 400, "cannot read the body: JSON is malformed"),
    ("POST", "/v1/units", b"[" * 100_000, JSON, 400, "cannot read the body"),
    ("POST", "/v1/units", b"{}", JSON, 400, "missing required field `changes`"),
    ("POST", "/v1/units", wish(name="x.service", tarket="launched"), JSON, 400, "unknown field `tarket`"),
    ("POST", "/v1/units", wish(name="x.service", target="flying"), JSON, 400, "Invalid enum value 'flying'"),
    ("POST", "/v1/units", b" " * (8 * 1024 * 1024 + 1), JSON, 413, "8388608 are allowed"),
    ("POST", "/v1/cluster/hold", b" " * (256 * 1024 + 1), JSON, 413, "262144 are allowed"),
    ("POST", "/v1/units", wish(name="../../x.service", text=SERVICE), JSON, 202, "invalid character '/'"),
    ("POST", "/v1/units", wish(name="a\0b.service", text=SERVICE), JSON, 202, "invalid character '\\\\x00'"),
    ("POST", "/v1/units", wish(name="x.service", text="#" * 66_000), JSON, 202, "a unit takes at most 65536"),
    ("PUT", "/v1/units", None, {}, 405, "allowed: GET,POST"),
    ("GET", "/v1/nope", None, {}, 404, "/v1/openapi.json lists what there is"),
    ("GET", "/v1/units/../../../etc/passwd", None, {}, 404, "not found"),
    ("GET", "/v1/units/..%2f..%2fetc%2fpasswd.service", None, {}, 400, "invalid character '/'"),
    ("GET", "/v1/units/a%0d%0aX:%20y.service", None, {}, 400, "invalid character '\\\\r'"),
    ("DELETE", "/v1/units/a%00b.service", None, {}, 400, "invalid character '\\\\x00'"),
    ("GET", "/v1/units/%ff.service", None, {}, 400, "invalid character '%'"),
    ("GET", "/v1/units?min_revision=-1", None, {}, 400, "cannot use min_revision='-1'"),
    ("GET", "/v1/units?name=[a", None, {}, 400, "a [ that is not closed"),
    ("GET", "/v1/stream?since=zzz", None, {}, 400, "cannot resume from 'zzz'"),
    ("POST", "/v1/machines/m1/cordn", None, {}, 404, "did you mean cordon?"),
    ("GET", "/v1/units", None, {"X-Long": "y" * 20_000}, 400, "8190 bytes"),
    ("GET", "/v1/units", None, {"Authorization": "Bearer nope"}, 401, "not one of this cluster"),
)
