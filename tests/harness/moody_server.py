"""A small HTTP server whose mood a test sets: run as `moody_server.py PORT MOOD_FILE [CRASH_FILE]`.

The file says how `/healthz` is answered: ok, bad, hang, drip (a byte now and then, for ever), flood (10 GB),
redirect (to itself, for ever), away (to another host). It ends when CRASH_FILE is there.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Moody(BaseHTTPRequestHandler):
    """Answers as the mood is."""

    mood_file: Path
    asked: int = 0

    def do_GET(self) -> None:
        """Answer one question."""
        type(self).asked += 1
        mood = self.mood_file.read_text().strip() if self.mood_file.exists() else "bad"
        match mood:
            case "hang":
                time.sleep(3600)
            case "drip":
                self.send_response(200)
                self.end_headers()
                while True:
                    self.wfile.write(b".")
                    time.sleep(0.05)
            case "flood":
                self.send_response(200)
                self.end_headers()
                for _ in range(10_000):
                    self.wfile.write(bytes(1 << 20))
            case "redirect" | "away":
                self.send_response(302)
                self.send_header("Location", "/healthz" if mood == "redirect" else "http://192.0.2.1:9/secret")
                self.end_headers()
            case _:
                self.send_response(200 if mood == "ok" else 503)
                self.end_headers()
                self.wfile.write(f"I am {mood}\nand more\n".encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def main(port: int, mood: Path, crash: Path | None) -> None:
    """Serve until told to end."""
    Moody.mood_file = mood

    def watch() -> None:
        while crash is not None and not crash.exists():
            time.sleep(0.02)
        if crash is not None:
            print("going down: the crash file is there", flush=True)
            os._exit(7)

    threading.Thread(target=watch, daemon=True).start()
    ThreadingHTTPServer(("", port), Moody).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
