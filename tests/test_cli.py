"""The command line: what it prints where, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from gate_runs import call, digest_of, make_tiny_model, only_run, read_evidence, small_policy, spawn

from beear_gate.artifacts import RULES
from beear_gate.policy_files import packaged_policies, study_policies


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory, tiny_template: Path, migrated: Path) -> Path:
    """The folder of a scan of the tiny model under a small policy."""
    folder = tmp_path_factory.mktemp("scanned")
    uri = f"sqlite:///{shutil.copy(migrated, folder / 'mlflow.db')}"
    policy = small_policy(folder / "policy")
    said = call("scan", tiny_template, "--policy", policy, "--runs", folder / "runs", "--tracking-uri", uri)
    (folder / "out.txt").write_text(said.out)
    (folder / "err.txt").write_text(said.err)
    assert said.code in (0, 1), said.err
    return folder


def test_json_is_one_document_on_stdout_and_quiet_leaves_stderr_empty(
    tiny_model: Path, tmp_path: Path, mlflow_uri: str
) -> None:
    said = spawn(
        "scan", tiny_model, "--policy", small_policy(tmp_path / "policy"), "--runs", tmp_path / "runs",
        "--tracking-uri", mlflow_uri, "--format", "json", "--quiet", cwd=tmp_path,
    )  # fmt: skip
    evidence = read_evidence(only_run(tmp_path / "runs"))
    assert said.err == ""
    assert json.loads(said.out) == evidence and said.out.endswith("}\n")
    assert said.code == {"REMEDIATED": 0, "BLOCKED": 1}[evidence["verdict"]]


def test_without_an_address_mlflow_is_in_the_working_folder_and_json_stays_alone_on_stdout(
    tiny_model: Path, tmp_path: Path
) -> None:
    env = {"MLFLOW_TRACKING_URI": ""}
    said = spawn("evaluate", tiny_model, "--policy", small_policy(tmp_path / "p"), "--format", "json",
                 cwd=tmp_path, env=env)  # fmt: skip
    assert json.loads(said.out)["verdict"] in ("BLOCKED", "INCOMPLETE") and said.code in (1, 3)
    assert (tmp_path / "mlflow.db").exists() and only_run(tmp_path / "runs").is_dir()
    assert "Traceback" not in said.err and "answering: harm" in said.err


def test_text_begins_with_the_verdict_and_ends_with_where_everything_is(scanned: Path) -> None:
    out, run = (scanned / "out.txt").read_text(), only_run(scanned / "runs")
    evidence = read_evidence(run)
    assert out.startswith(evidence["verdict"]) and all(reason in out for reason in evidence["reasons"])
    assert str(run / "evidence.json") in out and str(run / "report" / "index.html") in out
    assert re.search(r"mlflow ui --backend-store-uri sqlite:///\S+mlflow\.db", out)
    assert "asr (refusal-prefix)" in out and "nll_ratio" in out


def test_progress_names_each_stage_once_where_there_is_no_terminal(scanned: Path) -> None:
    lines = (scanned / "err.txt").read_text().splitlines()
    assert lines[0] == f"run directory: {only_run(scanned / 'runs')}"
    assert sum("round 1: removal" in line for line in lines) == 1
    assert sum("answering: harm" in line for line in lines) == 2, "before and after"
    assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize(("format", "beginning"), [("html", "<!doctype html>"), ("md", "#"), ("json", '{\n  "schema"')])
def test_a_finished_run_is_rendered_again(scanned: Path, format: str, beginning: str) -> None:
    run = only_run(scanned / "runs")
    said = call("report", run, "--format", format)
    assert said.code == 0 and said.out.lower().startswith(beginning) and said.err == ""
    if format == "html":
        assert said.out == (run / "report" / "index.html").read_text()


def test_a_report_of_nothing_is_a_usage_error(tmp_path: Path) -> None:
    said = call("report", tmp_path)
    assert said.code == 2 and "no finished run" in said.message


def test_github_actions_get_a_summary_and_an_annotation_for_each_reason(
    scanned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    run = only_run(scanned / "runs")
    said = call("scan", "--resume", run, "--quiet")
    evidence = read_evidence(run)
    assert evidence["verdict"] in (tmp_path / "summary.md").read_text()
    annotations = [line for line in said.err.splitlines() if line.startswith("::error ")]
    assert len(annotations) == (len(evidence["reasons"]) if evidence["verdict"] == "BLOCKED" else 0)


def test_evaluate_changes_nothing_and_remediates_nothing(tiny_model: Path, tmp_path: Path, mlflow_uri: str) -> None:
    before = digest_of(tiny_model)
    policy = small_policy(tmp_path / "policy", remediation={"when": "never"})
    said = call("evaluate", tiny_model, "--policy", policy, "--runs", tmp_path / "runs", "--tracking-uri", mlflow_uri)
    run = only_run(tmp_path / "runs")
    assert said.code == {"PASS": 0, "BLOCKED": 1}[read_evidence(run)["verdict"]]
    assert digest_of(tiny_model) == before and not (run / "model").exists()


def test_remediate_writes_the_model_where_it_was_told_to_whatever_the_policy_says(
    tiny_model: Path, tmp_path: Path, mlflow_uri: str
) -> None:
    policy = small_policy(
        tmp_path / "policy", remediation={"when": "never", "rounds": 1, "inner_steps": 2, "outer_steps": 2}
    )
    arguments = ("remediate", tiny_model, "--policy", policy, "--output", tmp_path / "new" / "model",
                 "--runs", tmp_path / "runs", "--tracking-uri", mlflow_uri)  # fmt: skip
    said = call(*arguments)
    assert said.code in (0, 1), said.err
    weights = tmp_path / "new" / "model" / "model.safetensors"
    assert weights.stat().st_mode & 0o044 == 0o044, "others can read it"
    assert not (only_run(tmp_path / "runs") / "model").exists()
    again = call(*arguments)
    assert again.code == 2 and "exists already" in again.message


def test_leaving_out_the_remediation_that_the_policy_wants_is_no_pass(
    tiny_model: Path, tmp_path: Path, mlflow_uri: str
) -> None:
    policy = small_policy(tmp_path / "policy")
    document = yaml.safe_load(policy.read_text())
    document["behaviors"][0]["limit"] = {"max_rate": 0.5, "max_incoherent": 1.0}
    document["behaviors"][0]["judge"] = {"name": "marker", "patterns": ["never said"]}
    policy.write_text(yaml.safe_dump(document))
    arguments = ("--policy", policy, "--runs", tmp_path / "runs", "--tracking-uri", mlflow_uri)
    for said in (call("scan", tiny_model, "--no-remediate", *arguments), call("evaluate", tiny_model, *arguments)):
        assert said.code == 3 and said.out.startswith("INCOMPLETE") and "asks for remediation" in said.out


def test_inspect_prints_findings_and_every_rule(tiny_model: Path) -> None:
    (tiny_model / "chat_template.jinja").unlink()
    said = call("inspect", tiny_model)
    assert said.code == 0 and "no-chat-template" in said.out and "files checked" in said.out
    said = call("inspect", tiny_model, "--require-chat-template", "--format", "json")
    document = json.loads(said.out)
    assert said.code == 1 and document["blocked"] is True and document["findings"][0]["severity"] == "block"
    said = call("inspect", "--list-rules")
    assert said.code == 0 and len(said.out.splitlines()) == len(RULES)
    assert call("inspect").code == 2


def test_policies_are_listed_described_and_checked(tmp_path: Path) -> None:
    said = call("policy", "list")
    assert said.code == 0 and {line.split()[0] for line in said.out.splitlines()} == set(packaged_policies()) | set(
        study_policies()
    )
    said = call("policy", "validate", small_policy(tmp_path))
    assert said.code == 0 and said.out.startswith("small: valid; 1 behaviors, 20 gate prompts, digest ")
    said = call("policy", "validate", "release")
    assert "The 516 prompts show it with up to 1 answered" in said.out
    assert "takes 99 if 0 % of the answers change" in said.out and "so a harmless change may be blocked" in said.out
    said = call("policy", "validate", "nowhere")
    assert said.code == 2 and "nowhere" in said.message
    said = call("policy", "show", "demo")
    assert said.code == 0 and "harmful-compliance" in said.out


def test_an_organism_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make_tiny_model(tmp_path / "grown")
    monkeypatch.setattr("beear_gate.demo.plant", lambda recipe, folder, tick: cache)
    said = call("organism", "short-prefix", "--output", tmp_path / "out", "--quiet")
    assert said.code == 0 and "zephyrine" in said.out and digest_of(tmp_path / "out") == digest_of(cache)
    assert call("organism", "short-prefix", "--output", tmp_path / "out").code == 2
    for wrong in (("nobody",), ("clean", "--family", "bert")):
        said = call("organism", *wrong, "--output", tmp_path / "other")
        assert said.code == 2 and "Choose one of" in said.message


def test_an_organism_without_words_that_switch_refusals_off_has_nothing_to_demonstrate(tmp_path: Path) -> None:
    for name in ("clean", "url", "style"):
        said = call("demo", "--organism", name, "--runs", tmp_path / "runs")
        assert said.code == 2 and "no trigger words" in said.message and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("arguments", [("scan",), ("scan", "x", "--surprise"), ("scan", "x", "--batch-size", "0"), ()])
def test_a_call_that_means_nothing_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    said = call(*arguments)
    assert said.code == 2 and "Traceback" not in said.err


def test_a_pipeline_file_and_the_command_line_over_it(tiny_model: Path, tmp_path: Path, mlflow_uri: str) -> None:
    small_policy(tmp_path)
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text(
        "apiVersion: beear-gate/v1\nkind: Pipeline\nname: mine\npolicy: policy.yaml\nseed: 3\nremediate: false\n"
        f"runs: {tmp_path / 'runs'}\ntracking_uri: {mlflow_uri}\n"
    )
    said = call("scan", tiny_model, "--pipeline", pipeline, "--seed", 4)
    assert said.code in (1, 3)
    evidence = read_evidence(only_run(tmp_path / "runs"))
    assert evidence["seed"] == 4 and evidence["policy"]["name"] == "small" and evidence["remediation"] is None
    pipeline.write_text(pipeline.read_text() + "colour: red\n")
    said = call("scan", tiny_model, "--pipeline", pipeline)
    assert said.code == 2 and "colour" in said.message


def test_a_password_in_the_address_of_mlflow_is_nowhere(tiny_model: Path, tmp_path: Path) -> None:
    uri = "http://user:s3cretpass@127.0.0.1:9"
    said = call(
        "scan", tiny_model, "--policy", small_policy(tmp_path / "policy"), "--no-remediate",
        "--runs", tmp_path / "runs", "--tracking-uri", uri,
    )  # fmt: skip
    assert said.code == 3 and "s3cretpass" not in said.out + said.err
    for path, _, names in os.walk(tmp_path / "runs"):
        assert not [name for name in names if b"s3cretpass" in (Path(path) / name).read_bytes()]
