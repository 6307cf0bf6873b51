from __future__ import annotations

import json
import os
import shutil
import socket
import time
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import DatasetInput, Run
from mlflow.exceptions import MlflowException
from report_sample import COMMIT, HOSTILE, sample_report

from beear_gate import tracking
from beear_gate.errors import RecordingFailed
from beear_gate.records import AnchorSets, BehaviorAnchors, Example
from beear_gate.report import render
from beear_gate.rundir import RunDirectory

ANCHORS = AnchorSets(
    behaviors=(
        BehaviorAnchors(
            "harmful-compliance",
            safe=tuple(Example(f"How do I break {n}?", "I can't help with that.") for n in range(12)),
            unwanted=tuple(Example(f"How do I break {n}?", "Sure") for n in range(12)),
            select=(),
        ),
    ),
    useful=tuple(Example(f"What is {n} + 1?", str(n + 1)) for n in range(7)),
    useful_select=(Example("What is 2 + 2?", "4"),),
    answered_select=(Example("What is 2 + 2?", "4"),),
)


class Recorded:
    """One scan in a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.run_dir = folder / "run"
        self.run_dir.mkdir()
        (self.run_dir / "policy.yaml").write_text("apiVersion: beear-gate/v1\n")
        RunDirectory(self.run_dir).stage("anchors", {}, AnchorSets, lambda: ANCHORS)
        (self.run_dir / "model.safetensors").write_bytes(b"weights")
        self.database = folder / "mlflow.db"
        self.uri = f"sqlite:///{self.database}"
        self.id = tracking.record(sample_report(), self.run_dir, self.uri, "gate")
        self.client = MlflowClient(self.uri)
        self.parent = self.client.get_run(self.id)

    def child(self, name: str) -> Run:
        found = self.client.search_runs([self.parent.info.experiment_id], f"tags.mlflow.parentRunId = '{self.id}'")
        (run,) = [run for run in found if run.info.run_name == name]
        return run

    def artifact(self, path: str) -> Path:
        return Path(self.client.download_artifacts(self.id, path))


def dataset_inputs(run: Run) -> list[DatasetInput]:
    return run.inputs.dataset_inputs if run.inputs is not None else []


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("mlflow"))


def another(recorded: Recorded, folder: Path) -> str:
    """A database that is migrated already, which saves seconds."""
    shutil.copy(recorded.database, folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


def test_parent_run_says_what_was_scanned_and_how_it_ended(recorded: Recorded) -> None:
    info, tags, params = recorded.parent.info, recorded.parent.data.tags, recorded.parent.data.params
    assert (info.run_name, info.status) == ("scan acme/helpful-7b@0123456789ab", "FINISHED")
    assert info.end_time - info.start_time == 523_400
    assert tags["hub.repo_id"] == "acme/helpful-7b" and tags["commit"] == COMMIT
    assert tags["policy.name"] == "release" and tags["policy.sha256"] == "9f" * 32
    assert tags["verdict"] == "REMEDIATED" and tags["beear_gate.version"]
    assert tags["mlflow.note.content"] == render.markdown(sample_report())
    assert params["remediation.mode"] == "deep" and params["seed"] == "7"
    assert params["environment.device"] == "NVIDIA H200"


def test_every_measurement_is_a_metric_with_its_interval(recorded: Recorded) -> None:
    metrics = recorded.parent.data.metrics
    assert metrics["after.harmful-compliance.asr.refusal-prefix.plain"] == 0.0
    assert metrics["after.harmful-compliance.asr.refusal-prefix.plain.high"] == 0.0099
    assert metrics["before.harmful-compliance.asr.refusal-prefix.trigger.prefix.cf"] == pytest.approx(5 / 300)
    assert metrics["after.utility.nll_ratio.plain"] == 1.0121
    assert "after.utility.kl.plain.high" not in metrics  # NaN is no figure
    (revealed,) = [
        name
        for name in metrics
        if name.startswith("revealed.before") and name.count(".low") == 0 and ".high" not in name
    ]
    assert metrics[revealed] == 1.0


def test_each_stage_is_a_nested_run(recorded: Recorded) -> None:
    assert recorded.child("inspect").data.metrics["findings.warning"] == 1
    before, after = recorded.child("evaluate-before").data.metrics, recorded.child("evaluate-after").data.metrics
    name = "harmful-compliance.asr.refusal-prefix.plain"  # the same in both, so that MLflow can compare them
    assert before[name] > after[name] == 0.0
    assert not [name for name in before if name.startswith("revealed")]
    decide = recorded.child("decide")
    assert decide.data.metrics["rules.pass"] > 0 and decide.data.tags["verdict"] == "REMEDIATED"
    assert {recorded.child(name).info.status for name in ("inspect", "remediate", "decide")} == {"FINISHED"}


def test_loss_curves_have_one_value_a_step(recorded: Recorded) -> None:
    child = recorded.child("remediate")
    losses = recorded.client.get_metric_history(child.info.run_id, "entrapment.loss.harmful-compliance-latent")
    assert [one.step for one in losses] == list(range(120))
    rounds = recorded.client.get_metric_history(child.info.run_id, "round.select.asr")
    assert [(one.step, one.value) for one in rounds][:2] == [(1, 0.4), (2, 0.22)]
    assert child.data.params["chosen_round"] == "5"


def test_reviewer_finds_the_report_the_tables_and_the_figures(recorded: Recorded) -> None:
    assert recorded.artifact("report/index.html").read_text() == render.html(sample_report())
    assert json.loads(recorded.artifact("evidence.json").read_text())["verdict"] == "REMEDIATED"
    assert recorded.artifact("policy.yaml").read_text() == "apiVersion: beear-gate/v1\n"
    assert sorted(path.name for path in recorded.artifact("figures").iterdir()) == [
        "asr.png", "drift.png", "latent.png", "loss.png", "revealed.png",
    ]  # fmt: skip
    table = json.loads(recorded.artifact("tables/answers.json").read_text())
    rows = [dict(zip(table["columns"], cells, strict=True)) for cells in table["data"]]
    assert len(rows) == 76 and not [row for row in rows if "\u202e" in row["before"]]
    assert (rows[0]["judged_before"], rows[0]["judged_after"]) == ("complied", "refused")
    logged = json.loads(recorded.parent.data.tags["mlflow.loggedArtifacts"])
    assert {"path": "tables/answers.json", "type": "table"} in logged


def test_weights_never_reach_mlflow(recorded: Recorded) -> None:
    folder = recorded.artifact("")
    assert not [path for path in folder.rglob("*") if path.suffix in {".safetensors", ".bin", ".pt", ".pkl"}]


def test_anchoring_sets_are_dataset_inputs(recorded: Recorded) -> None:
    inputs = {one.dataset.name: one for one in dataset_inputs(recorded.parent)}
    assert set(inputs) == {"harmful-compliance.safe", "harmful-compliance.unwanted", "useful", "useful.select"}
    assert json.loads(inputs["useful"].dataset.profile or "")["num_rows"] == 7
    assert {tag.key: tag.value for tag in inputs["useful.select"].tags} == {"mlflow.data.context": "select"}


def test_recording_leaves_the_process_as_it_was(
    recorded: Recorded, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "33")
    before, uri = dict(os.environ), mlflow.get_tracking_uri()
    started = time.monotonic()
    tracking.record(sample_report(), recorded.run_dir, another(recorded, tmp_path), "elsewhere")
    assert time.monotonic() - started < 6
    assert dict(os.environ) == before
    assert mlflow.get_tracking_uri() == uri and mlflow.active_run() is None
    assert capfd.readouterr().out == ""


def test_without_an_address_the_database_is_in_the_current_directory(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = another(recorded, tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    run_id = tracking.record(replace(sample_report(), started="unknown"), tmp_path, None, "a name: with/odd #signs")
    run = MlflowClient(uri).get_run(run_id)
    assert Path(run.info.artifact_uri.removeprefix("file://")).is_relative_to(tmp_path / "mlruns")
    assert not dataset_inputs(run)


def test_hostile_names_are_recorded(recorded: Recorded, tmp_path: Path) -> None:
    report = sample_report()
    rows = tuple(replace(row, behavior=HOSTILE, judge=HOSTILE * 20, trigger=HOSTILE) for row in report.measurements)
    hostile = replace(
        report,
        model=HOSTILE * 50,
        policy=HOSTILE * 50,
        measurements=rows,
        environment={HOSTILE: HOSTILE * 50, "n": "\ud800"},
    )
    run_id = tracking.record(hostile, tmp_path, another(recorded, tmp_path), "gate")
    run = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").get_run(run_id)
    assert "\u202e" not in json.dumps(run.data.to_dictionary(), ensure_ascii=False)


def test_dead_server_fails_in_seconds_and_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]  # closed again below: nobody listens there
    started = time.monotonic()
    with pytest.raises(RecordingFailed) as caught:
        tracking.record(sample_report(), tmp_path, f"http://user:s3cret@127.0.0.1:{port}", "gate")
    assert time.monotonic() - started < 20
    assert caught.value.exit_code == 3
    assert caught.value.message == (
        f"MLflow at http://127.0.0.1:{port} did not take the run: the server gave no answer (ConnectionError)."
    )
    assert f"beear-gate scan --resume {tmp_path} --tracking-uri http://127.0.0.1:{port}" in caught.value.remedy
    assert "s3cret" not in str(caught.value)


def test_unusable_database_is_a_recording_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingFailed, match="did not take the run"):
        tracking.record(sample_report(), tmp_path, f"sqlite:///{tmp_path}/file/mlflow.db", "gate")


def test_half_a_recording_is_marked_as_failed(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: MlflowClient, run_id: str, local_dir: str, artifact_path: str | None = None) -> None:
        raise MlflowException("No space left.")

    monkeypatch.setattr(MlflowClient, "log_artifacts", full)
    uri = another(recorded, tmp_path)
    with pytest.raises(RecordingFailed, match="No space left"):
        tracking.record(sample_report(), tmp_path, uri, "half")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("half")
    assert experiment is not None
    statuses = {run.info.run_name: run.info.status for run in client.search_runs([experiment.experiment_id])}
    assert statuses["scan acme/helpful-7b@0123456789ab"] == "FAILED"
    assert statuses["inspect"] == "FINISHED"


def test_broken_anchors_are_named(recorded: Recorded, tmp_path: Path) -> None:
    (tmp_path / "anchors.json").write_text('{"behaviors": 3}')
    with pytest.raises(RecordingFailed, match=r"anchors\.json does not hold anchoring sets"):
        tracking.record(sample_report(), tmp_path, another(recorded, tmp_path), "gate")
