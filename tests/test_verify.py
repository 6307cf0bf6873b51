"""`beear-gate verify`: untouched models pass; every way to tamper with one ends with exit 4 and its own sentence."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attest_sample import COMMIT, POLICY_DIGEST, Signed, signed_model, statement_in, write_model
from gate_runs import Said, assert_refused, call, digest_of, small_policy, spawn
from hub_server import Hub, running_hub

from beear_gate.keys import generate_key, load_signer
from beear_gate.policy_files import load_policy
from beear_gate.records import Verdict
from beear_gate.statement import LEVELS, wants_cover

SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return signed_model(tmp_path)


# --- untouched


@pytest.mark.parametrize("remediated", [False, True])
def test_an_untouched_model_is_verified_and_left_as_it_is(tmp_path: Path, remediated: bool) -> None:
    verdict = Verdict.REMEDIATED if remediated else Verdict.PASS
    signed = signed_model(tmp_path, verdict, days=2.5, remediated=remediated)
    before = digest_of(signed.model)
    said = signed.verify("--policy", POLICY_DIGEST, "--max-age", 3, "--source", "org/model")
    assert said.code == 0 and said.err == "", said
    assert verdict in said.out and "2 days ago" in said.out and f"pkg:huggingface/org/model@{COMMIT}" in said.out
    assert POLICY_DIGEST in said.out and str(signed.model) in said.out
    assert digest_of(signed.model) == before


def test_json_is_one_document_that_names_every_file(signed: Signed) -> None:
    found = json.loads(signed.verify("--format", "json").out)
    assert found["verified"] is True and found["verdict"] == "PASS" and found["policy"]["digest"] == POLICY_DIGEST
    assert set(found["files"]) == {name for name in digest_of(signed.model) if wants_cover(name)}


def test_what_is_written_after_the_verdict_may_differ(signed: Signed) -> None:
    (signed.model / "README.md").write_text("# Another card")
    (signed.model / ".gitattributes").write_text("*.safetensors filter=lfs")
    (signed.model / "figure.png").write_bytes(b"\x89PNG")
    (signed.model / ".cache").mkdir()
    (signed.model / ".cache" / "state").write_text("of the hub's client")
    (signed.model / ".beear-gate" / "diff.json").write_text("{}")
    assert signed.verify().code == 0


def test_a_verdict_may_lie_elsewhere_with_its_evidence(signed: Signed) -> None:
    shutil.rmtree(signed.model / ".beear-gate")
    assert signed.verify("--verdict", signed.run / "attestation" / "verdict.dsse.json").code == 0


@pytest.mark.parametrize("form", ["name", "digest", "sha256:digest"])
def test_a_policy_is_compared_by_what_it_says(signed: Signed, tmp_path: Path, form: str) -> None:
    file = small_policy(tmp_path / "policy")
    digest = load_policy(file).digest
    signed.sign_again(lambda statement: statement["predicate"]["policy"].update(digest={"sha256": digest}))
    given = {"name": file, "digest": digest, "sha256:digest": f"sha256:{digest}"}[form]
    assert signed.verify("--policy", given).code == 0


# --- tampering


def flip_a_byte(signed: Signed) -> None:
    weights = bytearray((signed.model / SHARD).read_bytes())
    weights[-1] ^= 1
    (signed.model / SHARD).write_bytes(weights)


def add(name: str) -> Callable[[Signed], object]:
    def tamper(signed: Signed) -> None:
        (signed.model / name).parent.mkdir(exist_ok=True)
        (signed.model / name).write_bytes(b"anything")

    return tamper


def rename(signed: Signed) -> None:
    (signed.model / SHARD).rename(signed.model / "model.safetensors")


def remove(name: str) -> Callable[[Signed], object]:
    return lambda signed: (signed.model / name).unlink()


def lead_out(signed: Signed) -> None:
    """The same bytes, but outside of the folder, where they may change at any time."""
    moved = (signed.model / "config.json").rename(signed.model.parent / "elsewhere.json")
    (signed.model / "config.json").symlink_to(moved)


def link_a_folder(signed: Signed) -> None:
    (signed.model / "more").symlink_to(signed.model.parent)


def swap_two_files(signed: Signed) -> None:
    first, second = signed.model / "config.json", signed.model / "tokenizer.json"
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other), second.write_bytes(one)


def edit_evidence(signed: Signed) -> None:
    file = signed.verdict.with_name("evidence.json")
    file.write_text(file.read_text().replace("A reason.", "A better one."))


def truncate(signed: Signed) -> None:
    signed.verdict.write_bytes(signed.verdict.read_bytes()[:-40])


def change_envelope(change: Callable[[dict[str, Any]], object]) -> Callable[[Signed], object]:
    """Change the envelope around the statement, and sign nothing."""

    def tamper(signed: Signed) -> None:
        envelope = json.loads(signed.verdict.read_text())
        change(envelope)
        signed.verdict.write_text(json.dumps(envelope))

    return tamper


def edit_payload(envelope: dict[str, Any]) -> None:
    text = base64.b64decode(envelope["payload"]).replace(b"9f9f", b"8e8e")
    envelope["payload"] = base64.b64encode(text).decode()


def sign_with_another_key(signed: Signed) -> None:
    other = signed.key.with_name("attacker")
    generate_key(other)
    signed.sign_again(lambda statement: None, other)


def claim_the_key(signed: Signed) -> None:
    """Signed by another key that calls itself by the id of the right one."""
    own = json.loads(signed.verdict.read_text())["signatures"][0]["keyid"]
    sign_with_another_key(signed)
    change_envelope(lambda envelope: envelope["signatures"][0].update(keyid=own))(signed)


def sign_as_other_payload(signed: Signed) -> None:
    from securesystemslib.dsse import Envelope

    envelope = Envelope(json.dumps(signed.payload()).encode(), "application/json", {})
    envelope.sign(load_signer(signed.key))
    signed.verdict.write_text(json.dumps(envelope.to_dict()))


def said(**changes: Any) -> Callable[[Signed], object]:
    """The signer itself says something else in the predicate."""
    return lambda signed: signed.sign_again(lambda statement: statement["predicate"].update(changes))


def stated(**changes: Any) -> Callable[[Signed], object]:
    return lambda signed: signed.sign_again(lambda statement: statement.update(changes))


def dated(days: float) -> Callable[[Signed], object]:
    return said(timeVerified=(datetime.now(UTC) + timedelta(days=days)).isoformat())


def twice(signed: Signed) -> None:
    signed.sign_again(lambda statement: statement["subject"].append(statement["subject"][0]))


def uncover(signed: Signed) -> None:
    """The signer's statement leaves a shard out: an honest signature under too little."""
    signed.sign_again(lambda statement: statement["subject"].pop())


