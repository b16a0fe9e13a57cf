"""A package index on loopback with one wheel, for the pip of this interpreter."""

from __future__ import annotations

import hashlib
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from forelook.model.catalogue import CatalogueModel, PackageSource, find_model

MEMBER = "tiny_model/tiny.gguf"
WHEEL = "tiny_model-1.0-py3-none-any.whl"


def make_wheel(folder: Path, content: bytes) -> Path:
    """A wheel as small ones are: the model's file among Python files, and a dependency that must not be installed."""
    path = folder / WHEEL
    info = "tiny_model-1.0.dist-info"
    files = {
        MEMBER: content,
        "tiny_model/__init__.py": b"raise ImportError('this is not run')\n",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: not-there-at-all\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**files, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(name, data)
    return path


def row_of(wheel: Path, content: bytes) -> CatalogueModel:
    """A row of the catalog whose source is the wheel."""
    from dataclasses import replace

    base = find_model("smollm2-135m")
    assert base is not None
    data = wheel.read_bytes()
    source = PackageSource(
        "tiny-model==1.0", WHEEL, hashlib.sha256(data).hexdigest(), len(data), MEMBER,
        hashlib.sha256(content).hexdigest(), len(content),
    )  # fmt: skip
    return replace(base, model="tiny", source=source)


class FakeIndex:
    """Serves ``/simple/tiny-model/`` and the wheel.

    Attributes:
        url: for pip's ``--index-url``.
        wheel: what is sent.
        paths: what was asked for.
        ranges: the part of the wheel that was asked for, each time; empty for all of it.
        pause_s: waited in the middle of the wheel.
        cut_at: at which of its bytes the connection is cut, once per item.
    """

    def __init__(self, wheel: bytes) -> None:
        self.wheel = wheel
        self.url = ""
        self.paths: list[str] = []
        self.ranges: list[str] = []
        self.pause_s = 0.0
        self.cut_at: list[int] = []


@contextmanager
def running(index: FakeIndex) -> Iterator[FakeIndex]:
    """Serve until the context ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments: object) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            index.paths.append(self.path)
            if self.path == "/simple/tiny-model/":
                body = f'<!DOCTYPE html><html><body><a href="/files/{WHEEL}">{WHEEL}</a></body></html>'.encode()
                self.answer(200, body, "text/html")
            elif self.path == f"/files/{WHEEL}":
                index.ranges.append(self.headers.get("Range", ""))
                self.answer(200, index.wheel, "application/zip")
            else:
                self.answer(404, b"", "text/plain")

        def answer(self, status: int, body: bytes, kind: str) -> None:
            start = 0
            wanted = self.headers.get("Range")
            if status == 200 and wanted:
                start, status = int(wanted.removeprefix("bytes=").partition("-")[0]), 206
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", str(len(body) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.end_headers()
            with suppress(ConnectionError):  # the client may leave
                if kind == "application/zip" and index.cut_at:
                    self.wfile.write(body[start : index.cut_at.pop(0)])
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.shutdown(2)
                    return
                middle = start + (len(body) - start) // 2
                self.wfile.write(body[start:middle])
                self.wfile.flush()
                if kind == "application/zip":
                    time.sleep(index.pause_s)
                self.wfile.write(body[middle:])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    index.url = f"http://127.0.0.1:{server.server_address[1]}/simple/"
    try:
        yield index
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
