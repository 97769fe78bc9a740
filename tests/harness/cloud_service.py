"""What a cloud answers its instances: EC2's instance-metadata service, files, and that it knows no other names.

A program: FOLDER.

Who asks is known by the address: FOLDER/instances/<address>.json says `facts` (path below meta-data/ → value),
`user-data`, and `silent`. FOLDER/files is served below /files/ for everybody.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingUDPServer
from typing import Any
from urllib.parse import unquote

TOKEN = "a-token"


def below(facts: dict[str, str], path: str) -> str | None:
    """Return a fact or what is below a folder of facts, as EC2 lists it; None for what is not there."""
    if path in facts:
        return facts[path]
    prefix = path if not path or path.endswith("/") else f"{path}/"
    inside = [fact.removeprefix(prefix) for fact in facts if fact.startswith(prefix)]
    names = {name.partition("/")[0] + "/" * ("/" in name) for name in inside}
    return "\n".join(sorted(names)) if names else None


def handler(folder: Path) -> type[BaseHTTPRequestHandler]:
    """Return what answers a request."""

    class Cloud(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            print(self.client_address[0], format % args, flush=True)

        def answer(self, code: int, content: bytes = b"") -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def instance(self) -> dict[str, Any] | None:
            """What is told to who asks; None once 503 was answered."""
            file = folder / "instances" / f"{self.client_address[0]}.json"
            said: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"silent": True}
            if not said.get("silent"):
                return said
            self.answer(503)
            return None

        def do_PUT(self) -> None:
            if self.instance() is not None:
                self.answer(200, TOKEN.encode())

        def do_GET(self) -> None:
            path = unquote(self.path).lstrip("/")
            if path.startswith("files/"):
                file = folder / path
                found = ".." not in path and file.is_file()
                return self.answer(200, file.read_bytes()) if found else self.answer(404)
            if (said := self.instance()) is None:
                return None
            version, _, asked = path.partition("/")
            # cloud-init, which asks for versions by their date, takes a container for a cloud without tokens
            if version == "latest" and self.headers.get("X-aws-ec2-metadata-token") != TOKEN:
                return self.answer(401)
            value = None
            if asked == "user-data":
                value = said["user-data"]
            elif asked == "meta-data" or asked.startswith("meta-data/"):
                value = below(said["facts"], asked.removeprefix("meta-data").removeprefix("/"))
            return self.answer(404) if value is None else self.answer(200, value.encode())

    return Cloud


class Names(BaseRequestHandler):
    """A DNS server that knows no name: where none answers, cloud-init waits for half a minute."""

    def handle(self) -> None:
        """Answer NXDOMAIN, with the question alone."""
        query, socket = self.request
        end = query.index(0, 12) + 5
        socket.sendto(query[:2] + b"\x81\x83" + query[4:6] + bytes(6) + query[12:end], self.client_address)


if __name__ == "__main__":
    names = ThreadingUDPServer(("0.0.0.0", 53), Names)
    threading.Thread(target=names.serve_forever, daemon=True).start()
    ThreadingHTTPServer(("0.0.0.0", 80), handler(Path(sys.argv[1]))).serve_forever()