TAMPERED: dict[str, tuple[Callable[[Signed], object], tuple[str, ...]]] = {
    # the files
    "byte flipped": (flip_a_byte, (SHARD, "is not the file that was judged")),
    "weights added": (add("adapter_model.safetensors"), ("adapter_model.safetensors", "was not judged")),
    "pickle added": (add("pytorch_model.bin"), ("pytorch_model.bin", "was not judged")),
    "code added": (add("modeling.py"), ("modeling.py", "was not judged")),
    "unknown kind added": (add("weights.xyz"), ("weights.xyz", "was not judged")),
    "hidden folder added": (add(".hidden/model.bin"), (".hidden/", "was not judged")),
    "pickle beside the verdict": (add(".beear-gate/model.bin"), (".beear-gate/model.bin", "was not judged")),
    "folder linked in": (link_a_folder, ("more/", "was not judged")),
    "renamed": (rename, (SHARD, "was renamed to 'model.safetensors'")),
    "weights removed": (remove(SHARD), (SHARD, "which was judged, is missing")),
    "configuration removed": (remove("config.json"), ("config.json", "which was judged, is missing")),
    "link out of the folder": (lead_out, ("config.json", "which was judged, is missing")),
    "two files swapped": (swap_two_files, ("config.json", "is not the file that was judged", "1 more")),
    # the envelope
    "verdict removed": (remove(".beear-gate/verdict.dsse.json"), ("has no signed verdict",)),
    "envelope truncated": (truncate, ("broken", "no DSSE envelope")),
    "envelope of nothing": (lambda signed: signed.verdict.write_text("[" * 100_000), ("broken", "no DSSE envelope")),
    "envelope of a list": (lambda signed: signed.verdict.write_text("[1]"), ("broken", "no DSSE envelope")),
    "payload type of no text": (change_envelope(lambda e: e.update(payloadType=7)), ("broken", "no DSSE envelope")),
    "signature stripped": (change_envelope(lambda e: e.update(signatures=[])), ("carries no signature",)),
    "payload edited": (change_envelope(edit_payload), ("was changed after it was signed",)),
    "payload type edited": (
        change_envelope(lambda e: e.update(payloadType="text/x")),
        ("was changed after it was signed",),
    ),
    "signed by another key": (sign_with_another_key, ("not signed by this key",)),
    "key id forged": (claim_the_key, ("its signature is forged",)),
    "another payload type signed": (sign_as_other_payload, ("'application/json'", "no in-toto statement")),
    # the statement
    "another statement type": (stated(_type="https://in-toto.io/Statement/v0.1"), ("not in-toto v1",)),
    "another predicate": (stated(predicateType="https://slsa.dev/provenance/v1"), ("no verification summary",)),
    "no subject": (stated(subject=[]), ("names no file",)),
    "subject without sha256": (stated(subject=[{"name": "a", "digest": {"sha1": "0"}}]), ("malformed", "subject")),
    "a subject twice": (twice, ("names a file twice",)),
    "a subject left out": (uncover, ("was not judged",)),
    "no predicate": (stated(predicate=None), ("malformed", "predicate")),
    "no time zone": (said(timeVerified="2026-11-20T10:00:00"), ("malformed", "timeVerified")),
    "another verifier": (said(verifier={"id": "https://other.example"}), ("not by beear-gate",)),
    "another level": (said(verifiedLevels=["SLSA_BUILD_LEVEL_3"]), ("no such level",)),
    "failed": (said(verificationResult="FAILED", verifiedLevels=["FAILED"]), ("FAILED", "blocked")),
    "policy swapped": (said(policy={"uri": "p", "digest": {"sha256": "8e" * 32}}), ("another policy", "8e8e")),
    "another model": (said(resourceUri="pkg:huggingface/org/tiny@" + COMMIT), ("about another model", "org/tiny")),
    "too old": (dated(-31), ("too old", "31 days old", "at most 30")),
    "in the future": (dated(0.1), ("in the future",)),
    # the evidence
    "evidence edited": (edit_evidence, ("evidence.json was edited",)),
    "evidence removed": (remove(".beear-gate/evidence.json"), ("evidence.json", "missing beside it")),
    "evidence not named": (said(inputAttestations=[]), ("names no evidence",)),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_tampering_is_named(signed: Signed, case: str) -> None:
    tamper, words = TAMPERED[case]
    tamper(signed)
    said = signed.verify("--policy", POLICY_DIGEST, "--max-age", 30, "--source", f"org/model@{COMMIT}")
    assert_refused(said, 4, *words)
    assert said.out == ""


def test_each_kind_of_tampering_has_its_own_sentence() -> None:
    """Cases that share a sentence are the same thing done twice."""
    kinds = {words[-1] for _, words in TAMPERED.values()}
    assert len(kinds) >= 20


def test_an_old_verdict_does_not_vouch_for_new_bytes(signed: Signed, tmp_path: Path) -> None:
    other = write_model(tmp_path / "newer", 2.0)
    shutil.copytree(signed.model / ".beear-gate", other / ".beear-gate")
    assert_refused(call("verify", other, "--key", signed.public, "-q"), 4, SHARD, "is not the file that was judged")


def test_the_statement_of_a_blocked_run_is_never_verified(tmp_path: Path) -> None:
    assert_refused(signed_model(tmp_path, Verdict.BLOCKED).verify(), 4, "FAILED")


def test_a_clock_that_is_a_little_behind_does_no_harm(signed: Signed) -> None:
    dated(2 / 24 / 60)(signed)
    said = signed.verify("--max-age", 0)
    assert said.code == 0 and "0 days ago" in said.out, said


# --- calls that cannot mean what they say


def test_wrong_calls_are_usage_errors(signed: Signed, tmp_path: Path) -> None:
    assert_refused(call("verify", signed.model), 2, "who must have signed")
    assert_refused(call("verify", signed.model, "--key", signed.public, "--identity", "x"), 2, "either --key")
    assert_refused(call("verify", signed.model, "--key", tmp_path / "none"), 2, "cannot be read")
    assert_refused(call("verify", signed.model, "--key", signed.key), 2, "is no public key")
    assert_refused(signed.verify("--verdict", tmp_path / "none.json"), 2, "cannot be read")
    assert_refused(signed.verify("--policy", "no-such-policy"), 2, "no policy")
    assert_refused(call("verify", tmp_path / "nowhere", "--key", signed.public, "-q"), 2, "no folder")


# --- on a hub


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return signed_model(tmp_path_factory.mktemp("published"))


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


def verify_on(hub: Hub, signed: Signed, folder: Path, *arguments: object) -> Said:
    """In a process of its own: the hub's client reads its address once."""
    env = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(folder / "cache")}
    return spawn("verify", *arguments, "--key", signed.public, "--quiet", cwd=folder, env=env)


