"""Whether a model is what a signed verdict vouches for: signature, statement, policy, age, evidence, then every byte.

Follows the verification procedure of slsa.dev/verification_summary/v1. Nothing is believed but the signature and what
it covers: not the card, not a hub's listing. Nothing is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from beear_gate.errors import UsageError, VerificationFailed
from beear_gate.hub import pull, pull_beside
from beear_gate.manifest import hash_files, list_folder, printable, quoted
from beear_gate.records import FileRecord, ModelSnapshot, Tick, no_tick
from beear_gate.statement import EVIDENCE, LEVELS, VERIFIER_ID, Statement, Summary, read_statement, wants_cover

FOLDER = ".beear-gate"
"""Where a published model has its verdict and evidence."""
_SKEW = timedelta(minutes=5)
_LARGEST = 64 * 2**20  # bytes of a signed statement; a model of ten thousand files has about one megabyte
_DO_NOT_LOAD = "Do not load this model; fetch it again, and ask whoever published it if that changes nothing."

Open = Callable[[bytes], tuple[str, bytes]]
"""From a signed document to type and bytes of its payload, once the signature has been checked."""


@dataclass(frozen=True)
class Expected:
    """What a verdict has to say beyond being signed and passed; None: anything.

    Attributes:
        policy: digest (sha256 in hex) of the policy.
        source: the model that was scanned: `org/name`, `org/name@<commit>`, or the package URL of the statement.
        max_age: how old the verdict may be.
    """

    policy: str | None = None
    source: str | None = None
    max_age: timedelta | None = None


@dataclass(frozen=True)
class Verified:
    """A model that is what its verdict says, and what the verdict says.

    Attributes:
        path: the folder whose bytes were hashed.
        age: of the verdict.
    """

    path: Path
    statement: Statement
    age: timedelta

    @property
    def verdict(self) -> str:
        (level,) = self.statement.predicate.verified_levels
        return next(verdict for verdict, name in LEVELS.items() if name == level)


def verify(
    model: str,
    verdict: Path | None,
    file_name: str,
    opened: Open,
    expected: Expected,
    tick: Tick = no_tick,
    revision: str | None = None,
) -> Verified:
    """Check a model folder, or a model on a hub, which is pulled first, against its signed verdict.

    Args:
        verdict: the signed verdict, with `evidence.json` beside it; None for `.beear-gate/<file_name>` of the model.
        opened: checks the signature and unwraps the statement.

    Raises:
        VerificationFailed: anything is not as it was judged, or not as expected.
        UsageError, IncompleteError: there was nothing to look at, or it could not be read.
    """
    path = Path(os.path.expanduser(model))
    pulled = None if path.is_dir() and revision is None else _pull(model, revision, file_name, tick)
    folder = pulled.path if pulled else path.resolve()
    file = verdict or folder / FOLDER / file_name
    statement = read_statement(*opened(_read(file, verdict is not None, model)))
    age = _check_summary(statement.predicate, expected, datetime.now(UTC))
    _check_evidence(statement.predicate, file.with_name(EVIDENCE))
    if pulled:  # and hashed
        files, ignored = pulled.files, pulled.ignored
    else:
        names, ignored = list_folder(folder)
        files = hash_files(folder, names, tick)
    _check_files(statement.files, files, (*ignored, *_papers(folder)), model)
    return Verified(folder, statement, age)


def _pull(model: str, revision: str | None, file_name: str, tick: Tick) -> ModelSnapshot:
    """A model from a hub with its verdict and evidence; says too what is wrong with a path that leads nowhere."""
    snapshot = pull(model, revision, tick=tick)
    beside = (f"{FOLDER}/{file_name}", f"{FOLDER}/{EVIDENCE}")
    pull_beside(snapshot, [name for name in beside if name in snapshot.ignored])
    return snapshot


def _read(file: Path, named: bool, model: str) -> bytes:
    """The signed document. A verdict that the user named and that is not there is a wrong call; else it is missing."""
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST + 1)
    except OSError as error:
        if named:
            raise UsageError(f"The verdict {file} cannot be read: {error.strerror}.", "Check the path.") from None
        raise VerificationFailed(
            f"{quoted(model)} has no signed verdict ({FOLDER}/{file.name}).",
            "Name it with --verdict FILE if you have it; else nothing vouches for this model.",
        ) from None
    if len(content) > _LARGEST:
        raise VerificationFailed(f"The verdict file is broken: it has more than {_LARGEST} bytes.", _DO_NOT_LOAD)
    return content


def _check_summary(summary: Summary, expected: Expected, now: datetime) -> timedelta:
    """The verdict's age, if it is PASSED, by the gate, and as expected."""
    if summary.verifier.id != VERIFIER_ID:
        raise VerificationFailed(f"The verdict is by {quoted(summary.verifier.id)}, not by beear-gate.", _DO_NOT_LOAD)
    if summary.verification_result != "PASSED":
        raise VerificationFailed(
            "The verdict is FAILED: the gate blocked these files.",
            f"Do not load this model; {EVIDENCE} has the reasons.",
        )
    if len(summary.verified_levels) != 1 or summary.verified_levels[0] not in LEVELS.values():
        raise VerificationFailed(
            f"The verdict's level is {quoted(', '.join(summary.verified_levels))}, and beear-gate has no such level.",
            "Verify with the version of beear-gate that signed.",
        )
    age = now - summary.time_verified
    if age < -_SKEW:
        raise VerificationFailed(
            f"The verdict is dated {summary.time_verified.astimezone(UTC):%Y-%m-%d %H:%M} UTC, which is in the future.",
            "Correct this machine's clock, or ask the signer for a verdict with the right date.",
        )
    if expected.max_age is not None and age > expected.max_age:
        raise VerificationFailed(
            f"The verdict is too old: it is {age.days} days old, and at most {expected.max_age.days} are allowed.",
            "Have the model scanned again.",
        )
    if expected.policy is not None and summary.policy.digest.sha256 != expected.policy:
        raise VerificationFailed(
            f"The verdict is by another policy: {quoted(summary.policy.uri)} with digest "
            f"{summary.policy.digest.sha256}, not {expected.policy}.",
            "Have the model scanned under your policy; under one name, versions of beear-gate may hold different ones.",
        )
    if expected.source is not None and not _same_source(summary.resource_uri, expected.source):
        raise VerificationFailed(
            f"The verdict is about another model: {quoted(summary.resource_uri)}, not {quoted(expected.source)}.",
            _DO_NOT_LOAD,
        )
    return max(age, timedelta(0))


