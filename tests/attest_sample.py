"""A small model folder, the run directory of its scan as the gate leaves it, and keys: tests of signed verdicts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from gate_runs import Said, call
from report_sample import sample_report
from safetensors.numpy import save_file

from beear_gate import __version__
from beear_gate.keys import generate_key, load_signer, sign
from beear_gate.manifest import hash_folder, manifest_digest
from beear_gate.records import Decision, GateReport, ModelSnapshot, Remediation, Verdict
from beear_gate.report.evidence import as_json
from beear_gate.rundir import RunDirectory

POLICY_DIGEST = "9f" * 32
COMMIT = "c0" * 20


def write_model(folder: Path, scale: float = 1.0) -> Path:
    """A model folder with weights in two shards, and a card."""
    folder.mkdir(parents=True)
    for number in (1, 2):
        tensors = {f"layer.{number}": np.full((8, 8), scale * number, dtype=np.float32)}
        save_file(tensors, folder / f"model-0000{number}-of-00002.safetensors")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "README.md").write_text("# A model\n")
    return folder


def snapshot_of(
    folder: Path, model: str = "org/model", commit: str = COMMIT, ignored: tuple[str, ...] = ()
) -> ModelSnapshot:
    return ModelSnapshot(model, commit, folder.resolve(), hash_folder(folder), ignored)


def finished_run(
    runs: Path, model: Path, verdict: Verdict, remediated: Path | None = None, days: float = 0, **changes: Any
) -> Path:
    """The run directory of a scan that ended `days` ago: what was pulled, the report and the evidence."""
    run = RunDirectory.create(runs, "model")
    snapshot = snapshot_of(model, **changes)
    remediation = _remediation(run.path, remediated) if remediated else None
    report = replace(
        sample_report(),
        model=snapshot.model,
        commit=snapshot.commit,
        policy_digest=POLICY_DIGEST,
        started=(datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds"),
        decision=Decision(verdict, ("A reason.",)),
        files=remediation.snapshot.files if remediation else snapshot.files,
        remediation=remediation,
        environment={"beear-gate": __version__},
    )
    run.stage("pull", {}, ModelSnapshot, lambda: snapshot)
    run.write("evidence.json", as_json(run.stage("report", {}, GateReport, lambda: report)))
    return run.path


def _remediation(run: Path, remediated: Path) -> Remediation:
    folder = run / "model"
    shutil.copytree(remediated, folder)
    (folder / "README.md").unlink(missing_ok=True)
    files = hash_folder(folder)
    (folder / "README.md").write_text("The card, written after the verdict.")
    found = sample_report().remediation
    assert found is not None
    return replace(found, snapshot=ModelSnapshot("org/model", f"sha256:{manifest_digest(files)}", folder, files))


@dataclass(frozen=True)
class Signed:
    """A model with its signed verdict in `.beear-gate/`, and the keys."""

    model: Path
    run: Path
    key: Path
    public: Path

    @property
    def verdict(self) -> Path:
        return self.model / ".beear-gate" / "verdict.dsse.json"

    def verify(self, *arguments: object) -> Said:
        return call("verify", self.model, "--key", self.public, "--quiet", *arguments)

    def payload(self) -> dict[str, Any]:
        return statement_in(self.verdict)

    def sign_again(self, change: Callable[[dict[str, Any]], object], key: Path | None = None) -> None:
        """Change the statement, and sign it, by default with the right key."""
        statement = self.payload()
        change(statement)
        self.verdict.write_text(sign(json.dumps(statement).encode(), load_signer(key or self.key)))


def statement_in(envelope: Path) -> dict[str, Any]:
    import base64

    found: dict[str, Any] = json.loads(base64.b64decode(json.loads(envelope.read_text())["payload"]))
    return found


def signed_model(folder: Path, verdict: Verdict = Verdict.PASS, days: float = 0, remediated: bool = False) -> Signed:
    """A model that was scanned, attested through the command line, and put together as publishing does it."""
    model = write_model(folder / "model")
    copy = write_model(folder / "remediated", 0.5) if remediated else None
    run = finished_run(folder / "runs", model, verdict, copy, days)
    key = folder / "keys" / "signing"
    public, _ = generate_key(key)
    said = call("attest", run, "--key", key, "--quiet")
    assert said.code == (1 if verdict is Verdict.BLOCKED else 0), said
    shipped = run / "model" if remediated else model
    shutil.copytree(run / "attestation", shipped / ".beear-gate")
    return Signed(shipped, run, key, public)
