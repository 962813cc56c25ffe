"""moto's S3 on loopback, for the demo and the tests: prints its URL, and ends when its standard input does.

moto checks a condition and then writes, in as many threads as there are requests: on a busy machine two of
six concurrent conditional writes were seen to succeed. Here it handles one request at a time, which makes
its conditions hold.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

moto = DomainDispatcherApplication(create_backend_app)
turn = threading.Lock()


def one_at_a_time(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The body first, so that a slow client holds up nobody; then moto, alone."""
    length = environ.get("CONTENT_LENGTH")
    if length:
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(length)))
    with turn:
        return list(moto(environ, start_response))


def main() -> None:
    """Serve until standard input is closed."""
    server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
