"""A model hub on this machine: what huggingface_hub asks of one, with connections that break and contents that lie."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """files: repository -> name -> content. cuts: bytes after which the next downloads break off."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.lies: dict[str, bytes] = {}  # name -> what is sent in place of the content
        self.cuts: list[int] = []
        self.ranges: list[str] = []  # of the downloads, "" for a whole one
        self.url = ""

    def listing(self, repo: str) -> dict[str, Any]:
        siblings = [self._sibling(name, content) for name, content in self.files[repo].items()]
        return {"id": repo, "sha": COMMIT, "siblings": siblings, "private": False, "tags": [], "downloads": 0}

    def _sibling(self, name: str, content: bytes) -> dict[str, Any]:
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
        if len(content) > 1000:
            sha = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"sha256": sha, "size": len(content), "pointerSize": 130}
        return entry


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._file(sends=False)

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if not path.startswith("/api/models/"):
                self._file(sends=True)
                return
            repo = path.removeprefix("/api/models/").partition("/revision/")[0]
            if repo not in hub.files:
                self._reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
                return
            self._reply(200, json.dumps(hub.listing(repo)).encode(), {"Content-Type": "application/json"})

        def _file(self, *, sends: bool) -> None:
            repo, _, rest = self.path.lstrip("/").partition("/resolve/")
            name = rest.partition("/")[2]
            content = hub.files.get(repo, {}).get(name)
            if content is None:
                self._reply(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            content = hub.lies.get(name, content)
            head = {
                "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Repo-Commit": COMMIT,
                "Accept-Ranges": "bytes",
            }
            given = self.headers.get("Range", "")
            if sends:
                hub.ranges.append(given)
            if given:
                begin = int(given.removeprefix("bytes=").partition("-")[0])
                head["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
                self._reply(206, content[begin:] if sends else b"", head, len(content) - begin)
                return
            self._reply(200, content if sends else b"", head, len(content))

        def _reply(self, status: int, body: bytes, head: dict[str, str], size: int | None = None) -> None:
            self.send_response(status)
            for key, value in head.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body) if size is None else size))
            self.end_headers()
            if hub.cuts and len(body) > 10_000:
                self.wfile.write(body[: hub.cuts.pop(0)])
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            self.wfile.write(body)

    return Handler


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
