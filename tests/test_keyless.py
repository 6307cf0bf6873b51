"""Keyless signatures without the services of sigstore: each failure is one sentence, with the right exit code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from attest_sample import finished_run, signed_model, write_model
from gate_runs import ROOT, Said, assert_refused, call, spawn

from beear_gate.records import Verdict

NO_NETWORK = {f"{kind}_PROXY": "http://127.0.0.1:9" for kind in ("HTTP", "HTTPS")}
IDENTITY = "https://github.com/org/repo/.github/workflows/gate.yml@refs/heads/main"


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, no cache of sigstore, no CI job."""
    for name, value in {**NO_NETWORK, "XDG_DATA_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    for name in ("GITHUB_ACTIONS", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "GITLAB_CI", "BUILDKITE", "CIRCLECI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return finished_run(tmp_path / "runs", write_model(tmp_path / "model"), Verdict.PASS)


def verify(model: Path, *arguments: object) -> Said:
    return call("verify", model, "--identity", IDENTITY, "--quiet", *arguments)


@pytest.mark.usefixtures("alone")
def test_without_a_network_nothing_is_signed(run: Path) -> None:
    said = call("attest", run, "--keyless", "--quiet")
    assert_refused(said, 3, "keys of sigstore's public services could not be fetched")
    assert not (run / "attestation").exists()


@pytest.mark.usefixtures("alone")
def test_without_a_network_nothing_is_verified(tmp_path: Path) -> None:
    model = signed_model(tmp_path / "signed").model
    (model / ".beear-gate" / "verdict.sigstore.json").write_text("{}")
    assert_refused(verify(model), 3, "keys of sigstore's public services could not be fetched")


def test_a_model_signed_with_a_key_has_no_keyless_verdict(tmp_path: Path) -> None:
    assert_refused(verify(signed_model(tmp_path).model), 4, "has no signed verdict (.beear-gate/verdict.sigstore.json)")


def test_without_sigstore_the_extra_is_named(run: Path, tmp_path: Path) -> None:
    """A package that cannot be imported stands before the real one."""
    (tmp_path / "before" / "sigstore").mkdir(parents=True)
    (tmp_path / "before" / "sigstore" / "__init__.py").write_text("raise ImportError('not installed')")
    env = {"PYTHONPATH": f"{tmp_path / 'before'}{os.pathsep}{ROOT}"}
    said = spawn("attest", run, "--keyless", "--quiet", cwd=tmp_path, env=env)
    assert_refused(said, 2, "pip install 'beear-gate[sign]'")
