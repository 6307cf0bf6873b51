"""progress, summary and redact: what a terminal and GitHub Actions show of a scan, and what they never show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from report_sample import HOSTILE, measurement, sample_report

from beear_gate.progress import progress
from beear_gate.records import Decision, GateReport, Verdict
from beear_gate.redact import redacted, without_credentials
from beear_gate.summary import annotate, summarize

RUN = Path("runs/one")


@pytest.fixture(autouse=True)
def _no_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def judged(verdict: Verdict, *reasons: str) -> GateReport:
    return replace(sample_report(), decision=Decision(verdict, reasons))


# --- progress


def test_without_a_terminal_each_task_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(quiet=False) as tick:
        for done in range(5):
            tick("answering: harm", done, 5)
        tick("fitting delta, round 1/9", 0, 1)
        tick("fitting delta, round 2/9", 0, 1)
    shown = capsys.readouterr()
    assert shown.err.splitlines() == ["  answering: harm", "  fitting delta, round"]
    assert shown.out == ""


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(quiet=True) as tick:
        tick("answering: harm", 1, 5)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_on_stderr_that_is_gone_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress(quiet=False) as tick:
        tick("hashing [bold]files[/bold]", 1, 2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "hashing [bold]files[/bold]" in shown.err


def test_an_error_passes_through_the_bar() -> None:
    with pytest.raises(KeyboardInterrupt), progress(quiet=False):
        raise KeyboardInterrupt


# --- summary


@pytest.mark.parametrize("verdict", list(Verdict))
def test_the_verdict_and_every_reason_come_first(verdict: Verdict) -> None:
    lines = summarize(judged(verdict, "One reason.", "Another."), RUN, None).splitlines()
    assert lines[0].startswith(f"{verdict}  ")
    assert lines[1:3] == ["  - One reason.", "  - Another."]


def test_it_says_where_evidence_report_and_figures_are() -> None:
    shown = summarize(sample_report(), RUN, None)
    assert "runs/one/evidence.json" in shown
    assert "runs/one/report/index.html" in shown
    assert "mlflow ui --backend-store-uri sqlite:///mlflow.db" in shown


def test_only_a_model_that_may_be_released_is_pointed_to() -> None:
    report = judged(Verdict.REMEDIATED, "Met.")
    assert report.remediation is not None
    folder = str(report.remediation.snapshot.path)
    assert folder in summarize(report, RUN, None)
    assert folder not in summarize(judged(Verdict.BLOCKED, "Not met."), RUN, None)


def test_a_figure_stands_in_one_line_before_and_after_with_its_limit() -> None:
    rows = (
        measurement("before", hits=30, limit=0.01, high=0.13, status="fail"),
        measurement("after", hits=0, limit=0.01, high=0.0099, status="pass"),
    )
    shown = summarize(replace(sample_report(), measurements=rows), RUN, None)
    (line,) = [line for line in shown.splitlines() if "asr (refusal-prefix)" in line]
    assert "10.0% (<13.0%)" in line and "0.0% (<1.0%)" in line and line.endswith("limit 0.01 pass")


def test_what_could_not_be_measured_is_said() -> None:
    rows = (measurement("before", limit=0.01, high=None, status="unscored"),)
    shown = summarize(replace(sample_report(), measurements=rows), RUN, None)
    assert "not measured" in shown and "limit 0.01 unscored" in shown


def test_what_was_revealed_stands_apart() -> None:
    rows = (measurement("after", hits=0), measurement("after", hits=299, revealed=True))
    before, _, after = summarize(replace(sample_report(), measurements=rows), RUN, None).partition("Revealed after")
    assert "99.7%" not in before and "99.7%" in after


def test_hostile_text_does_nothing_to_a_terminal() -> None:
    shown = summarize(replace(judged(Verdict.BLOCKED, HOSTILE), model=HOSTILE), RUN, None)
    assert shown.replace("\n", "").isprintable()


def test_the_tracking_server_is_shown_without_its_password() -> None:
    shown = summarize(sample_report(), RUN, "https://me:secret@mlflow.example")
    assert "MLflow    https://mlflow.example" in shown and "secret" not in shown


# --- GitHub Actions


def test_outside_github_actions_nothing_is_annotated(capsys: pytest.CaptureFixture[str]) -> None:
    annotate(judged(Verdict.BLOCKED, "A reason."))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("verdict", [Verdict.BLOCKED, Verdict.INCOMPLETE])
def test_each_reason_that_stops_a_release_is_one_annotation_on_stderr(
    verdict: Verdict, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    annotate(judged(verdict, "3% is above 1%.", "Two\nlines\r::warning::x"))
    shown = capsys.readouterr()
    first, second = shown.err.splitlines()
    assert first == f"::error title=beear-gate {verdict}::3%25 is above 1%25."
    assert "Two%0Alines" in second
    assert shown.out == ""


def test_a_model_that_may_be_released_is_not_annotated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    annotate(judged(Verdict.REMEDIATED, "Met."))
    assert capsys.readouterr().err == ""


def test_the_job_summary_is_added_to_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "summary.md"
    file.write_text("earlier\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    annotate(judged(Verdict.PASS, "Met."))
    text = file.read_text()
    assert text.startswith("earlier\n") and "PASS" in text


# --- secrets


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:pw@host:5000/p", "https://host:5000/p"),
        ("https://me:p@w@host", "https://host"),
        ("sqlite:////data/a@b.db", "sqlite:////data/a@b.db"),
        ("https://host/path@x", "https://host/path@x"),
        ("mlruns", "mlruns"),
    ],
)
def test_an_address_is_shown_without_user_and_password(uri: str, shown: str) -> None:
    assert without_credentials(uri) == shown


def test_a_message_has_no_hub_token() -> None:
    assert redacted("header: Bearer hf_abcdefghijklmnopqrstuv!") == "header: Bearer ***!"


@pytest.mark.parametrize("name", ["HF_TOKEN", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD"])
def test_a_message_has_none_of_the_secrets_of_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "correct horse")
    assert redacted("401 for correct horse at https://a:b@host") == "401 for *** at https://host"


def test_an_empty_secret_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    assert redacted("plain words") == "plain words"