def _same_source(uri: str, source: str) -> bool:
    return source in (uri, (name := uri.removeprefix("pkg:huggingface/")), name.partition("@")[0])


def _check_evidence(summary: Summary, file: Path) -> None:
    digests = [each.digest.sha256 for each in summary.input_attestations if each.uri == EVIDENCE]
    if not digests:
        raise VerificationFailed("The verdict names no evidence.", "Ask the signer for one that does.")
    if not file.is_file():
        raise VerificationFailed(
            f"{EVIDENCE}, which the verdict rests on, is missing beside it.", "Fetch it together with the verdict."
        )
    (found,) = hash_files(file.parent, [file.name])
    if [found.sha256] != digests:
        raise VerificationFailed(
            f"{EVIDENCE} was edited: its sha256 is {found.sha256}, not {digests[0]}.", "Do not trust its figures."
        )


def _check_files(judged: Mapping[str, str], files: Iterable[FileRecord], others: Iterable[str], model: str) -> None:
    """Raise for the first difference: changed, then missing or renamed, then added."""
    found = {file.path: file.sha256 for file in files}
    extra = sorted(name for name in {*found, *others} - judged.keys() if wants_cover(name))
    problems = [
        f"{quoted(name)} is not the file that was judged: its sha256 is {found[name]}, not {judged[name]}."
        for name in sorted(judged.keys() & found.keys())
        if judged[name] != found[name]
    ]
    for name in sorted(judged.keys() - found.keys()):
        now = next((each for each in extra if found.get(each) == judged[name]), None)
        problems.append(
            f"{quoted(name)} was renamed to {quoted(now)} after it was judged." if now
            else f"{quoted(name)}, which was judged, is missing."
        )  # fmt: skip
    problems += [f"{quoted(name)} was not judged, and a loader might read it." for name in extra]
    if problems:
        more = f" ({len(problems) - 1} more.)" if len(problems) > 1 else ""
        raise VerificationFailed(f"{quoted(model)}: {problems[0]}{more}", _DO_NOT_LOAD)


def _papers(folder: Path) -> list[str]:
    """What lies in `.beear-gate/`, which `list_folder` does not enter."""
    return [
        printable((Path(parent) / name).relative_to(folder).as_posix())
        for parent, _, names in os.walk(folder / FOLDER)
        for name in names
    ]
