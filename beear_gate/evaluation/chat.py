"""One question to an OpenAI-compatible chat endpoint: retries, limits, and what went wrong in a few words.

httpx2 is imported only when a server is really opened, so that a machine without it lacks served judges and nothing
else. Replies come from a server that may be broken: none is trusted to be short, quick, or JSON.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from beear_gate.errors import IncompleteError, UsageError
from beear_gate.evaluation.rubrics import Message
from beear_gate.policy import HttpJudgeSpec

if TYPE_CHECKING:
    import httpx2

MOST_BYTES = 1 << 20
"""A longer reply is none; a grade and its reasons have some kilobytes."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 120.0
"""Seconds before the second request, doubled for each further one; and the longest that anything is waited for."""
_LATER = frozenset({408, 425, 429})
_OF_THE_QUESTION = frozenset({400, 413, 422})
"""Refused for what was asked, such as a text that is too long; other 4xx are about the caller."""


@dataclass(frozen=True)
class Reply:
    """What a server answered.

    Attributes:
        model, fingerprint: who it says that it is (`model`, `system_fingerprint`); "" where it says nothing.
        prompt_tokens, completion_tokens: its own count; None where it gives none.
        whole: whether the reply ended by itself, and not at the limit of tokens or by a filter.
    """

    text: str
    model: str
    fingerprint: str
    prompt_tokens: int | None
    completion_tokens: int | None
    whole: bool


class NoReply(Exception):
    """There is no reply to this question; the words say why, without anything secret."""


class Refused(IncompleteError):
    """The server turned the caller away: key, address or model are wrong, and another try would not help."""


@dataclass(frozen=True)
class Pace:
    """Waiting and chance, so that tests need neither.

    Attributes:
        wait: sleeps for that many seconds.
        chance: a number from 0 to 1; spreads the second tries of requests that failed together.
        now: seconds of a clock that never goes back.
    """

    wait: Callable[[float], object] = time.sleep
    chance: Callable[[], float] = random.random
    now: Callable[[], float] = time.monotonic


