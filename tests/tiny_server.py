"""A model server that starts in no time, for tests of what starts and watches servers: `python tiny_server.py PORT`.

Options: --child starts a process that outlives a killed parent; --deaf ignores SIGTERM; --sick answers 503 to health.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    is_sick = False

    def do_GET(self) -> None:
        is_bad = self.is_sick and self.path == "/health"
        body = json.dumps({"data": [{"id": "tiny"}]}).encode()
        self.send_response(503 if is_bad else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the library's name
        return


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    for flag in ("--child", "--deaf", "--sick"):
        parser.add_argument(flag, action="store_true")
    options = parser.parse_args()
    print("tiny server starts", flush=True)
    Handler.is_sick = options.sick
    if options.deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.child:  # in a session of its own, as daemons do
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    HTTPServer(("127.0.0.1", options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
