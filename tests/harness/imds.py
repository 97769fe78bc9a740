"""EC2's instance-metadata service on loopback, as far as a host asks it at its boot."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

FACTS = {
    "instance-id": "i-0abc",
    "instance-type": "t3.small",
    "placement/availability-zone": "eu-west-1a",
    "placement/region": "eu-west-1",
    "local-ipv4": "10.0.0.5",
    "public-ipv4": "198.51.100.5",
}


@dataclass
class Imds:
    """What it serves; `tokens`: whether it hands out tokens and then asks for them. `asked`: every request.

    All of it may change while it serves: `token` is the one that is good, `faults` are facts that are answered by
    this status instead, `silent`: it takes questions and answers none.
    """

    facts: Mapping[str, str] = field(default_factory=lambda: dict(FACTS))
    tokens: bool = True
    token: str = "a-token"
    faults: Mapping[str, int] = field(default_factory=dict)
    silent: bool = False
    asked: list[str] = field(default_factory=list)
    address: str = ""


@contextmanager
def serve(service: Imds) -> Iterator[Imds]:
    """Serve it on a free port of loopback."""

    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def answer(self, code: int, text: str = "") -> None:
            if service.silent:
                over.wait()
                return
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def do_PUT(self) -> None:
            service.asked.append(f"PUT {self.path}")
            known = service.tokens and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
            self.answer(200, service.token) if known else self.answer(404)

        def do_GET(self) -> None:
            service.asked.append(f"GET {self.path}")
            if service.tokens and self.headers.get("X-aws-ec2-metadata-token") != service.token:
                return self.answer(401)
            path = unquote(self.path.removeprefix("/latest/meta-data/"))
            if fault := service.faults.get(path):
                return self.answer(fault)
            value = service.facts.get(path)
            return self.answer(404) if value is None else self.answer(200, value)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield service
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()
