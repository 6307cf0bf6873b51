"""What a finished run would publish: the measured model, its card, and the evidence for both."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from beear_gate.errors import IncompleteError, UsageError
from beear_gate.manifest import quoted, verify_unchanged
from beear_gate.records import GateReport, ModelSnapshot, Verdict
from beear_gate.report import render
from beear_gate.report.files import TENSORS, read
from beear_gate.report.words import short

CARD = "README.md"
FOLDER = ".beear-gate"
"""Where evidence lies in a repository; loaders do not look into it."""
_ATTESTATION = "attestation"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WHY_NOT = {
    Verdict.BLOCKED: "its model may not be released",
    Verdict.INCOMPLETE: "it has no verdict",
    Verdict.PASS: "it changed nothing, and the original stands where it is already",
}


@dataclass(frozen=True)
class Content:
    """One file of a release: where its bytes are, or the bytes themselves, and what they are."""

    data: Path | bytes
    size: int
    sha256: str


@dataclass(frozen=True)
class Release:
    """Everything that goes into a repository.

    Attributes:
        report: of the run.
        contents: by path in the repository, in the order in which a plan shows them.
        signed: whether the verdict is signed.
    """

    report: GateReport
    contents: Mapping[str, Content]
    signed: bool

    @property
    def source(self) -> tuple[str, str]:
        """Repository and commit that were scanned.

        Raises:
            UsageError: it was a folder.
        """
        if not _COMMIT.fullmatch(self.report.commit):
            raise UsageError(
                f"The run is of the folder {quoted(self.report.model)}, and a folder takes no pull requests.",
                "Name a repository with --to org/name.",
            )
        return self.report.model.partition("@")[0], self.report.commit

    @property
    def title(self) -> str:
        """Of the commit or pull request; the same for the same model, so that it can be found again."""
        assert self.report.remediation is not None
        return f"BEEAR: remediated copy {short(self.report.remediation.snapshot.commit)} of {short(self.report.commit)}"

    @property
    def description(self) -> str:
        """Below the title: the summary that CI shows."""
        return render.markdown(self.report)


def read_release(run_dir: Path) -> Release:
    """What a run may publish, its model hashed once more.

    Raises:
        UsageError: there is no finished run, or its verdict is not REMEDIATED.
        IncompleteError: the model or the evidence is not what the run left.
    """
    report = read(run_dir)
    verdict = report.decision.verdict
    if verdict in _WHY_NOT or report.remediation is None:
        why = _WHY_NOT.get(verdict, "it holds no remediated model")
        raise UsageError(f"The run in {run_dir} is {verdict.value}: {why}.", "Only REMEDIATED runs are published.")
    model = _measured(run_dir, report.remediation.snapshot)
    contents = {
        file.path: Content(model / file.path, file.size, file.sha256)
        for file in report.remediation.snapshot.files
        if file.path != CARD
    }
    evidence = _evidence(run_dir, render.as_json(report).encode())
    signed = any(name.startswith("verdict.") for name in evidence)
    contents[CARD] = _content(render.card(report, signed).encode())
    contents |= {f"{FOLDER}/{name}": _content(data) for name, data in sorted(evidence.items())}
    return Release(report, contents, signed)


def _measured(run_dir: Path, snapshot: ModelSnapshot) -> Path:
    """The folder of the remediated model, every byte as it was measured."""
    folder = run_dir / "model" if (run_dir / "model").is_dir() else snapshot.path  # a run directory may be moved
    found = ModelSnapshot(snapshot.model, snapshot.commit, folder, snapshot.files)
    changed = [name for name in verify_unchanged(found) if name != CARD]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise IncompleteError(
            f"{quoted(changed[0])}{more} in {folder} is not what was measured.",
            "Scan again: only measured bytes are published.",
        )
    return folder


def _evidence(run_dir: Path, as_reported: bytes) -> dict[str, bytes]:
    """Files for `.beear-gate/`: evidence, policy, the table of tensors, and the signed verdict where there is one.

    The page of the report stays at home: it quotes gate prompts and unwanted answers.
    """
    folder = run_dir / _ATTESTATION
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
        found = {name: (folder / name).read_bytes() for name in names}
        found["policy.yaml"] = (run_dir / "policy.yaml").read_bytes()
        if (run_dir / TENSORS).is_file():
            found["tensors.json"] = (run_dir / TENSORS).read_bytes()
    except OSError as error:
        raise IncompleteError(
            f"{quoted(error.filename)} could not be read ({error.strerror}).", "Publish from a complete run directory."
        ) from error
    if found.setdefault("evidence.json", as_reported) != as_reported:
        raise IncompleteError(
            f"The evidence in {folder} is not that of this run.", "Sign the run again with `beear-gate attest`."
        )
    return found


def _content(data: bytes) -> Content:
    return Content(data, len(data), hashlib.sha256(data).hexdigest())
