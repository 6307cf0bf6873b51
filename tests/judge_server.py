"""An OpenAI-compatible chat endpoint on loopback whose every reply a test writes."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request as the judge sees it: the code of its fences, the exhibits, and everything else that was sent."""

    code: str
    prompt: str
    answer: str
    everything: str
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass(frozen=True)
class Sent:
    """A response. `cut` closes the connection instead; `chat` makes one of these that holds a completion."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


CUT = Sent(b"", cut=True)


def chat(text: str | None, **changes: Any) -> Sent:
    """A completion with this text, by a model called judge-1; top-level keys can be replaced."""
    document: dict[str, Any] = {
        "model": "judge-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10},
    }
    return Sent(json.dumps(document | changes).encode())


def error(status: int, message: str = "", **headers: str) -> Sent:
    return Sent(json.dumps({"error": {"message": message}}).encode(), status, headers)


Script = Callable[[Asked], Sent]


@dataclass
class JudgeServer:
    """What was asked so far, what is said to the next request, and how many were open at once."""

    script: Script
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    open: int = 0
    most_open: int = 0


@contextmanager
def judge_server(script: Script) -> Iterator[JudgeServer]:
    """Serves until the block ends; `server.script` may be replaced meanwhile."""
    state = JudgeServer(script)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found = _asked(body, dict(self.headers.items()))
            with state.lock:
                state.asked.append(found)
                state.open += 1
                state.most_open = max(state.most_open, state.open)
            sent = state.script(found)
            with state.lock:
                state.open -= 1
            if sent.cut:
                self.close_connection = True
                return
            self.send_response(sent.status)
            for name, value in {"content-length": str(len(sent.body)), **sent.headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            try:
                self.wfile.write(sent.body)
            except OSError:  # the client had enough of a long reply
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def _asked(body: dict[str, Any], headers: dict[str, str]) -> Asked:
    everything = "\n".join(message["content"] for message in body["messages"])
    # The last line is ours, and its code tells the fences from any that stand in the exhibits.
    code = re.findall(r"GRADE ([0-9a-f]{16}): ", everything)[-1]
    exhibits = [
        re.search(rf"^{kind} {code} BEGINS\n(.*)\n{kind} {code} ENDS$", everything, re.DOTALL | re.MULTILINE)
        for kind in ("REQUEST", "ANSWER")
    ]
    prompt, answer = (found[1] if found else "" for found in exhibits)
    return Asked(code, prompt, answer, everything, body, headers)
