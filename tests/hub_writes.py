"""The writing half of the test hub: repositories made, files taken by LFS or in the commit, commits, pull requests."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from hub_server import Hub

Handler = Callable[[Request], Awaitable[Response]]


@dataclass
class PullRequest:
    """One pull request; its commits are at `refs/pr/N` of the repository."""

    num: int
    title: str
    description: str
    status: str = "open"


def write_routes(hub: Hub) -> list[Route]:
    """Routes as the client calls them (docs of huggingface_hub name none; traced from 2.4)."""
    repo = "/api/models/{org}/{name}"
    writes = Writes(hub)

    def post(path: str, handler: Handler) -> Route:
        return Route(path, handler, methods=["POST"])

    return [
        post("/api/repos/create", writes.create),
        post("/api/validate-yaml", writes.validate),
        post(repo + "/preupload/{rev:path}", writes.preupload),
        post("/{org}/{name}.git/info/lfs/objects/batch", writes.batch),
        Route("/lfs/{oid}", writes.upload, methods=["PUT"]),
        post(repo + "/commit/{rev:path}", writes.commit),
        Route(repo + "/discussions", writes.discussions),
    ]


class Writes:
    """Handlers that change the hub's repositories."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    async def create(self, request: Request) -> Response:
        from hub_server import Repository, error

        if (fault := await self.hub.fault(request)) is not None:
            return fault
        if not request.headers.get("authorization"):
            return error(401, None)
        asked = await request.json()
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            return JSONResponse({"url": f"{self.hub.url}/{name}"}, 409)
        made = self.hub.repositories[name] = Repository(private=asked.get("visibility") == "private")
        made.commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        return JSONResponse({"url": f"{self.hub.url}/{name}"})

    async def validate(self, request: Request) -> Response:
        return await self.hub.fault(request) or JSONResponse({"errors": [], "warnings": []})

    async def preupload(self, request: Request) -> Response:
        from hub_server import LFS_KINDS, etag

        found = await self.hub.find(request)
        if isinstance(found, Response):
            return found
        rows = []
        for file in (await request.json())["files"]:
            path = file["path"]
            row = {"path": path, "uploadMode": "lfs" if path.endswith(LFS_KINDS) else "regular", "shouldIgnore": False}
            if path in found[2]:
                row["oid"] = etag(path, found[2][path])
            rows.append(row)
        return JSONResponse({"files": rows})

    async def batch(self, request: Request) -> Response:
        found = await self.hub.find(request)
        if isinstance(found, Response):
            return found
        rows: list[dict[str, Any]] = []
        for each in (await request.json())["objects"]:
            row = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.hub.objects:
                row["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}"}}
            rows.append(row)
        return JSONResponse({"transfer": "basic", "objects": rows})

    async def upload(self, request: Request) -> Response:
        from hub_server import error

        if (fault := await self.hub.fault(request)) is not None:
            return fault
        data = await request.body()
        if hashlib.sha256(data).hexdigest() != request.path_params["oid"]:
            return error(400, None)
        self.hub.objects[request.path_params["oid"]] = data
        return Response()

    async def commit(self, request: Request) -> Response:
        """One commit on a branch or a pull request, or on a new pull request; nothing at all where it is refused."""
        from hub_server import error

        found = await self.hub.find(request)
        if isinstance(found, Response):
            return found
        if not request.headers.get("authorization"):
            return error(401, None)
        name, head, _ = found
        repository = self.hub.repositories[name]
        lines = [json.loads(line) for line in (await request.body()).splitlines()]
        header = lines[0]["value"]
        parent = header.get("parentCommit", head)
        new = "create_pr" in request.query_params
        if parent not in repository.commits or (parent != head and not new):
            return error(412, None)
        files = dict(repository.commits[parent])
        for line in lines[1:]:
            self._apply(files, line["key"], line["value"])
        ref = request.path_params["rev"]
        answer = {}
        if new:
            number = len(repository.pull_requests) + 1
            repository.pull_requests.append(PullRequest(number, header["summary"], header["description"]))
            ref = f"refs/pr/{number}"
            repository.refs[ref] = parent
            answer["pullRequestUrl"] = f"{self.hub.url}/{name}/discussions/{number}"
        sha = repository.commit(files, ref)
        return JSONResponse({**answer, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}"})

    def _apply(self, files: dict[str, bytes], key: str, value: dict[str, Any]) -> None:
        path = value["path"]
        if key == "deletedFile":
            del files[path]
            return
        data = base64.b64decode(value["content"]) if key == "file" else self.hub.objects[value["oid"]]
        files[path] = bytes(byte ^ 1 for byte in data) if path in self.hub.faults.corrupted else data

    async def discussions(self, request: Request) -> Response:
        found = await self.hub.find(request)
        if isinstance(found, Response):
            return found
        wanted = request.query_params.get("status")
        rows = [
            {
                "num": each.num,
                "title": each.title,
                "author": {"name": "someone"},
                "createdAt": "2026-11-26T00:00:00.000Z",
                "status": each.status,
                "repo": {"name": found[0], "type": "model"},
                "isPullRequest": True,
            }
            for each in self.hub.repositories[found[0]].pull_requests
            if wanted in (None, each.status)
        ]
        return JSONResponse({"discussions": rows, "count": len(rows), "start": 0})
