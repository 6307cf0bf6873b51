"""A finished run becomes a signed statement: what was judged, under which policy, and what came of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from beear_gate.errors import IncompleteError, UsageError
from beear_gate.hub import pull
from beear_gate.manifest import quoted, verify_unchanged
from beear_gate.records import FileRecord, GateReport, ModelSnapshot, Tick, Verdict, no_tick
from beear_gate.report.evidence import as_json
from beear_gate.report.files import read
from beear_gate.rundir import RunDirectory
from beear_gate.statement import (
    CARD,
    EVIDENCE,
    LEVELS,
    VERIFIER_ID,
    DigestSet,
    Reference,
    Statement,
    Subject,
    Summary,
    Verifier,
    wants_cover,
)

FOLDER = "attestation"
"""Where in the run directory the signed statement and its evidence lie, as they are published in `.beear-gate/`."""

Sign = Callable[[bytes], str]


@dataclass(frozen=True)
class Attested:
    """What was signed, and where it lies.

    Attributes:
        uncovered: names of the model that the gate never opened, so that the statement cannot vouch for them.
    """

    file: Path
    verdict: Verdict
    files: int
    uncovered: tuple[str, ...]


def attest(run_dir: Path, file_name: str, sign: Sign, tick: Tick = no_tick) -> Attested:
    """Hash the judged model once more, and leave its signed verdict and the evidence in RUN_DIR/attestation.

    Args:
        file_name: of the signed statement.
        sign: from the statement's bytes to the signed document.

    Raises:
        UsageError: there is no finished run.
        IncompleteError: it has no verdict, or the model or the evidence is not what the run left.
    """
    report, origin = read(run_dir), _origin(run_dir)
    verdict = report.decision.verdict
    if verdict is Verdict.INCOMPLETE:
        raise IncompleteError(
            f"The run in {run_dir} is INCOMPLETE, so there is nothing to attest.",
            "See its reasons, and go on with `beear-gate scan --resume RUN_DIR`.",
        )
    model = _judged(run_dir, report, origin, tick)
    evidence = _evidence(run_dir, report)
    statement = build_statement(report, origin, model.files, evidence)
    signed = sign(statement.as_bytes())
    folder = RunDirectory(run_dir / FOLDER)
    folder.path.mkdir(exist_ok=True)
    folder.write(EVIDENCE, evidence)
    folder.write(file_name, signed)
    uncovered = tuple(name for name in model.ignored if wants_cover(name))
    return Attested(folder.path / file_name, verdict, len(statement.subject), uncovered)


def build_statement(report: GateReport, origin: ModelSnapshot, files: Iterable[FileRecord], evidence: str) -> Statement:
    """What a report says of the files that it judged, as a statement.

    Args:
        origin: the model as it was pulled.
        files: of the model that was judged: the original or the remediated copy.
        evidence: the content of `evidence.json`.
    """
    level = LEVELS.get(report.decision.verdict)
    subject = (Subject(name=file.path, digest=DigestSet(sha256=file.sha256)) for file in files if file.path != CARD)
    policy = Reference(uri=f"beear-gate:policy/{quote(report.policy)}", digest=DigestSet(sha256=report.policy_digest))
    proof = Reference(uri=EVIDENCE, digest=DigestSet(sha256=hashlib.sha256(evidence.encode()).hexdigest()))
    return Statement(
        subject=tuple(subject),
        predicate=Summary(
            verifier=Verifier(id=VERIFIER_ID, version={"beear-gate": report.environment.get("beear-gate", "")}),
            time_verified=datetime.fromisoformat(report.started).astimezone(UTC),
            resource_uri=resource_uri(origin),
            policy=policy,
            input_attestations=(proof,),
            verification_result="PASSED" if level else "FAILED",
            verified_levels=(level or "FAILED",),
        ),
    )


def resource_uri(origin: ModelSnapshot) -> str:
    """The package URL of a pulled model: `pkg:huggingface/org/name@<commit>`, or `pkg:generic/<folder>@sha256:<…>`."""
    if origin.commit.startswith("sha256:"):  # a folder
        return f"pkg:generic/{quote(origin.path.name, safe='')}@{origin.commit}"
    return f"pkg:huggingface/{quote(origin.model)}@{origin.commit}"


def _origin(run_dir: Path) -> ModelSnapshot:
    """The model as the run pulled it."""
    try:
        document = json.loads((run_dir / "pull.json").read_text(encoding="utf-8"))
        return TypeAdapter(ModelSnapshot).validate_python(document["result"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        raise UsageError(
            f"{run_dir} does not say what was scanned (pull.json).", "Give the RUN_DIR of a scan of this version."
        ) from None


def _judged(run_dir: Path, report: GateReport, origin: ModelSnapshot, tick: Tick) -> ModelSnapshot:
    """The model that the verdict is about, where it lies now, with bytes that are still those judged.

    Raises:
        IncompleteError: it is gone, or changed.
    """
    converted = report.converted.snapshot if report.converted else None
    made = report.remediation.snapshot if report.remediation else converted
    model, own = made or origin, run_dir / ("model" if report.remediation else "converted")
    if made and own.is_dir():  # the run directory may have been moved
        model = replace(model, path=own)
    if not model.path.is_dir():
        if made or origin.commit.startswith("sha256:"):
            raise IncompleteError(f"The judged model is no longer in {model.path}.", "Put it back, or scan it again.")
        model = replace(model, path=pull(origin.model, origin.commit, tick=tick).path)
    tick("hashing the model", 0, 1)
    # The card is written into the remediated folder after the evaluation, and is no part of what was evaluated.
    if changed := [name for name in verify_unchanged(model) if name != CARD]:
        raise IncompleteError(
            f"{quoted(changed[0])} in {model.path} is not what was judged, so nothing was signed.",
            "Restore the model, or scan it again.",
        )
    return model


def _evidence(run_dir: Path, report: GateReport) -> str:
    """The content of `evidence.json`, if it is still what the report says."""
    text = as_json(report)
    try:
        same = (run_dir / EVIDENCE).read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        same = False
    if not same:
        raise IncompleteError(
            f"{run_dir / EVIDENCE} is not what this version writes of the run, so nothing was signed.",
            "Write it again with `beear-gate scan --resume RUN_DIR`.",
        )
    return text
