"""A hub on loopback that speaks the few endpoints a download needs, and can misbehave."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """One model, ``owner/model``.

    Attributes:
        files: its files.
        gets: (file, Range header) of each download.
        cut_at: per file, after how many bytes the connection is cut; each cut is made once.
        altered: per file, what is sent instead.
        num_requests: of any kind.
        architecture: what the hub says of GGUF files.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.gets: list[tuple[str, str | None]] = []
        self.cut_at: dict[str, list[int]] = {}
        self.altered: dict[str, bytes] = {}
        self.num_requests = 0
        self.commit = COMMIT
        self.architecture: str | None = None
        self.endpoint = ""

    def describe(self) -> dict[str, object]:
        siblings: list[dict[str, object]] = []
        for name, content in self.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            sibling: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": blob}
            if name.endswith((".safetensors", ".gguf")):
                digest = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
            siblings.append(sibling)
        described: dict[str, object] = {"id": "owner/model", "sha": self.commit, "siblings": siblings}
        return described if self.architecture is None else {**described, "gguf": {"architecture": self.architecture}}


@contextmanager
def running(hub: FakeHub) -> Iterator[FakeHub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments: object) -> None:
            """Quiet."""

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            hub.num_requests += 1
            path = self.path.partition("?")[0].strip("/")
            if path.startswith("api/models/"):
                self.describe(path.removeprefix("api/models/"))
                return
            model, _, rest = path.partition("/resolve/")
            commit, _, name = rest.partition("/")
            if model != "owner/model" or commit != hub.commit or name not in hub.files:
                self.refuse("EntryNotFound")
                return
            self.send_file(name, with_body=with_body)

        def describe(self, asked: str) -> None:
            model, _, revision = asked.partition("/revision/")
            if model == "owner/gated":
                self.refuse("GatedRepo", 403)
            elif model != "owner/model":
                self.refuse("RepoNotFound")
            elif revision not in ("", "main", "v1", hub.commit):
                self.refuse("RevisionNotFound")
            else:
                body = json.dumps(hub.describe()).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def refuse(self, code: str, status: int = 404) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send_file(self, name: str, *, with_body: bool) -> None:
            content = hub.altered.get(name, hub.files[name])
            wanted = self.headers.get("Range")
            start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
            self.send_response(206 if wanted else 200)
            self.send_header("X-Repo-Commit", hub.commit)
            self.send_header("ETag", f'"{hashlib.sha256(hub.files[name]).hexdigest()}"')
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content) - start))
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if not with_body:
                return
            hub.gets.append((name, wanted))
            cuts = hub.cut_at.get(name)
            if cuts:
                self.wfile.write(content[start : cuts.pop(0)])
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(2)
            else:
                with suppress(ConnectionError):  # the client may leave
                    self.wfile.write(content[start:])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
