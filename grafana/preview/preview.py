"""The dashboards without Grafana: the same JSON, the same questions to a Prometheus, drawn by uPlot, which Grafana draws with.

    npm ci --prefix grafana/preview
    python grafana/preview/preview.py --prometheus http://127.0.0.1:9090

In outline only: no menus, no zoom, all sites and devices. `docs/pictures.py` makes the pictures of the documents with it.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

HERE = Path(__file__).parent
DASHBOARDS = HERE.parent / "dashboards"
UPLOT = HERE / "node_modules/uplot/dist"
FILES = {
    "/": (HERE / "index.html", "text/html; charset=utf-8"),
    "/preview.js": (HERE / "preview.js", "text/javascript; charset=utf-8"),
    "/preview.css": (HERE / "preview.css", "text/css; charset=utf-8"),
    "/uplot.js": (UPLOT / "uPlot.iife.min.js", "text/javascript; charset=utf-8"),
    "/uplot.css": (UPLOT / "uPlot.min.css", "text/css; charset=utf-8"),
}
ASKED = ("/api/v1/query?", "/api/v1/query_range?")
JSON = "application/json"


def answer(path: str, prometheus: str) -> tuple[int, str, bytes]:
    """What a browser gets: a file, a dashboard, or what Prometheus says."""
    place = path.partition("?")[0]
    if place in FILES:
        file, kind = FILES[place]
        return 200, kind, file.read_bytes()
    boards = {file.name: file for file in sorted(DASHBOARDS.glob("*.json"))}
    if place == "/dashboards":
        return 200, JSON, json.dumps([*boards]).encode()
    if place.startswith("/dashboards/") and place.removeprefix("/dashboards/") in boards:
        return 200, JSON, boards[place.removeprefix("/dashboards/")].read_bytes()
    if path.startswith(ASKED):
        try:
            with urllib.request.urlopen(prometheus + path, timeout=30) as told:
                return 200, JSON, told.read()
        except urllib.error.HTTPError as error:
            return error.code, JSON, error.read()
        except OSError as error:
            return 502, JSON, json.dumps({"status": "error", "error": f"{prometheus}: {error}"}).encode()
    return 404, JSON, b'{"status": "error", "error": "no such path"}'


@contextmanager
def serving(prometheus: str, port: int = 0) -> Iterator[str]:
    """Serve the preview on this machine alone; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = answer(self.path, prometheus)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: whoever looks sees it."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="URL", help="where it is asked")
    parser.add_argument("--port", type=int, default=3000, help="of this machine, to look at (default: 3000)")
    args = parser.parse_args()
    if not UPLOT.is_dir():
        print(f"uPlot is not there: npm ci --prefix {HERE}", file=sys.stderr)
        return 3
    try:
        with serving(args.prometheus.rstrip("/"), args.port) as url:
            print(f"{url}   Ctrl-C ends it")
            signal.pause()
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        print(f"port {args.port}: {error.strerror}: give another with --port", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
