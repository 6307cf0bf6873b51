"""cli: what each command asks of the gate, what --resume makes of it, and how errors end; the gate is a stub."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from policy_sample import good_policy
from report_sample import sample_report

from beear_gate import __version__, cli, gate
from beear_gate.records import Decision, GateReport, Tick, Verdict
from beear_gate.request import Request
from beear_gate.rundir import RunDirectory

Call = Callable[..., int]
TOKEN = "hf_" + "a" * 30


class Gate:
    """Stands in for run_gate: keeps what it was asked, and gives a verdict or raises."""

    def __init__(self) -> None:
        self.asked: list[tuple[Request, Path]] = []
        self.answer: Verdict | BaseException = Verdict.PASS

    def __call__(self, request: Request, run: RunDirectory, tick: Tick) -> GateReport:
        self.asked.append((request, run.path))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return replace(sample_report(), decision=Decision(self.answer, ("A reason.",)))

    @property
    def last(self) -> Request:
        return self.asked[-1][0]

    @property
    def run(self) -> Path:
        return self.asked[-1][1]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Gate:
    found = Gate()
    monkeypatch.setattr(gate, "run_gate", found)
    monkeypatch.chdir(good_policy(tmp_path))
    return found


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    def called(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["beear-gate", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)

    return called


def raising(error: BaseException) -> Callable[[], NoReturn]:
    def work() -> NoReturn:
        raise error

    return work


def test_the_version_is_printed(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == f"beear-gate {__version__}\n"


@pytest.mark.parametrize(
    ("verdict", "code"),
    [(Verdict.PASS, 0), (Verdict.REMEDIATED, 0), (Verdict.BLOCKED, 1), (Verdict.INCOMPLETE, 3)],
)
def test_a_verdict_has_its_exit_code(stub: Gate, call: Call, verdict: Verdict, code: int) -> None:
    stub.answer = verdict
    assert call("scan", "org/name", "--policy", "policy.yaml") == code


@pytest.mark.parametrize(
    ("arguments", "change"),
    [
        (("scan",), "policy"),
        (("scan", "--no-remediate"), "skip"),
        (("evaluate",), "off"),
        (("remediate", "--output", "out"), "always"),
    ],
)
def test_what_a_command_asks_is_asked_again_on_resume(
    stub: Gate, call: Call, arguments: tuple[str, ...], change: str
) -> None:
    call(*arguments, "org/name", "--policy", "policy.yaml", "--seed", 7, "--runs", "elsewhere")
    first = stub.last
    assert (first.model, first.change, first.seed) == ("org/name", change, 7)
    assert stub.run.parent == Path("elsewhere")
    call("scan", "--resume", stub.run)
    assert stub.last == first
    assert stub.asked[0][1] == stub.asked[1][1]


def test_a_demo_goes_on_with_the_organism_that_it_had(stub: Gate, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    planted: list[tuple[str, int]] = []

    def plant(name: str, seed: int, tracking_uri: str | None, tick: Tick) -> Request:
        planted.append((name, seed))
        return Request(name, stub.last.policy)

    call("scan", "org/name", "--policy", "policy.yaml")
    monkeypatch.setattr("beear_gate.demo.plant_demo", plant)
    call("demo", "--organism", "short-prefix", "--seed", 3)
    call("scan", "--resume", stub.run)
    assert planted == [("short-prefix", 3)] * 2


def test_a_resumed_run_can_be_logged_elsewhere(stub: Gate, call: Call) -> None:
    call("scan", "org/name", "--policy", "policy.yaml", "--seed", 7)
    call("scan", "--resume", stub.run, "--tracking-uri", "sqlite:///other.db")
    assert (stub.last.tracking_uri, stub.last.seed) == ("sqlite:///other.db", 7)


def test_a_pipeline_does_not_go_with_resume(stub: Gate, call: Call) -> None:
    call("scan", "org/name", "--policy", "policy.yaml")
    assert call("scan", "--resume", stub.run, "--pipeline", "audit") == 2


def test_a_call_that_fails_early_leaves_no_folder_for_the_model(stub: Gate, call: Call) -> None:
    assert call("remediate", "org/name", "--output", "out", "--policy", "no-such-policy") == 2
    assert not Path("out").exists() and not Path("runs").exists()


def test_an_output_folder_that_exists_is_never_written_to(stub: Gate, call: Call) -> None:
    Path("out").mkdir()
    assert call("remediate", "org/name", "--output", "out", "--policy", "policy.yaml") == 2
    assert stub.asked == []


# --- how errors end


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "--resume RUN_DIR"),
        (OSError(errno.ENOSPC, "No space left on device"), 3, "The disk is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 3, "The disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), 3, "/data/x: Permission denied"),
        (ValueError("odd"), 3, "Unexpected ValueError: odd"),
        (EOFError(), 3, ""),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 3, ""),
    ],
)
def test_no_error_exits_like_a_verdict(
    stub: Gate, call: Call, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, words: str
) -> None:
    stub.answer = error
    stdout, stderr = sys.stdout, sys.stderr
    try:
        assert call("scan", "org/name", "--policy", "policy.yaml", "--quiet") == code
    finally:
        sys.stdout, sys.stderr = stdout, stderr  # Typer wraps both when a pipe is closed
    assert words in capsys.readouterr().err


def test_an_error_shows_no_token_and_does_nothing_to_a_terminal(
    stub: Gate, call: Call, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct horse")
    stub.answer = ValueError(f"{TOKEN} at https://me:pw@host, correct horse \x1b[31m")
    assert call("scan", "org/name", "--policy", "policy.yaml", "--quiet") == 3
    message = capsys.readouterr().err.rstrip("\n")
    assert "*** at https://host, ***" in message
    assert message.isprintable()
