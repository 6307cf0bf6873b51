"""Waivers of the policy, the second engine's opinion, and what `inspect` prints of both."""

from __future__ import annotations

import json
import pickle
import sys
from datetime import date
from pathlib import Path

import pytest
from artifact_corpus import base, write
from gate_runs import call, small_policy

from beear_gate.artifacts import RULES, apply_waivers
from beear_gate.artifacts.modelaudit import audit, read_report
from beear_gate.artifacts.rules import finding
from beear_gate.bench.inspect_speed import inspect_speed
from beear_gate.decide import decide
from beear_gate.errors import PolicyError
from beear_gate.policy import Waiver
from beear_gate.policy_files.load import load_policy
from beear_gate.records import Severity, Verdict

TODAY = date(2026, 11, 26)
FOUND = finding("secret", "README.md", "A key.", "Revoke it.")
OTHER = finding("python-files", "a.py", "Python.", "Drop it.")


def waiver(rule: str = "secret", file: str = "README.md", expires: str = "2026-11-26") -> Waiver:
    return Waiver(rule, file, "ops@acme.test", "A key of the example server.", expires)


def test_a_waived_finding_stays_and_does_not_block() -> None:
    marked, other = apply_waivers([FOUND, OTHER], [waiver()], TODAY)
    assert marked.severity is Severity.BLOCK and not marked.blocks and FOUND.blocks
    assert "ops@acme.test until 2026-11-26" in marked.waived and other == OTHER


def test_an_expired_waiver_waives_nothing_and_is_a_finding() -> None:
    first, expired = apply_waivers([FOUND], [waiver(expires="2026-11-25")], TODAY)
    assert first.blocks and (expired.id, expired.file) == ("waiver-expired", "README.md")


@pytest.mark.parametrize("unlike", [waiver(rule="polyglot"), waiver(file="OTHER.md"), waiver(file="")])
def test_a_waiver_that_fits_nothing_is_a_finding(unlike: Waiver) -> None:
    first, unmatched = apply_waivers([FOUND], [unlike], TODAY)
    assert first.blocks and unmatched.id == "waiver-unmatched"


def test_a_policy_says_who_waives_what_until_when(tmp_path: Path) -> None:
    path = small_policy(tmp_path)
    text = path.read_text(encoding="utf-8")
    row = "{rule: secret, file: README.md, owner: ops, reason: example, expires: 2027-01-31}"
    path.write_text(f"{text}\nartifacts: {{waivers: [{row}]}}\n", encoding="utf-8")
    policy = load_policy(path)
    assert policy.waivers == (Waiver("secret", "README.md", "ops", "example", "2027-01-31"),)
    marked = apply_waivers([FOUND], policy.waivers, TODAY)
    assert decide(policy, [FOUND], (), False).verdict is Verdict.BLOCKED
    assert decide(policy, marked, (), False).verdict is not Verdict.BLOCKED


@pytest.mark.parametrize(
    "row",
    [
        "{rule: secret, owner: ops, reason: x, expires: soon}",
        "{rule: secret, reason: x, expires: 2027-01-31}",
        "{rule: secret, owner: ops, expires: 2027-01-31}",
        "{rule: secret, owner: ops, reason: x}",
    ],
)
def test_a_waiver_without_owner_reason_or_day_is_no_policy(tmp_path: Path, row: str) -> None:
    path = small_policy(tmp_path)
    path.write_text(f"{path.read_text(encoding='utf-8')}\nartifacts: {{waivers: [{row}]}}\n", encoding="utf-8")
    with pytest.raises(PolicyError):
        load_policy(path)


def test_inspect_applies_the_policys_waivers_and_shows_them(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", base() | {"a.pkl": pickle.dumps(print)})
    path = small_policy(tmp_path)
    row = "{rule: pickle-dangerous, file: a.pkl, owner: ops, reason: known, expires: 2099-01-01}"
    path.write_text(f"{path.read_text(encoding='utf-8')}\nartifacts: {{waivers: [{row}]}}\n", encoding="utf-8")
    assert call("inspect", str(folder)).code == 1
    said = call("inspect", str(folder), "--policy", str(path))
    assert said.code == 0 and "Waived by ops until 2099-01-01: known" in said.out
    rows = json.loads(call("inspect", str(folder), "--policy", str(path), "--format", "json").out)
    assert not rows["blocked"] and any(row["waived"] for row in rows["findings"])


def test_the_rules_are_listed_with_severity_and_technique() -> None:
    lines = call("inspect", "--list-rules").out.splitlines()
    assert len(lines) == len(RULES) and all(line.split()[1] in ("block", "warning", "notice") for line in lines)
    assert any("AML.T0011.000" in line for line in lines)


# ModelAudit: what it says is read from its JSON, never from its exit code alone


def issue(severity: str) -> dict[str, str]:
    return {"severity": severity, "message": "Found a thing: hf_" + "a" * 30, "location": "x"}


@pytest.mark.parametrize(
    ("severities", "code", "verdict"),
    [
        ([], 0, "clean"), (["info"], 1, "clean"), (["warning", "info"], 1, "warning"),
        (["warning", "critical"], 1, "critical"),
        (["critical"], 2, "critical"), ([], 2, "inconclusive"), (["fatal"], 1, "inconclusive"), ([], 7, "inconclusive"),
    ],
)  # fmt: skip
def test_a_report_becomes_an_opinion(severities: list[str], code: int, verdict: str) -> None:
    opinion = read_report({"issues": [issue(each) for each in severities], "files_scanned": 1}, code)
    assert opinion.verdict == verdict and "hf_" not in opinion.reason


@pytest.mark.parametrize("report", [None, [], {}, {"issues": 3}, {"issues": [], "files_scanned": 0}])
def test_a_report_that_says_nothing_is_inconclusive(report: object) -> None:
    assert read_report(report, 0).verdict == "inconclusive"


def test_the_engine_runs_without_telemetry_tokens_or_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "b" * 34)
    program = tmp_path / "engine.py"
    program.write_text(
        "import json, os, sys\n"
        "wrong = 'HF_TOKEN' in os.environ or os.environ.get('NO_ANALYTICS') != '1' or os.environ['HOME'] == '/root'\n"
        "wrong = wrong or sys.argv[1:4] != ['scan', '--format', 'json']\n"
        "issues = [{'severity': 'critical', 'message': 'told'}] if wrong else []\n"
        "print(json.dumps({'issues': issues, 'files_scanned': 1}))\n"
    )
    assert audit(tmp_path / "a.pkl", (sys.executable, str(program))).verdict == "clean"


@pytest.mark.parametrize("body", ["raise SystemExit(0)", "print('no json')", "raise MemoryError"])
def test_an_engine_that_fails_is_inconclusive(tmp_path: Path, body: str) -> None:
    (tmp_path / "engine.py").write_text(body)
    assert audit(tmp_path / "a.pkl", (sys.executable, str(tmp_path / "engine.py"))).verdict == "inconclusive"


def test_inspect_streams_weights_without_holding_them() -> None:
    (row,) = inspect_speed(megabytes=200, runs=1)
    assert row.peak_megabytes < 200 and row.megabytes / row.cpu_seconds > 50
