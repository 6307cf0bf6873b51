"""Keyless signatures: with a sigstore of the tests' own, and without a network, where failures are one sentence."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from attest_sample import finished_run, signed_model, write_model
from gate_runs import ROOT, Said, assert_refused, call, spawn
from sigstore_server import IDENTITY, Sigstore, running_sigstore

from beear_gate.records import Verdict

NO_NETWORK = {f"{kind}_PROXY": "http://127.0.0.1:9" for kind in ("HTTP", "HTTPS")}


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


# --- with services


@pytest.fixture
def services(alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sigstore]:
    """A CI job that may ask for an identity, and a sigstore that accepts it."""
    with running_sigstore() as services:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of the job")
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{services.url}/token")
        (tmp_path / "trust.json").write_text(services.trust_config())
        yield services


@pytest.mark.usefixtures("services")
def test_a_ci_job_signs_as_itself_and_the_verdict_is_bound_to_it(run: Path, tmp_path: Path) -> None:
    model, trust = tmp_path / "model", ("--trust-config", tmp_path / "trust.json")
    assert call("attest", run, "--keyless", *trust, "--quiet").code == 0
    shutil.copytree(run / "attestation", model / ".beear-gate")
    said = verify(model, *trust, "--source", "org/model")
    assert said.code == 0 and "PASS" in said.out, said
    other = call("verify", model, "--identity", f"{IDENTITY}x", *trust, "--quiet")
    assert_refused(other, 4, "not signed by", f"{IDENTITY}x")
    assert_refused(verify(model, *trust, "--issuer", "https://other.example"), 4, "not signed by", "other.example")
    with running_sigstore() as another:
        (tmp_path / "other.json").write_text(another.trust_config())
    assert_refused(verify(model, "--trust-config", tmp_path / "other.json"), 4, "not signed by")


@pytest.mark.usefixtures("services")
def test_what_was_changed_after_a_keyless_signature_is_refused(run: Path, tmp_path: Path) -> None:
    model, trust = tmp_path / "model", ("--trust-config", tmp_path / "trust.json")
    call("attest", run, "--keyless", *trust, "--quiet")
    shutil.copytree(run / "attestation", model / ".beear-gate")
    file = model / ".beear-gate" / "verdict.sigstore.json"
    bundle = json.loads(file.read_text())
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b"9f9f", b"8e8e")
    changed = bundle | {"dsseEnvelope": bundle["dsseEnvelope"] | {"payload": base64.b64encode(payload).decode()}}
    file.write_text(json.dumps(changed))
    assert_refused(verify(model, *trust), 4, "was changed after it was signed")
    file.write_text(json.dumps(bundle)[:-9])
    assert_refused(verify(model, *trust), 4, "no sigstore bundle")
    file.write_text(json.dumps(bundle))
    (model / "config.json").write_text("{}")
    assert_refused(verify(model, *trust), 4, "config.json", "is not the file that was judged")


@pytest.mark.usefixtures("services")
def test_outside_of_a_ci_job_there_is_no_identity(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS")
    said = call("attest", run, "--keyless", "--trust-config", tmp_path / "trust.json", "--quiet")
    assert_refused(said, 3, "no identity to sign with")


def test_services_that_went_away_are_named_without_the_token(services: Sigstore, run: Path, tmp_path: Path) -> None:
    config = services.trust_config().replace(services.url, "http://127.0.0.1:9")
    (tmp_path / "trust.json").write_text(config)
    said = call("attest", run, "--keyless", "--trust-config", tmp_path / "trust.json", "--quiet")
    assert_refused(said, 3, "sigstore could not sign the verdict")
    assert "of the job" not in said.err and not (run / "attestation").exists()


def test_what_is_no_trust_configuration_is_a_wrong_call(run: Path, tmp_path: Path) -> None:
    (tmp_path / "trust.json").write_text("{}")
    said = call("attest", run, "--keyless", "--trust-config", tmp_path / "trust.json", "--quiet")
    assert_refused(said, 2, "trust.json", "no trust configuration")
