"""What the benchmarks' clients make of a backend that is slow, and of a connection that was closed meanwhile."""

from __future__ import annotations

import http.server
import threading

import pytest
from bench.http_servers import Connection, Server
from bench.latency import Figures


@pytest.mark.parametrize(
    ("num_asked", "num_cancelled", "new_ms", "is_silent"),
    [(4, 0, [], True), (4, 4, [], False), (4, 0, [30.0], False)],
    ids=["answers nothing", "slower than the typist", "answers"],
)
def test_an_engine_is_silent_if_what_was_not_cancelled_had_no_answer(
    num_asked: int, num_cancelled: int, new_ms: list[float], is_silent: bool
) -> None:
    figures = Figures(num_asked=num_asked, num_cancelled=num_cancelled)
    figures.latency_ms["new"] = new_ms
    assert figures.is_silent == is_silent


def test_a_kept_connection_that_the_server_has_closed_is_opened_again() -> None:
    class OneRequestEach(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps a connection, as far as the client knows

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), OneRequestEach) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        kept = Connection(Server("127.0.0.1", listener.server_address[1]), keeps=True)
        for _ in range(3):
            assert kept.post("/api/generate", {})[0] == {}
        kept.close()
        listener.shutdown()
