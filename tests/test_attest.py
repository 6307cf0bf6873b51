"""`beear-gate keygen` and `attest`: keys that stay where they are, and statements that say what a run found."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from attest_sample import COMMIT, POLICY_DIGEST, finished_run, signed_model, snapshot_of, statement_in, write_model
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from gate_runs import Said, assert_refused, call, digest_of

from beear_gate import __version__
from beear_gate.attest import resource_uri
from beear_gate.keys import PASSPHRASE
from beear_gate.records import Verdict

SECRET = "correct horse battery staple"
Sign = Callable[..., Said]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "keys" / "signing"
    assert call("keygen", "--output", path).code == 0
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


# --- keys


def test_a_private_key_is_for_its_owner_alone(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert b"BEGIN PRIVATE KEY" in key.read_bytes()
    public = load_pem_public_key(key.with_name("signing.pub").read_bytes())
    assert isinstance(public, Ed25519PublicKey)


@pytest.mark.parametrize("there", ["signing", "signing.pub"])
def test_keys_are_never_overwritten(key: Path, there: str) -> None:
    before = digest_of(key.parent)
    for name in before.keys() - {there}:
        (key.parent / name).unlink()
    assert_refused(call("keygen", "--output", key), 2, there, "never overwritten")
    assert digest_of(key.parent) == {there: before[there]}


def test_a_key_with_a_passphrase_signs_only_with_it(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSPHRASE, SECRET)
    key = tmp_path / "encrypted"
    assert call("keygen", "--output", key).code == 0
    assert b"ENCRYPTED" in key.read_bytes()
    run = finished_run(tmp_path / "runs", model, Verdict.PASS)
    assert call("attest", run, "--key", key).code == 0
    monkeypatch.setenv(PASSPHRASE, "wrong one")
    assert_refused(call("attest", run, "--key", key), 2, "does not open with the passphrase")
    monkeypatch.delenv(PASSPHRASE)
    assert_refused(call("attest", run, "--key", key), 2, "is encrypted", PASSPHRASE)


def test_an_empty_passphrase_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSPHRASE, "")
    assert_refused(call("keygen", "--output", tmp_path / "key"), 2, PASSPHRASE, "is empty")
    assert not (tmp_path / "key").exists()


def test_what_is_no_private_key_is_named(key: Path, tmp_path: Path, model: Path) -> None:
    run = finished_run(tmp_path / "runs", model, Verdict.PASS)
    assert_refused(call("attest", run, "--key", key.with_name("signing.pub")), 2, "signing.pub", "no private key")
    assert_refused(call("attest", run, "--key", tmp_path / "none"), 2, "cannot be read")
    assert_refused(call("attest", run), 2, "either --key FILE or --keyless")
    assert_refused(call("attest", run, "--key", key, "--keyless"), 2, "either --key FILE or --keyless")


def test_a_key_of_ones_own_signs_too(tmp_path: Path, model: Path) -> None:
    own = ec.generate_private_key(ec.SECP256R1())
    encoding, spki = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    private = own.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "own.pem").write_bytes(private)
    (tmp_path / "own.pub").write_bytes(own.public_key().public_bytes(encoding, spki))
    run = finished_run(tmp_path / "runs", model, Verdict.PASS)
    assert call("attest", run, "--key", tmp_path / "own.pem", "-q").code == 0
    shutil.copytree(run / "attestation", model / ".beear-gate")
    assert call("verify", model, "--key", tmp_path / "own.pub", "-q").code == 0


def test_neither_key_nor_passphrase_reaches_a_file_or_a_message(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSPHRASE, SECRET)
    key = tmp_path / "keys" / "signing"
    said = [call("keygen", "--output", key)]
    run = finished_run(tmp_path / "runs", model, Verdict.PASS)
    said.append(call("attest", run, "--key", key))
    shutil.copytree(run / "attestation", model / ".beear-gate")
    said.append(call("verify", model, "--key", f"{key}.pub"))
    said.append(call("attest", run, "--key", tmp_path / SECRET))  # even where a user mistakes one for the other
    assert [each.code for each in said] == [0, 0, 0, 2]
    private = key.read_bytes().splitlines()[1]
    wrote = b"".join((*digest_of(run).values(), *digest_of(model).values()))
    shown = "".join(each.out + each.err for each in said).encode()
    for secret in (SECRET.encode(), private):
        assert secret not in wrote + shown


# --- statements


def test_a_statement_names_every_file_but_the_card(key: Path, tmp_path: Path, model: Path) -> None:
    run = finished_run(tmp_path / "runs", model, Verdict.PASS, days=9)
    said = call("attest", run, "--key", key)
    assert said.code == 0 and "PASS, 5 files" in said.out
    statement = statement_in(run / "attestation" / "verdict.dsse.json")
    files = {name: hashlib.sha256(data).hexdigest() for name, data in digest_of(model).items() if name != "README.md"}
    assert {each["name"]: each["digest"]["sha256"] for each in statement["subject"]} == files
    summary = statement["predicate"]
    evidence = (run / "evidence.json").read_bytes()
    assert (run / "attestation" / "evidence.json").read_bytes() == evidence
    assert summary["inputAttestations"] == [
        {"uri": "evidence.json", "digest": {"sha256": hashlib.sha256(evidence).hexdigest()}}
    ]
    assert summary["policy"] == {"uri": "beear-gate:policy/release", "digest": {"sha256": POLICY_DIGEST}}
    assert summary["verifier"] == {"id": "pkg:pypi/beear-gate", "version": {"beear-gate": __version__}}
    assert (summary["verificationResult"], summary["verifiedLevels"]) == ("PASSED", ["BEEAR_GATE_PASS"])
    age = datetime.now(UTC) - datetime.fromisoformat(summary["timeVerified"])
    assert age.days == 9, "the time of the scan, not of the signature"


def test_any_dsse_tool_can_check_the_signature(key: Path, tmp_path: Path, model: Path) -> None:
    """By the letter of the DSSE specification, with nothing of securesystemslib."""
    run = finished_run(tmp_path / "runs", model, Verdict.PASS)
    call("attest", run, "--key", key, "-q")
    envelope = json.loads((run / "attestation" / "verdict.dsse.json").read_text())
    kind, payload = envelope["payloadType"].encode(), base64.b64decode(envelope["payload"])
    public = load_pem_public_key(key.with_name("signing.pub").read_bytes())
    assert isinstance(public, Ed25519PublicKey) and kind == b"application/vnd.in-toto+json"
    (signature,) = envelope["signatures"]
    public.verify(base64.b64decode(signature["sig"]), b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))


def test_of_a_remediated_run_the_copy_is_attested(tmp_path: Path) -> None:
    signed = signed_model(tmp_path, Verdict.REMEDIATED, remediated=True)
    statement = signed.payload()
    weights = hashlib.sha256((signed.model / "model-00001-of-00002.safetensors").read_bytes()).hexdigest()
    assert weights in {each["digest"]["sha256"] for each in statement["subject"]}
    assert "README.md" not in {each["name"] for each in statement["subject"]}
    assert statement["predicate"]["verifiedLevels"] == ["BEEAR_GATE_REMEDIATED"]
    assert statement["predicate"]["resourceUri"] == f"pkg:huggingface/org/model@{COMMIT}"


def test_a_run_directory_may_be_moved_before_it_is_attested(key: Path, tmp_path: Path, model: Path) -> None:
    run = finished_run(tmp_path / "runs", model, Verdict.REMEDIATED, write_model(tmp_path / "copy", 0.5))
    moved = run.rename(tmp_path / "elsewhere")
    assert call("attest", moved, "--key", key, "-q").code == 0


def test_a_blocked_run_yields_a_failed_statement_and_exits_as_a_scan_does(
    key: Path, tmp_path: Path, model: Path
) -> None:
    run = finished_run(tmp_path / "runs", model, Verdict.BLOCKED)
    said = call("attest", run, "--key", key, "-q")
    assert said.code == 1 and "BLOCKED" in said.out
    summary = statement_in(run / "attestation" / "verdict.dsse.json")["predicate"]
    assert (summary["verificationResult"], summary["verifiedLevels"]) == ("FAILED", ["FAILED"])


def test_an_incomplete_run_has_nothing_to_attest(key: Path, tmp_path: Path, model: Path) -> None:
    run = finished_run(tmp_path / "runs", model, Verdict.INCOMPLETE)
    assert_refused(call("attest", run, "--key", key, "-q"), 3, "INCOMPLETE", "nothing to attest")
    assert not (run / "attestation").exists()


@pytest.mark.parametrize("file", ["model-00002-of-00002.safetensors", "config.json", "extra.json"])
def test_a_model_that_changed_after_its_verdict_is_not_signed(
    key: Path, tmp_path: Path, model: Path, file: str
) -> None:
    run = finished_run(tmp_path / "runs", model, Verdict.PASS)
    (model / file).write_bytes(b"changed")
    assert_refused(call("attest", run, "--key", key, "-q"), 3, file, "nothing was signed")
    assert not (run / "attestation").exists()


def test_a_model_that_is_gone_is_not_signed(key: Path, tmp_path: Path, model: Path) -> None:
    run = finished_run(tmp_path / "runs", model, Verdict.PASS, commit="sha256:" + "0" * 64)
    shutil.rmtree(model)
    assert_refused(call("attest", run, "--key", key, "-q"), 3, "no longer in", str(model))


@pytest.mark.parametrize("change", ["edited", "removed"])
def test_evidence_that_is_not_the_run_s_is_not_signed(key: Path, tmp_path: Path, model: Path, change: str) -> None:
    run = finished_run(tmp_path / "runs", model, Verdict.PASS)
    evidence = run / "evidence.json"
    evidence.write_text(evidence.read_text().replace("PASS", "REMEDIATED")) if change == "edited" else evidence.unlink()
    assert_refused(call("attest", run, "--key", key, "-q"), 3, "evidence.json", "nothing was signed")


def test_a_folder_without_a_run_is_a_wrong_call(key: Path, tmp_path: Path) -> None:
    assert_refused(call("attest", tmp_path, "--key", key, "-q"), 2, "no finished run")


def test_files_that_the_gate_never_opened_are_told(key: Path, tmp_path: Path, model: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (model / "figure.png").write_bytes(b"\x89PNG")
    run = finished_run(tmp_path / "runs", model, Verdict.PASS, ignored=("pytorch_model.bin", "figure.png"))
    said = call("attest", run, "--key", key, "-q")
    assert said.code == 0 and "pytorch_model.bin" in said.err and "figure.png" not in said.err


def test_a_model_has_a_package_url(model: Path) -> None:
    snapshot = snapshot_of(model)
    assert resource_uri(snapshot) == f"pkg:huggingface/org/model@{COMMIT}"
    folder = replace(snapshot, model="./model", commit="sha256:" + "0" * 64, path=model.with_name("x @1"))
    assert resource_uri(folder) == "pkg:generic/x%20%401@sha256:" + "0" * 64