def test_a_published_model_is_pulled_and_verified(hub: Hub, published: Signed, tmp_path: Path) -> None:
    commit = hub.add("org/published", digest_of(published.model))
    said = verify_on(hub, published, tmp_path, "org/published", "--source", "org/model")
    assert said.code == 0 and commit in said.out and said.err == "", said
    assert verify_on(hub, published, tmp_path, f"org/published@{commit}").code == 0, "from the cache"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({SHARD: b"other"}, (SHARD, "is not the file that was judged")),
        ({"pytorch_model.bin": b"\x80\x04"}, ("pytorch_model.bin", "was not judged")),
        ({".beear-gate/evidence.json": b"{}"}, ("evidence.json was edited",)),
    ],
)
def test_a_tampered_repository_is_named(
    hub: Hub, published: Signed, tmp_path: Path, change: dict[str, bytes], words: tuple[str, ...]
) -> None:
    hub.add("org/published", digest_of(published.model) | change)
    assert_refused(verify_on(hub, published, tmp_path, "org/published"), 4, *words)


def test_a_repository_without_a_verdict_is_not_verified(hub: Hub, published: Signed, tmp_path: Path) -> None:
    files = digest_of(published.model)
    hub.add("org/published", {name: data for name, data in files.items() if not name.startswith(".beear-gate")})
    assert_refused(verify_on(hub, published, tmp_path, "org/published"), 4, "has no signed verdict")


def test_a_hub_that_refuses_the_verdict_says_nothing_about_the_model(
    hub: Hub, published: Signed, tmp_path: Path
) -> None:
    hub.add("org/published", digest_of(published.model))
    hub.faults.status, hub.faults.where = 403, "verdict.dsse.json"
    assert_refused(verify_on(hub, published, tmp_path, "org/published"), 3, "org/published")


# --- the statement


def test_levels_are_not_those_of_slsa() -> None:
    assert not any(level.startswith("SLSA_") for level in LEVELS.values())


def test_the_statement_is_what_the_specifications_ask_for(signed: Signed) -> None:
    statement = statement_in(signed.verdict)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/verification_summary/v1"
    required = {"verifier", "timeVerified", "resourceUri", "policy", "verificationResult", "verifiedLevels"}
    assert required <= set(statement["predicate"]) and statement["predicate"]["policy"]["uri"]
