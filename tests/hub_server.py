"""A model hub small enough to read, for tests: repositories in memory behind the endpoints that the client calls.

Serves what `HfApi.model_info` and `snapshot_download` of huggingface_hub need (GET api/models, tree, HEAD and GET
resolve). Repositories keep a history of commits, and routes and handlers are methods, so that writing (preupload, LFS,
commit) can be added beside them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# Before any import of huggingface_hub, which reads them once.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.pop("HF_HUB_OFFLINE", None)

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

LFS_KINDS = (".safetensors", ".bin")


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def etag(path: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if path.endswith(LFS_KINDS) else git_sha1(content)


@dataclass
class Repository:
    """Commits (40-hex -> files) and the branches and tags that point at them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], ref: str = "main") -> str:
        """Make `files` the whole content of a branch; returns the commit."""
        content = json.dumps([self.refs.get(ref), sorted((path, etag(path, data)) for path, data in files.items())])
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs[ref] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        sha = self.refs.get(revision, revision)
        return sha if sha in self.commits else None


@dataclass
class Faults:
    """What goes wrong; every part is off by default.

    Attributes:
        status: answer requests whose path contains `where` with this status and `error_code`.
        delay: seconds before each answer whose path contains `where`.
        tampered: files served with other bytes of the same length.
        cut: bytes of a file's body to send before the connection breaks, by file; cut_times: how often.
        no_checksums: list files without git or LFS checksums.
        html: answer everything as a login page would, with 200.
    """

    status: int | None = None
    error_code: str | None = None
    where: str = ""
    delay: float = 0.0
    tampered: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    cut_times: int = 10**6
    no_checksums: bool = False
    html: bool = False


class Hub:
    """The server's state: repositories, faults, and a log of (method, path, authorization)."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults = Faults()
        self.requests: list[tuple[str, str, str]] = []
        self.url = ""
        self.server: uvicorn.Server | None = None

    def add(self, name: str, files: dict[str, bytes]) -> str:
        """Create or update the main branch of a repository; returns the commit."""
        return self.repositories.setdefault(name, Repository()).commit(files)

    def stop(self) -> None:
        """Take the hub off the network."""
        assert self.server is not None
        self.server.force_exit = self.server.should_exit = True
        while self.server.started and self.server.servers and any(each.is_serving() for each in self.server.servers):
            time.sleep(0.01)

    def app(self) -> ASGIApp:
        resolve = "/{org}/{name}/resolve/{rev}/{path:path}"
        return Starlette(
            routes=[
                Route("/api/models/{org}/{name}", self.info),
                Route("/api/models/{org}/{name}/revision/{rev:path}", self.info),
                Route("/api/models/{org}/{name}/tree/{rev:path}", self.tree),
                Route(resolve, self.file, methods=["GET", "HEAD"]),
                Route("/datasets" + resolve, self.file, methods=["GET", "HEAD"]),
            ]
        )

    async def info(self, request: Request) -> Response:
        found = await self.find(request)
        if isinstance(found, Response):
            return found
        name, sha, files = found
        siblings = [{"rfilename": path, **self.metadata(path, data)} for path, data in files.items()]
        if "blobs" not in request.query_params:
            siblings = [{"rfilename": sibling["rfilename"]} for sibling in siblings]
        return JSONResponse({"id": name, "sha": sha, "private": False, "gated": False, "siblings": siblings})

    async def tree(self, request: Request) -> Response:
        found = await self.find(request)
        if isinstance(found, Response):
            return found
        rows = []
        for path, data in found[2].items():
            row: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_sha1(data)}
            if path.endswith(LFS_KINDS):
                row["lfs"] = {"oid": etag(path, data), "size": len(data), "pointerSize": 134}
            rows.append(row)
        return JSONResponse(rows)

    async def file(self, request: Request) -> Response:
        found = await self.find(request)
        if isinstance(found, Response):
            return found
        _, sha, files = found
        path = request.path_params["path"]
        if path not in files:
            return error(404, "EntryNotFound")
        data = files[path]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{etag(path, data)}"', "Accept-Ranges": "bytes"}
        if path in self.faults.tampered:
            data = bytes(byte ^ 1 for byte in data)
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if request.method == "GET" and path in self.faults.cut and self.faults.cut_times > 0:
            self.faults.cut_times -= 1
            return Cut(data[start:], headers, self.faults.cut[path])
        return Response(data[start:], 206 if start else 200, headers)

    async def find(self, request: Request) -> Response | tuple[str, str, dict[str, bytes]]:
        """Name, commit and files that a request is about, or the error to answer with; applies faults first."""
        path = request.url.path
        self.requests.append((request.method, path, request.headers.get("authorization", "")))
        if self.faults.where in path:
            await asyncio.sleep(self.faults.delay)
            if self.faults.html:
                return Response("<html>Please log in</html>", media_type="text/html")
            if self.faults.status is not None:
                return error(self.faults.status, self.faults.error_code)
        name = f"{request.path_params['org']}/{request.path_params['name']}"
        repository = self.repositories.get(name)
        if repository is None:
            return error(404, "RepoNotFound")
        sha = repository.resolve(request.path_params.get("rev", "main"))
        return error(404, "RevisionNotFound") if sha is None else (name, sha, repository.commits[sha])

    def metadata(self, path: str, data: bytes) -> dict[str, Any]:
        """A file's row as `model_info(files_metadata=True)` wants it."""
        row: dict[str, Any] = {"size": len(data)}
        if not self.faults.no_checksums:
            row["blobId"] = git_sha1(data)
            if path.endswith(LFS_KINDS):
                row["lfs"] = {"sha256": etag(path, data), "size": len(data), "pointerSize": 134}
        return row


class Cut(Response):
    """A response that promises its whole length and breaks the connection after `sent` bytes."""

    def __init__(self, content: bytes, headers: dict[str, str], sent: int) -> None:
        super().__init__(content, 200, headers)
        self.sent = sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": bytes(self.body)[: self.sent], "more_body": True})


def error(status: int, code: str | None) -> Response:
    return Response(status_code=status, headers={"X-Error-Code": code} if code else {})


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a free port of 127.0.0.1, stopped at the end."""
    hub = Hub()
    config = uvicorn.Config(hub.app(), host="127.0.0.1", port=0, log_level=60, lifespan="off")
    hub.server = uvicorn.Server(config)
    thread = threading.Thread(target=hub.server.run, daemon=True)
    thread.start()
    while not hub.server.started:
        assert thread.is_alive(), "the hub did not start"
        time.sleep(0.005)
    host, port = hub.server.servers[0].sockets[0].getsockname()[:2]
    hub.url = f"http://{host}:{port}"
    try:
        yield hub
    finally:
        hub.stop()
        thread.join(10)
