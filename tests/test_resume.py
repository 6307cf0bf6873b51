"""Scans that were interrupted, killed or asked for again go on where they were, and end as they would have."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from gate_runs import Said, call, decisive, finish, only_run, read_evidence, small_policy, start
from model_families import edit_json

Begin = Callable[[signal.Signals, dict[str, int]], tuple[Said, Path]]
EARLY = ("pull.json", "inspect.json", "before.json", "anchors.json")
LONG = {"rounds": 1, "inner_steps": 2, "outer_steps": 50, "max_answer_tokens": 8}
"""A remediation of some seconds, so that there is time to kill it."""


ENDLESS = LONG | {"outer_steps": 2000}
"""One that is stopped for certain before it ends, however slow the signal is."""


def stop(process: subprocess.Popen[str], when: str, how: signal.Signals) -> Said:
    """Send a signal as soon as the process says on stderr that it is doing something."""
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if when in line:
            break
    else:
        raise AssertionError(f"the scan never came to {when!r}: {seen}")
    time.sleep(0.1)
    process.send_signal(how)
    said = finish(process)
    return Said(said.code, said.out, seen + said.err)


def states(run: Path) -> dict[str, tuple[int, bytes]]:
    return {name: ((run / name).stat().st_mtime_ns, (run / name).read_bytes()) for name in EARLY}


@pytest.fixture
def stopped(tiny_model: Path, tmp_path: Path, mlflow_uri: str) -> Begin:
    """Starts a scan in a process of its own and stops it in the middle of the remediation."""

    def begin(how: signal.Signals, remediation: dict[str, int]) -> tuple[Said, Path]:
        policy = small_policy(tmp_path / "policy", remediation=remediation)
        process = start(
            "scan", tiny_model, "--policy", policy, "--runs", tmp_path / "runs",
            "--device", "cpu", "--tracking-uri", mlflow_uri, cwd=tmp_path,
        )  # fmt: skip
        said = stop(process, "round 1: removal", how)
        run = only_run(tmp_path / "runs")
        assert all((run / name).exists() for name in EARLY) and not (run / "remediation.json").exists()
        return said, run

    return begin


def test_a_killed_scan_goes_on_and_ends_as_it_would_have(
    stopped: Begin, tiny_model: Path, tmp_path: Path, mlflow_uri: str
) -> None:
    said, run = stopped(signal.SIGKILL, LONG)
    assert said.code == -signal.SIGKILL
    finished = states(run)
    resumed = call("scan", "--resume", run)
    assert states(run) == finished, "what was finished was done again"
    undisturbed = call(
        "scan", tiny_model, "--policy", tmp_path / "policy" / "policy.yaml", "--runs", tmp_path / "again",
        "--device", "cpu", "--tracking-uri", mlflow_uri,
    )  # fmt: skip
    assert resumed.code == undisturbed.code and resumed.code in (0, 1)
    assert decisive(read_evidence(run)) == decisive(read_evidence(only_run(tmp_path / "again")))


def test_an_interrupted_scan_says_how_to_go_on(
    stopped: Begin,
) -> None:
    said, run = stopped(signal.SIGINT, ENDLESS)
    assert said.code == 130 and "Traceback" not in said.err
    assert said.message.startswith("beear-gate: Interrupted.") and "--resume" in said.message
    assert str(run) in said.err and said.out == ""
    edit_json(run / "request.json", policy=str(small_policy(run.parent.parent / "shorter")))
    assert call("scan", "--resume", run, "--no-remediate").code in (1, 3)


# Runs that ended; these need no process of their own.


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, tiny_template: Path, migrated: Path) -> Path:
    folder = tmp_path_factory.mktemp("ended")
    shutil.copytree(tiny_template, folder / "model")
    shutil.copy(migrated, folder / "mlflow.db")
    policy, uri = small_policy(folder / "policy"), f"sqlite:///{folder / 'mlflow.db'}"
    said = call("scan", folder / "model", "--policy", policy, "--runs", folder / "runs", "--tracking-uri", uri)
    assert said.code in (0, 1), said.err
    return folder


@pytest.fixture
def run(ended: Path, tmp_path: Path) -> Path:
    """A finished run of the test's own; the remediated model stays where it was."""
    return shutil.copytree(only_run(ended / "runs"), tmp_path / "run")


def written(run: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in run.glob("*.json")}


def test_a_finished_run_gives_its_verdict_again_and_works_nothing_out(run: Path) -> None:
    before = written(run)
    evidence = read_evidence(run)
    again = call("scan", "--resume", run, "--format", "json", "--quiet")
    assert json.loads(again.out) == evidence
    assert again.code == {"REMEDIATED": 0, "BLOCKED": 1}[evidence["verdict"]]
    changed = {name for name, at in written(run).items() if before.get(name) != at}
    assert changed <= {"request.json", "evidence.json"}


@pytest.mark.parametrize("stage", ["after", "remediation"])
def test_a_stage_whose_result_is_gone_or_broken_is_done_again(run: Path, stage: str) -> None:
    evidence, before = read_evidence(run), written(run)
    (run / f"{stage}.json").write_text('{"inputs": ')
    again = call("scan", "--resume", run)
    assert again.code in (0, 1), again.err
    assert decisive(read_evidence(run)) == decisive(evidence)
    assert written(run)["before.json"] == before["before.json"]
    assert written(run)[f"{stage}.json"] != before[f"{stage}.json"]


def test_another_seed_does_only_what_depends_on_it_again(run: Path) -> None:
    before = written(run)
    assert call("scan", "--resume", run, "--seed", 5).code in (0, 1)
    after = written(run)
    assert {name for name in before if before[name] == after[name]} >= {"pull.json", "inspect.json", "before.json"}
    assert after["remediation.json"] != before["remediation.json"] and read_evidence(run)["seed"] == 5


def test_a_model_that_changed_since_it_was_inspected_is_not_loaded(
    run: Path, ended: Path, tmp_path: Path, tiny_template: Path
) -> None:
    weights = ended / "model" / "model.safetensors"
    (run / "before.json").unlink()
    try:
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
        said = call("scan", "--resume", run)
    finally:
        shutil.copy(tiny_template / "model.safetensors", weights)
    assert said.code == 3 and "model.safetensors" in said.message and "changed after it was inspected" in said.message


def test_a_remediated_model_that_changed_since_it_was_measured_is_not_measured_again(run: Path, ended: Path) -> None:
    weights = only_run(ended / "runs") / "model" / "model.safetensors"
    held = weights.read_bytes()
    (run / "after.json").unlink()
    try:
        weights.write_bytes(held[:-1] + b"\x7f")
        said = call("scan", "--resume", run)
    finally:
        weights.write_bytes(held)
    assert said.code == 3 and "model.safetensors" in said.message


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path: Path) -> None:
    said = call("scan", "--resume", tmp_path)
    assert said.code == 2 and "There is no run" in said.message and "RUN_DIR" in said.message


def test_a_run_of_another_model_is_not_taken_for_this_one(run: Path, tmp_path: Path) -> None:
    said = call("scan", tmp_path, "--resume", run)
    assert said.code == 2 and "holds a scan of" in said.message
