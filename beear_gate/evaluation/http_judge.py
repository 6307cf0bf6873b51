"""A model behind an OpenAI-compatible endpoint as judge: many questions at once, within the caps of the policy.

Whatever goes wrong with one answer leaves that answer unscored. A judge that turns into another model, spends its
budget or says nothing of use many times in a row is not asked any further.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Lock

from beear_gate.errors import UsageError
from beear_gate.evaluation.chat import ChatServer, NoReply, Pace, Refused, Reply
from beear_gate.evaluation.judges import is_incoherent
from beear_gate.evaluation.ledger import Entry, Identity, Ledger, key_of
from beear_gate.evaluation.rubrics import complied, messages, read_grade, rubric_digest
from beear_gate.policy import HttpJudgeSpec
from beear_gate.records import Finding, Outcome, ServedJudge, Severity, Tick, no_tick

GIVE_UP_AFTER = 10
"""Questions in a row without a grade, after which no further one is asked."""
_KEPT_REPLY = 2000
CHANGED = "judge-changed"


@dataclass(frozen=True)
class Question:
    prompt: str
    answer: str

    @property
    def key(self) -> str:
        return key_of(self.prompt, self.answer)


class HttpJudge:
    """One served judge for the length of a run.

    Args:
        folder: where its verdicts are kept; those that are there are not asked for again.
        under_test: the model that is judged, as the user named it; "" where there is none.
        pace: None for real waiting.

    Raises:
        UsageError: the judge is the model under test, or see `ChatServer`.
    """

    def __init__(self, spec: HttpJudgeSpec, folder: Path, under_test: str = "", pace: Pace | None = None) -> None:
        self.spec, self.under_test = spec, under_test
        self._stop, self._lock = Event(), Lock()
        self.pace = pace or Pace(wait=self._stop.wait)
        self._refuse_the_model_under_test(spec.model)
        ChatServer(spec, self.pace).close()  # what is wrong with it is said before a model is loaded
        self.ledger = Ledger(folder / f"{asked_digest(spec)[:16]}.jsonl")
        self.closed: Finding | None = None
        self._requests = sum(entry.requests for entry in self.ledger.entries)
        self._tokens = sum(entry.prompt_tokens + entry.completion_tokens for entry in self.ledger.entries)
        self._in_a_row = 0
        self._unscored: dict[str, str] = {}  # key of a question -> why it has no grade

    def grade(self, questions: Sequence[Question], tick: Tick = no_tick) -> list[Outcome]:
        """What the judge says of each answer, UNSCORED where it says nothing; equal questions are asked once.

        COMPLIED is what the rubric calls so. Of the others, broken text is INCOHERENT, as with the judge `marker`, and
        REFUSED means that the harm is withheld.

        Raises:
            Refused: the server turned the caller away.
            OSError: verdicts cannot be written to disk.
            UsageError: the server says that it is the model under test.
        """
        grades = self.grades(questions, tick)
        return [self._outcome(each, grade) for each, grade in zip(questions, grades, strict=True)]

    def grades(self, questions: Sequence[Question], tick: Tick = no_tick) -> list[str | None]:
        """The grade of each answer as the rubric writes it, None where there is none; see `grade`."""
        fresh = [each for each in dict.fromkeys(questions) if self.ledger.grade(each.key) is None]
        if fresh and not self.closed:
            self._ask_all(fresh, tick)
        changed = self.closed is not None and self.closed.id == CHANGED
        found = [None if changed else self.ledger.grade(each.key) for each in questions]
        for each, grade in zip(questions, found, strict=True):
            if grade is None:
                self._unscored.setdefault(each.key, "not asked any more")
        return found

    def finding(self) -> Finding | None:
        """Why answers of this run have no score; None where all have one."""
        if not self._unscored or self.closed:
            return self.closed
        reasons = Counter(self._unscored.values()).most_common(3)
        said = "; ".join(f"{times} times {reason}" for reason, times in reasons)
        return self._found(
            "judge-unscored", f"left {len(self._unscored)} answers without a score: {said}", "Go on with --resume."
        )

    def record(self) -> ServedJudge:
        """What the judge was, and what it took in all, resumed runs included."""
        entries, prices = self.ledger.entries, self.spec.prices
        read, written = sum(e.prompt_tokens for e in entries), sum(e.completion_tokens for e in entries)
        model, fingerprint = self.ledger.identity or ("", "")
        return ServedJudge(
            judge=self.spec.name,
            url=self.spec.url,
            model=self.spec.model,
            served=model,
            fingerprint=fingerprint,
            rubric=rubric_digest(self.spec.rubric),
            requests=sum(entry.requests for entry in entries),
            graded=len(self.ledger),
            unscored=len(self._unscored),
            prompt_tokens=read,
            completion_tokens=written,
            cost=round((read * prices.input + written * prices.output) / 1e6, 6) if prices else None,
            currency=prices.currency if prices else "",
        )

    def _outcome(self, question: Question, grade: str | None) -> Outcome:
        if grade is None:
            return Outcome.UNSCORED
        if complied(self.spec, grade):
            return Outcome.COMPLIED
        return Outcome.INCOHERENT if is_incoherent(question.answer) else Outcome.REFUSED

    def _ask_all(self, questions: Sequence[Question], tick: Tick) -> None:
        self._stop.clear()
        server = ChatServer(self.spec, self.pace)
        pool = ThreadPoolExecutor(self.spec.concurrency)
        try:
            asked = [pool.submit(self._ask, server, each) for each in questions]
            for done, future in enumerate(as_completed(asked), 1):
                future.result()
                tick(f"judging: {self.spec.name}", done, len(asked))
        except BaseException:
            self._stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            server.close()

    def _ask(self, server: ChatServer, question: Question) -> None:
        code = secrets.token_hex(8)
        chat = messages(self.spec.rubric, question.prompt, question.answer, code)
        sent = sum(len(message["content"].encode()) for message in chat)
        tries = 0

        def before_each() -> None:
            nonlocal tries
            self._take_from_budget()
            tries += 1

        entry = Entry(question.key, None, "", None, 0, 0, 0, "")
        try:
            reply = server.ask(chat, before_each)
        except NoReply as error:
            if tries:
                self._keep(replace(entry, problem=str(error), requests=tries))
            return
        except Refused:
            self._stop.set()  # here, so that no other thread asks again before the caller hears of it
            raise
        grade = read_grade(self.spec.rubric, reply.text, code) if reply.whole else None
        entry = replace(
            entry,
            grade=grade,
            problem="" if grade else "no grade in the reply" if reply.whole else "a reply that was cut off",
            identity=(reply.model, reply.fingerprint),
            requests=tries,
            prompt_tokens=sent if reply.prompt_tokens is None else reply.prompt_tokens,
            completion_tokens=_written(reply),
            reply=reply.text[-_KEPT_REPLY:],
        )
        self._keep(entry)

    def _take_from_budget(self) -> None:
        """Count one request; requests that are under way may still add their tokens to what the cap was."""
        with self._lock:
            if self.closed or self._stop.is_set():
                raise NoReply("not asked any more")
            for name, spent, cap in (
                ("max_requests", self._requests, self.spec.max_requests),
                ("max_tokens", self._tokens, self.spec.max_tokens),
            ):
                if cap is not None and spent >= cap:
                    remedy = f"Raise {name} in the policy and scan again."
                    self.closed = self._found("judge-budget", f"has spent its {name} of {cap}", remedy)
                    raise NoReply("the budget is spent")
            self._requests += 1

    def _keep(self, entry: Entry) -> None:
        if entry.identity:
            self._refuse_the_model_under_test(entry.identity[0])
        with self._lock:
            self.ledger.add(entry)
            self._tokens += entry.prompt_tokens + entry.completion_tokens
            self._in_a_row = 0 if entry.grade else self._in_a_row + 1
            if entry.problem:
                self._unscored[entry.key] = entry.problem
            if self.closed:
                return
            if entry.identity and entry.identity != self.ledger.identity:
                self.closed = self._changed(entry.identity)
            elif self._in_a_row >= GIVE_UP_AFTER:
                message = f"gave no grade {GIVE_UP_AFTER} times in a row, the last time because of {entry.problem}"
                remedy = "Look after the server, then go on with --resume: what it has graded is kept."
                self.closed = self._found("judge-unavailable", message, remedy)

    def _changed(self, now: Identity) -> Finding:
        first = self.ledger.identity or ("", "")
        message = f"changed while it graded, from {_named(first)} to {_named(now)}, so none of its grades count"
        remedy = "Pin one version of the judge's model, and scan again without --resume."
        return self._found(CHANGED, message, remedy)

    def _found(self, id: str, message: str, remedy: str) -> Finding:
        return Finding(id, Severity.WARNING, "", f"The judge {self.spec.name} {message}.", remedy)

    def _refuse_the_model_under_test(self, name: str) -> None:
        if same_model(name, self.under_test):
            raise UsageError(
                f"The judge {self.spec.name} is {name}, the model under test, and no model may judge itself.",
                "Name another judge in the policy.",
            )


def asked_digest(spec: HttpJudgeSpec) -> str:
    """Identity of what is asked of whom: verdicts are kept under it."""
    asked = [spec.url, spec.model, rubric_digest(spec.rubric), spec.max_reply_tokens]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def same_model(judge: str, under_test: str) -> bool:
    """Whether two names mean one model: equal but for case and revision, one without the owner, or one folder."""
    if not judge or not under_test:
        return False
    one, other = (name.rpartition("@")[0] or name for name in (judge, under_test))
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    one, other = one.rstrip("/").casefold(), other.rstrip("/").casefold()
    bare = "/" not in one or "/" not in other
    return one == other or (bare and one.rpartition("/")[2] == other.rpartition("/")[2])


def _named(identity: Identity) -> str:
    model, fingerprint = identity
    return f"{model or 'no name'} ({fingerprint})" if fingerprint else model or "no name"


def _written(reply: Reply) -> int:
    return len(reply.text.encode("utf-8", "replace")) if reply.completion_tokens is None else reply.completion_tokens
