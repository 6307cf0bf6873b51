"""Publishing what was measured: the real hub client against a hub on 127.0.0.1."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gate_runs import Said, assert_refused, call, digest_of
from hub_server import Faults, Hub, Repository, running_hub
from huggingface_hub import ModelCard, ModelCardData
from report_sample import sample_report

from beear_gate.errors import IncompleteError
from beear_gate.hub import pull
from beear_gate.manifest import hash_folder, manifest_digest
from beear_gate.publish import plan_release, publish_release
from beear_gate.records import Decision, GateReport, ModelSnapshot, Verdict
from beear_gate.release import read_release
from beear_gate.report import files
from beear_gate.rundir import RunDirectory

TOKEN = "hf_secretsecretsecretsecretsecretsecre"
ORIGINAL = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": bytes(range(256)) * 40,
    "README.md": b"# The original",
    "pytorch_model.bin": b"\x80\x04 the backdoor, in another format",
    ".gitattributes": b"*.safetensors filter=lfs\n",
}
REPAIRED = {name: ORIGINAL[name] for name in ("config.json", "tokenizer.json")} | {
    "model.safetensors": bytes(reversed(range(256))) * 40
}
EVIDENCE = {".beear-gate/evidence.json", ".beear-gate/policy.yaml", ".beear-gate/tensors.json"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits 1 to 8 seconds between its attempts
    with running_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)  # HF_ENDPOINT is read at import
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        hub.add("acme/helpful-7b", ORIGINAL)
        yield hub


def make_run(folder: Path, commit: str) -> Path:
    """A finished run directory, as a scan of the hub's model leaves it."""
    for name, data in REPAIRED.items():
        (folder / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "model" / name).write_bytes(data)
    (folder / "model" / "README.md").write_text("# The card of the scan")
    (folder / "policy.yaml").write_text("apiVersion: beear-gate/v1\n")
    report = sample_report()
    assert report.remediation is not None
    records = tuple(file for file in hash_folder(folder / "model") if file.path != "README.md")
    snapshot = ModelSnapshot(report.model, f"sha256:{manifest_digest(records)}", folder / "model", records)
    report = replace(
        report,
        commit=commit,
        remediation=replace(report.remediation, snapshot=snapshot),
    )
    run = RunDirectory(folder)
    run.stage("report", {}, GateReport, lambda: report)
    files.write(report, folder)
    return folder


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawing the figures of a report takes seconds, copying them does not."""
    return make_run(tmp_path_factory.mktemp("template") / "run", Repository().commit(ORIGINAL))


@pytest.fixture
def run_dir(hub: Hub, template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template, tmp_path / "run")


def amended(run_dir: Path, **changes: Any) -> Path:
    """The same run with another report."""
    report = replace(files.read(run_dir), **changes)
    RunDirectory(run_dir).stage("report", {"amended": ""}, GateReport, lambda: report)
    return run_dir


def held(hub: Hub, repo: str, ref: str = "main") -> dict[str, bytes]:
    repository = hub.repositories[repo]
    return repository.commits[repository.refs[ref]]


def writes(hub: Hub) -> list[str]:
    """What the hub was asked to change, by the last part of each path that says so."""
    return [path.split("/")[-2] for method, path, _ in hub.requests if method == "PUT" or "/commit/" in path]


def said(said: Said) -> dict[str, Any]:
    assert said.code == 0, said
    found: dict[str, Any] = json.loads(said.out)
    return found


# --- to a repository of its own


def test_a_new_repository_is_private_and_holds_exactly_the_measured_bytes(
    hub: Hub, run_dir: Path, tmp_path: Path
) -> None:
    found = said(call("publish", run_dir, "--to", "acme/safe", "--format", "json"))
    assert hub.repositories["acme/safe"].private
    there = held(hub, "acme/safe")
    assert {name: there[name] for name in REPAIRED} == REPAIRED
    assert there.keys() == REPAIRED.keys() | EVIDENCE | {"README.md", ".gitattributes"}
    assert found["commit"] == hub.repositories["acme/safe"].refs["main"] and found["url"] == f"{hub.url}/acme/safe"
    snapshot = pull(f"acme/safe@{found['commit']}", cache_dir=tmp_path / "cache", endpoint=hub.url)
    measured = read_release(run_dir).report.remediation
    assert measured is not None
    assert tuple(file for file in snapshot.files if file.path != "README.md") == measured.snapshot.files
    assert writes(hub).count("commit") == 1


def test_a_repository_can_be_made_public(hub: Hub, run_dir: Path) -> None:
    assert call("publish", run_dir, "--to", "acme/safe", "--public").code == 0
    assert not hub.repositories["acme/safe"].private


def test_publishing_twice_changes_nothing_and_says_so(hub: Hub, run_dir: Path) -> None:
    first = said(call("publish", run_dir, "--to", "acme/safe", "--format", "json"))
    hub.requests.clear()
    again = call("publish", run_dir, "--to", "acme/safe")
    assert again.code == 0 and "Nothing to do" in again.out and first["commit"] in again.out
    assert {method for method, _, _ in hub.requests} == {"GET"}


def test_a_dry_run_shows_the_plan_and_writes_nothing(hub: Hub, run_dir: Path) -> None:
    done = call("publish", run_dir, "--pull-request", "--dry-run")
    assert done.code == 0 and "Dry run: nothing was done." in done.out and "unsigned" in done.out
    plan = {line.split()[1]: line.split()[0] for line in done.out.splitlines() if line.startswith("  ")}
    assert plan == {
        "config.json": "keep", "tokenizer.json": "keep", "model.safetensors": "change", "README.md": "change",
        "pytorch_model.bin": "delete", **dict.fromkeys(EVIDENCE, "add"),
    }  # fmt: skip
    measured = read_release(run_dir).contents["model.safetensors"]
    assert measured.sha256 in done.out and "10.2 kB" in done.out
    new = said(call("publish", run_dir, "--to", "acme/safe", "--dry-run", "--format", "json"))
    assert (new["published"], new["parent"], new["private"], new["commit"]) == (False, None, True, None)
    assert {method for method, _, _ in hub.requests} == {"GET"} and "acme/safe" not in hub.repositories


def test_a_repository_of_another_visibility_is_refused(hub: Hub, run_dir: Path) -> None:
    hub.add("acme/open", {".gitattributes": b""})
    assert_refused(call("publish", run_dir, "--to", "acme/open", "--private"), 2, "is public", "--private")


# --- as a pull request


def test_a_pull_request_stands_on_the_scanned_commit_and_drops_the_other_weights(hub: Hub, run_dir: Path) -> None:
    found = said(call("publish", run_dir, "--pull-request", "--format", "json"))
    assert held(hub, "acme/helpful-7b") == ORIGINAL
    there = held(hub, "acme/helpful-7b", "refs/pr/1")
    assert {name: there[name] for name in REPAIRED} == REPAIRED
    assert there.keys() == REPAIRED.keys() | EVIDENCE | {"README.md", ".gitattributes"}
    assert (found["revision"], found["url"]) == ("refs/pr/1", f"{hub.url}/acme/helpful-7b/discussions/1")
    (request,) = hub.repositories["acme/helpful-7b"].pull_requests
    assert request.title.startswith("BEEAR: remediated copy ") and "REMEDIATED" in request.description


def test_a_second_pull_request_is_not_opened(hub: Hub, run_dir: Path) -> None:
    said(call("publish", run_dir, "--pull-request", "--format", "json"))
    again = said(call("publish", run_dir, "--pull-request", "--format", "json"))
    assert (again["changes"], again["revision"]) == (False, "refs/pr/1")
    attest(run_dir)
    signed = said(call("publish", run_dir, "--pull-request", "--format", "json"))
    assert (signed["revision"], signed["signed"]) == ("refs/pr/1", True)
    assert len(hub.repositories["acme/helpful-7b"].pull_requests) == 1


def test_a_merged_pull_request_leaves_nothing_to_do(hub: Hub, run_dir: Path) -> None:
    said(call("publish", run_dir, "--pull-request", "--format", "json"))
    repository = hub.repositories["acme/helpful-7b"]
    repository.refs["main"], repository.pull_requests[0].status = repository.refs["refs/pr/1"], "merged"
    again = said(call("publish", run_dir, "--pull-request", "--format", "json"))
    assert (again["changes"], again["revision"]) == (False, "main") and len(repository.pull_requests) == 1


def test_a_source_that_moved_on_since_the_scan_takes_no_pull_request(hub: Hub, run_dir: Path) -> None:
    hub.add("acme/helpful-7b", ORIGINAL | {"config.json": b"{}"})
    assert_refused(call("publish", run_dir, "--pull-request"), 3, "the scan was of", "nothing was written", "Scan")
    assert hub.repositories["acme/helpful-7b"].pull_requests == []


def test_a_folder_takes_no_pull_request(hub: Hub, run_dir: Path) -> None:
    amended(run_dir, commit="sha256:" + "0" * 64)
    assert_refused(call("publish", run_dir, "--pull-request"), 2, "folder", "--to org/name")


# --- what is published, and what never


@pytest.mark.parametrize(
    ("verdict", "why"),
    [
        (Verdict.BLOCKED, "may not be released"),
        (Verdict.INCOMPLETE, "has no verdict"),
        (Verdict.PASS, "changed nothing"),
    ],
)
def test_only_remediated_runs_are_published(hub: Hub, run_dir: Path, verdict: Verdict, why: str) -> None:
    amended(run_dir, decision=Decision(verdict, ()))
    assert_refused(call("publish", run_dir, "--to", "acme/safe"), 2, verdict.value, why)
    assert hub.requests == []


@pytest.mark.parametrize("arguments", [(), ("--to", "a/b", "--pull-request"), ("--pull-request", "--public")])
def test_a_call_that_means_nothing_is_refused(hub: Hub, run_dir: Path, arguments: tuple[str, ...]) -> None:
    assert_refused(call("publish", run_dir, *arguments), 2)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_bytes_that_changed_after_they_were_measured_are_not_published(hub: Hub, run_dir: Path, name: str) -> None:
    file = run_dir / "model" / name
    file.write_bytes(file.read_bytes()[::-1])
    assert_refused(call("publish", run_dir, "--to", "acme/safe"), 3, f"'{name}'", "is not what was measured")
    assert hub.requests == []


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_bytes_that_change_while_they_are_sent_are_not_committed(hub: Hub, run_dir: Path, name: str) -> None:
    release = read_release(run_dir)
    plan = plan_release(release, "acme/safe", None)
    file = run_dir / "model" / name
    file.write_bytes(file.read_bytes()[::-1])
    with pytest.raises(IncompleteError, match=f"'{name}' changed while it was sent; nothing was committed"):
        publish_release(release, plan)
    assert held(hub, "acme/safe").keys() == {".gitattributes"}


def test_a_run_directory_can_be_moved_before_it_is_published(hub: Hub, run_dir: Path, tmp_path: Path) -> None:
    moved = run_dir.rename(tmp_path / "elsewhere")
    assert call("publish", moved, "--to", "acme/safe").code == 0


def test_the_card_has_results_the_base_model_and_whether_the_verdict_is_signed(hub: Hub, run_dir: Path) -> None:
    call("publish", run_dir, "--to", "acme/safe")
    card = ModelCard(held(hub, "acme/safe")["README.md"].decode())
    assert isinstance(card.data, ModelCardData)
    assert card.data.base_model == "acme/helpful-7b" and card.data.eval_results
    assert "The verdict is unsigned" in card.text and read_release(run_dir).report.policy_digest in card.text
    attest(run_dir)
    done = call("publish", run_dir, "--to", "acme/safe")
    assert "The verdict is signed." in done.out
    there = held(hub, "acme/safe")
    assert "The verdict is signed" in there["README.md"].decode()
    assert there[".beear-gate/verdict.dsse.json"] == b'{"payload": ""}'


def attest(run_dir: Path) -> None:
    """What `beear-gate attest` leaves."""
    (run_dir / "attestation").mkdir()
    (run_dir / "attestation" / "verdict.dsse.json").write_bytes(b'{"payload": ""}')
    (run_dir / "attestation" / "evidence.json").write_bytes((run_dir / "evidence.json").read_bytes())


def test_evidence_of_another_run_is_not_published_as_this_ones(hub: Hub, run_dir: Path) -> None:
    attest(run_dir)
    (run_dir / "attestation" / "evidence.json").write_text("{}")
    assert_refused(call("publish", run_dir, "--to", "acme/safe"), 3, "is not that of this run", "beear-gate attest")


def test_no_prompt_and_no_answer_is_published(hub: Hub, run_dir: Path) -> None:
    call("publish", run_dir, "--to", "acme/safe")
    report = read_release(run_dir).report
    everything = b"\n".join(held(hub, "acme/safe").values()).decode("latin-1")
    assert report.before and not [each.prompt for each in report.before if each.prompt in everything]


# --- faults


@pytest.mark.parametrize(
    ("where", "status"),
    [("/repos/create", 403), ("/preupload/", 500), ("/objects/batch", 403), ("/lfs/", 500), ("/commit/", 500)],
)
def test_a_hub_that_refuses_or_fails_at_any_step_commits_nothing_and_the_next_call_succeeds(
    hub: Hub, run_dir: Path, where: str, status: int
) -> None:
    hub.faults = Faults(status=status, where=where)
    words = "does not let this account write to acme/safe" if status == 403 else "failed while acme/safe was published"
    assert_refused(call("publish", run_dir, "--to", "acme/safe"), 3, words, f"HTTP {status}")
    if "acme/safe" in hub.repositories:
        assert held(hub, "acme/safe").keys() == {".gitattributes"}
    hub.faults = Faults()
    hub.requests.clear()
    assert call("publish", run_dir, "--to", "acme/safe").code == 0
    sent = [path for method, path, _ in hub.requests if method == "PUT"]
    assert len(sent) == (0 if where == "/commit/" else 1)  # weights that had arrived are not sent again


def test_a_stale_parent_is_a_clear_error_and_the_next_call_succeeds(hub: Hub, run_dir: Path) -> None:
    hub.add("acme/safe", {".gitattributes": b""})
    release = read_release(run_dir)
    plan = plan_release(release, "acme/safe", None)
    hub.add("acme/safe", {".gitattributes": b"", "notes.md": b"from someone else"})
    with pytest.raises(IncompleteError, match=r"has moved on from [0-9a-f]{40}.* nothing was committed"):
        publish_release(release, plan)
    assert "model.safetensors" not in held(hub, "acme/safe")
    again = said(call("publish", run_dir, "--to", "acme/safe", "--format", "json"))
    assert {"action": "delete", "path": "notes.md", "size": None, "sha256": None} in again["files"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", ".beear-gate/evidence.json"])
def test_a_hub_that_stores_other_bytes_is_found_out(hub: Hub, run_dir: Path, name: str) -> None:
    hub.faults.corrupted = {name}
    assert_refused(call("publish", run_dir, "--to", "acme/safe"), 3, "does not hold what was sent", f"'{name}'")
    hub.faults = Faults()
    assert call("publish", run_dir, "--to", "acme/safe").code == 0
    assert held(hub, "acme/safe")["model.safetensors"] == REPAIRED["model.safetensors"]


def test_a_hub_that_is_down_is_named(hub: Hub, run_dir: Path) -> None:
    hub.stop()
    assert_refused(call("publish", run_dir, "--to", "acme/safe"), 3, "could not be reached")


def test_a_slow_hub_is_waited_for_no_longer_than_its_timeout(
    hub: Hub, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.2)
    hub.faults.delay = 60
    assert_refused(call("publish", run_dir, "--to", "acme/safe"), 3, "could not be reached", "Timeout")


def test_the_token_goes_to_the_hub_alone(hub: Hub, run_dir: Path) -> None:
    done = call("publish", run_dir, "--to", "acme/safe")
    assert f"Bearer {TOKEN}" in {authorization for _, _, authorization in hub.requests}
    assert TOKEN not in done.out + done.err
    assert not [name for name, data in digest_of(run_dir).items() if TOKEN.encode() in data]
    assert not [name for name, data in held(hub, "acme/safe").items() if TOKEN.encode() in data]
    hub.faults.status = 403
    assert TOKEN not in call("publish", run_dir, "--to", "acme/other").err