class ChatServer:
    """The endpoint of one judge; `ask` may be called from several threads.

    Raises:
        UsageError: the key's variable is not set or holds no key, the address is none, or httpx2 is not installed.
    """

    def __init__(self, spec: HttpJudgeSpec, pace: Pace) -> None:
        self.spec, self.pace = spec, pace
        self._key = _key(spec)
        try:
            import httpx2
        except ImportError as error:
            raise UsageError("A judge behind http needs the package httpx2.", "Run pip install httpx2.") from error
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            self.address = httpx2.URL(f"{spec.url}/chat/completions")
        except httpx2.InvalidURL as error:
            raise UsageError(f"The judge's url {spec.url!r} is none.", "Correct it in the policy.") from error
        limits = httpx2.Limits(max_connections=spec.concurrency)
        self._client = httpx2.Client(headers=headers, timeout=spec.timeout, limits=limits)

    def close(self) -> None:
        self._client.close()

    def ask(self, messages: Sequence[Message], before_each: Callable[[], None]) -> Reply:
        """The server's reply, after as many tries as the spec allows.

        Args:
            before_each: called before every request; what it raises ends the tries.

        Raises:
            NoReply: each try failed, or the question is one that the server does not take.
            Refused: the server turned the caller away.
        """
        for attempt in range(self.spec.attempts):
            before_each()
            reply, problem, asked_to_wait = self._try(messages)
            if reply:
                return reply
            # "Equal jitter": half of the wait is certain, the other half is chance.
            backoff = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) * (0.5 + 0.5 * self.pace.chance())
            if asked_to_wait is not None and asked_to_wait > LONGEST_WAIT:
                raise NoReply(f"{problem}, with a wait of more than {LONGEST_WAIT:.0f} s")
            if attempt + 1 < self.spec.attempts:
                self.pace.wait(backoff if asked_to_wait is None else asked_to_wait)
        raise NoReply(problem)

    def _try(self, messages: Sequence[Message]) -> tuple[Reply | None, str, float | None]:
        """A reply, or why there is none yet and how long the server wants to be left alone."""
        import httpx2

        question = {
            "model": self.spec.model,
            "messages": list(messages),
            "temperature": 0,
            "max_tokens": self.spec.max_reply_tokens,
            "stream": False,
        }
        try:
            with self._client.stream("POST", self.address, json=question) as response:
                body = self._read(response)
                status, headers = response.status_code, response.headers
        except httpx2.TimeoutException:
            return None, f"no reply within {self.spec.timeout:g} s", None
        except httpx2.TransportError as error:
            return None, f"no connection ({self._plain(str(error)) or type(error).__name__})", None
        except httpx2.HTTPError as error:
            raise NoReply(f"a reply that cannot be decoded ({self._plain(str(error))})") from error
        if status == 200:
            return _reply(body), "", None
        said = f"HTTP {status}{self._explanation(body)}"
        if status in _LATER or status >= 500:
            return None, said, retry_after(headers.get("retry-after"), datetime.now(UTC))
        if status in _OF_THE_QUESTION:
            raise NoReply(said)
        raise Refused(f"The judge {self.spec.name} at {self.spec.url} answered {said}.", _remedy(self.spec, status))

    def _read(self, response: httpx2.Response) -> bytes:
        """The body; a reply without end, or one that drips, is cut off."""
        import httpx2

        body, began = bytearray(), self.pace.now()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MOST_BYTES:
                raise NoReply(f"a reply of more than {MOST_BYTES // 1024} KiB")
            if self.pace.now() - began > self.spec.timeout:
                raise httpx2.ReadTimeout("the reply drips")
        return bytes(body)

    def _explanation(self, body: bytes) -> str:
        """What the server says of its error, in brackets; "" for pages and for silence."""
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            return ""
        error = document.get("error", document.get("detail")) if isinstance(document, dict) else None
        message = error.get("message") if isinstance(error, dict) else error
        return f" ({self._plain(message)})" if isinstance(message, str) and message else ""

    def _plain(self, text: str) -> str:
        """One short line without the key, which some servers repeat."""
        return _line(text.replace(self._key, "***") if self._key else text)


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date (RFC 9110, section 10.2.3); None without."""
    if value is None:
        return None
    if value.strip().isdecimal() and len(value) < 10:
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())


def _key(spec: HttpJudgeSpec) -> str:
    if not spec.key_env:
        return ""
    key = os.environ.get(spec.key_env, "").strip()
    if not key:
        raise UsageError(
            f"The judge {spec.name} takes its key from the environment variable {spec.key_env}, which is not set.",
            "Set it to the key.",
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(f"The environment variable {spec.key_env} holds something that no key is.", "Set it anew.")
    return key


def _remedy(spec: HttpJudgeSpec, status: int) -> str:
    if status in (401, 403):
        where = f"the key in {spec.key_env}" if spec.key_env else "whether the server wants a key (key_env)"
        return f"Check {where}, then go on with --resume."
    return "Check url and model in the policy."


def _reply(body: bytes) -> Reply:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NoReply("a reply that is no JSON") from error
    choices = document.get("choices") if isinstance(document, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise NoReply("a reply without a choice")
    message = choices[0].get("message")
    content = message.get("content") if isinstance(message, dict) else None
    usage = document.get("usage")
    return Reply(
        text=content if isinstance(content, str) else "",
        model=_line(document.get("model")),
        fingerprint=_line(document.get("system_fingerprint")),
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        whole=choices[0].get("finish_reason") in ("stop", None),
    )


def _line(value: Any) -> str:
    """One short line that every file can hold, whatever a server sent."""
    return " ".join(value.encode("utf-8", "replace").decode().split())[:200] if isinstance(value, str) else ""


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else None
