"""Pulling models: folders as they lie, and a real hub client against a hub on 127.0.0.1."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Faults, Hub, running_hub

from beear_gate.errors import GateError, HubUnavailable, IncompleteError, UsageError
from beear_gate.hub import hash_folder, manifest_digest, pull, pull_hub, verify_unchanged
from beear_gate.records import ModelSnapshot

TOKEN = "hf_secretsecretsecretsecretsecretsecre"
WEIGHTS = bytes(range(256)) * 40
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": WEIGHTS,
    "LICENSE": b"Apache-2.0",
    "sub/config.json": b"{}",
}
EXTRA = {"pytorch_model.bin": b"\x80\x04", "modeling.py": b"import os", ".gitattributes": b"", "a/b/c.json": b"{}"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with running_hub() as hub:
        hub.add("org/model", FILES | EXTRA)
        yield hub


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits 1 to 8 seconds between its attempts."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "model", FILES)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def pulled(hub: Hub, tmp_path: Path, model: str = "org/model", revision: str | None = None) -> ModelSnapshot:
    return pull(model, revision, tmp_path / "cache", endpoint=hub.url)


def refusal(hub: Hub, tmp_path: Path, model: str = "org/model", revision: str | None = None) -> GateError:
    with pytest.raises(GateError) as caught:
        pulled(hub, tmp_path, model, revision)
    return caught.value


# Folders


def test_a_folder_is_hashed_where_it_lies_and_pinned_by_its_manifest(folder: Path) -> None:
    snapshot = pull(str(folder))
    assert snapshot.model == str(folder) and snapshot.path == folder.resolve()
    assert {file.path: (file.size, file.sha256) for file in snapshot.files} == {
        name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in FILES.items()
    }
    assert snapshot.commit == "sha256:" + manifest_digest(snapshot.files) and snapshot.ignored == ()


def test_a_folders_commit_depends_on_names_and_bytes_and_on_nothing_else(folder: Path, tmp_path: Path) -> None:
    twin = write(tmp_path / "twin", dict(reversed(FILES.items())))
    assert pull(str(folder)).commit == pull(str(twin)).commit
    (twin / "LICENSE").rename(twin / "LICENSE-old")
    assert pull(str(folder)).commit != pull(str(twin)).commit


def test_files_of_other_kinds_are_listed_and_never_opened(folder: Path) -> None:
    write(folder, EXTRA | {".hidden.json": b"", ".git/config.json": b"", "LICENSE.bin": b"", "x.gguf": b""})
    os.mkfifo(folder / "pipe.json")  # opening it would hang
    assert pull(str(folder)).ignored == (
        ".git/",
        ".gitattributes",
        ".hidden.json",
        "LICENSE.bin",
        "a/b/c.json",
        "modeling.py",
        "pipe.json",
        "pytorch_model.bin",
        "x.gguf",
    )


def test_links_that_leave_the_folder_are_listed_and_never_followed(folder: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"secret.json": b"{}", "config.json": b"{}"})
    (folder / "out.json").symlink_to(outside / "secret.json")
    (folder / "outdir").symlink_to(outside)
    (folder / "loop.json").symlink_to("loop.json")
    (folder / "gone.json").symlink_to("nowhere")
    (folder / "inside.json").symlink_to("tokenizer.json")
    snapshot = pull(str(folder))
    assert snapshot.ignored == ("gone.json", "loop.json", "out.json", "outdir/")
    assert "inside.json" in {file.path for file in snapshot.files}


def test_a_name_that_cannot_be_printed_is_listed_escaped(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/x\xff\n.json")).write_bytes(b"{}")
    assert pull(str(folder)).ignored == ("x\\udcff\\n.json",)


def test_a_missing_folder_is_a_usage_error_that_names_its_neighbour(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no folder '.*modle'\. Did you mean '.*model'\?"):
        pull(str(folder.with_name("modle")))


def test_a_file_is_no_folder(folder: Path) -> None:
    with pytest.raises(UsageError, match="is a file"):
        pull(str(folder / "config.json"))


def test_a_folder_without_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is no model folder: it has no config\.json"):
        pull(str(tmp_path))


def test_a_folder_has_no_revisions(folder: Path) -> None:
    with pytest.raises(UsageError, match="no revisions"):
        pull(str(folder), "main")


def test_an_existing_folder_wins_over_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent.parent)
    named = f"{folder.parent.name}/{folder.name}"
    assert pull(named).path == folder.resolve()


@pytest.mark.parametrize("name", ["", "gpt2", "a/b/c", "hf://org/model", "org/model@", "org/..", "org/mo del"])
def test_a_name_that_means_nothing_is_a_usage_error_with_the_forms_that_do(name: str) -> None:
    with pytest.raises(UsageError, match="Write org/name"):
        pull(name)


def test_a_file_that_may_not_be_read_leaves_the_scan_incomplete(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str) -> None:  # chmod would not stop root
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(IncompleteError, match=r"could not be read \(Permission denied\)"):
        pull(str(folder))


def test_changed_lost_and_new_files_are_told_apart_from_untouched_ones(folder: Path) -> None:
    snapshot = pull(str(folder))
    assert verify_unchanged(snapshot) == []
    (folder / "model.safetensors").write_bytes(WEIGHTS[::-1])
    (folder / "LICENSE").unlink()
    write(folder, {"adapter_config.json": b"{}", "note.pkl": b""})
    assert verify_unchanged(snapshot) == ["LICENSE", "adapter_config.json", "model.safetensors"]


def test_a_file_replaced_by_a_link_to_the_outside_counts_as_changed(folder: Path, tmp_path: Path) -> None:
    snapshot = pull(str(folder))
    (folder / "config.json").rename(tmp_path / "same.json")
    (folder / "config.json").symlink_to(tmp_path / "same.json")
    assert verify_unchanged(snapshot) == ["config.json"]


def test_a_lost_folder_has_lost_every_file(folder: Path) -> None:
    snapshot = pull(str(folder))
    folder.rename(folder.with_name("elsewhere"))
    assert verify_unchanged(snapshot) == sorted(FILES)


def test_hashing_reports_bytes_up_to_the_total(folder: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    pull(str(folder), tick=lambda *step: seen.append(step))
    total = sum(map(len, FILES.values()))
    assert seen[-1] == ("hashing files", total, total) and all(done <= total for _, done, _ in seen)


# Hub


def test_a_hub_model_is_pinned_to_a_commit_with_only_the_allowed_files(hub: Hub, tmp_path: Path) -> None:
    snapshot = pulled(hub, tmp_path)
    assert snapshot.commit == hub.repositories["org/model"].refs["main"]
    assert snapshot.model == "org/model" and {file.path for file in snapshot.files} == FILES.keys()
    assert snapshot.ignored == tuple(sorted(EXTRA))
    fetched = {path.rpartition("resolve/")[2].partition("/")[2] for _, path, _ in hub.requests if "/resolve/" in path}
    assert fetched == FILES.keys()
    assert hash_folder(snapshot.path) == snapshot.files and verify_unchanged(snapshot) == []


def test_the_revision_is_resolved_once_and_only_the_commit_is_asked_for_after(hub: Hub, tmp_path: Path) -> None:
    snapshot = pulled(hub, tmp_path, "org/model@main")
    assert [path for _, path, _ in hub.requests if "main" in path] == ["/api/models/org/model/revision/main"]
    assert all(snapshot.commit in path for _, path, _ in hub.requests[1:])


def test_a_tag_or_an_older_commit_can_be_named(hub: Hub, tmp_path: Path) -> None:
    repository = hub.repositories["org/model"]
    old = repository.refs["main"]
    new = repository.commit(FILES | {"config.json": b'{"model_type": "qwen2"}'}, "refs/pr/1")
    assert pulled(hub, tmp_path, f"org/model@{old}").commit == old
    assert pulled(hub, tmp_path, "org/model", "refs/pr/1").commit == new


def test_two_different_revisions_are_a_usage_error(hub: Hub, tmp_path: Path) -> None:
    error = refusal(hub, tmp_path, "org/model@main", "other")
    assert isinstance(error, UsageError) and "two revisions" in str(error) and hub.requests == []


def test_a_second_pull_takes_the_files_from_the_cache_and_hashes_them_again(hub: Hub, tmp_path: Path) -> None:
    first = pulled(hub, tmp_path)
    hub.requests.clear()
    assert pulled(hub, tmp_path) == first
    assert not any(method == "GET" and "/resolve/" in path for method, path, _ in hub.requests)


def test_a_cached_file_that_was_altered_on_disk_is_found(hub: Hub, tmp_path: Path) -> None:
    weights = pulled(hub, tmp_path).path / "model.safetensors"
    weights.resolve().write_bytes(WEIGHTS[::-1])
    error = refusal(hub, tmp_path)
    assert type(error) is IncompleteError and "'model.safetensors'" in error.message
    assert (pulled(hub, tmp_path).path / "model.safetensors").read_bytes() == WEIGHTS


def test_a_file_planted_into_the_cache_is_found(hub: Hub, tmp_path: Path) -> None:
    (pulled(hub, tmp_path).path / "adapter_config.json").write_bytes(b"{}")
    error = refusal(hub, tmp_path)
    assert type(error) is IncompleteError and "'adapter_config.json'" in error.message


def test_a_cached_snapshot_can_be_scanned_as_a_folder(hub: Hub, tmp_path: Path) -> None:
    snapshot = pulled(hub, tmp_path)
    assert (snapshot.path / "config.json").is_symlink()
    assert pull(str(snapshot.path)).files == snapshot.files


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_other_bytes_of_the_same_length_are_found_in_large_and_in_small_files(
    hub: Hub, tmp_path: Path, name: str
) -> None:
    hub.faults.tampered = {name}
    error = refusal(hub, tmp_path)
    assert type(error) is IncompleteError and f"'{name}' of org/model is not what the hub lists" in error.message


def test_a_hub_without_checksums_is_not_trusted(hub: Hub, tmp_path: Path) -> None:
    hub.faults.no_checksums = True
    error = refusal(hub, tmp_path)
    assert type(error) is IncompleteError and "no checksum" in error.message


def test_an_unknown_repository_may_be_missing_or_private(hub: Hub, tmp_path: Path) -> None:
    error = refusal(hub, tmp_path, "org/nothing")
    assert isinstance(error, UsageError) and "does not exist, or it is private" in error.message
    assert "hf auth login" in error.remedy


def test_a_refused_login_may_mean_missing_or_private(hub: Hub, tmp_path: Path) -> None:
    hub.faults.status = 401
    assert isinstance(refusal(hub, tmp_path), UsageError)


def test_an_unknown_revision_is_a_usage_error(hub: Hub, tmp_path: Path) -> None:
    error = refusal(hub, tmp_path, "org/model@v9")
    assert isinstance(error, UsageError) and "no revision 'v9'" in error.message


def test_a_repository_without_config_is_no_model(hub: Hub, tmp_path: Path) -> None:
    hub.add("org/gguf", {"model.gguf": b"GGUF"})
    error = refusal(hub, tmp_path, "org/gguf")
    assert isinstance(error, UsageError) and "no config.json" in error.message


@pytest.mark.parametrize("where", ["/api/", "/resolve/"])
def test_a_gated_model_asks_for_its_terms_to_be_accepted(hub: Hub, tmp_path: Path, where: str) -> None:
    hub.faults = Faults(status=403, error_code="GatedRepo", where=where)
    error = refusal(hub, tmp_path)
    assert isinstance(error, HubUnavailable) and "Accept its terms" in error.remedy


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_a_hub_that_refuses_or_fails_leaves_the_scan_incomplete(hub: Hub, tmp_path: Path, status: int) -> None:
    hub.faults.status = status
    error = refusal(hub, tmp_path)
    assert isinstance(error, HubUnavailable) and error.exit_code == 3
    assert f"HTTP {status}" in error.message and hub.url.removeprefix("http://") in error.message


@pytest.mark.usefixtures("no_waiting")
def test_a_hub_that_fails_after_resolving_leaves_the_scan_incomplete(hub: Hub, tmp_path: Path) -> None:
    hub.faults = Faults(status=500, where="/resolve/")
    error = refusal(hub, tmp_path)
    assert isinstance(error, HubUnavailable) and "HTTP 500" in error.message


@pytest.mark.parametrize("cached", [False, True])
def test_a_hub_that_is_down_leaves_the_scan_incomplete_even_with_a_cached_copy(
    hub: Hub, tmp_path: Path, cached: bool
) -> None:
    if cached:
        pulled(hub, tmp_path)
    hub.stop()
    error = refusal(hub, tmp_path)
    assert isinstance(error, HubUnavailable) and "could not be reached" in error.message


def test_a_hub_that_does_not_answer_in_time_leaves_the_scan_incomplete(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.2)
    hub.faults.delay = 60
    error = refusal(hub, tmp_path)
    assert isinstance(error, HubUnavailable) and "Timeout" in error.message


def test_a_login_page_in_place_of_the_hub_is_recognised(hub: Hub, tmp_path: Path) -> None:
    hub.faults.html = True
    assert isinstance(refusal(hub, tmp_path), HubUnavailable)


@pytest.mark.usefixtures("no_waiting")
def test_a_download_cut_once_is_resumed(hub: Hub, tmp_path: Path) -> None:
    hub.faults = Faults(cut={"model.safetensors": 1000}, cut_times=1)
    assert (pulled(hub, tmp_path).path / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.usefixtures("no_waiting")
def test_a_download_that_is_always_cut_leaves_the_scan_incomplete(hub: Hub, tmp_path: Path) -> None:
    hub.faults.cut = {"model.safetensors": 0}
    assert isinstance(refusal(hub, tmp_path), HubUnavailable)


def test_a_full_disk_leaves_the_scan_incomplete(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    error = refusal(hub, tmp_path)
    assert type(error) is IncompleteError and "no space left" in error.message and "HF_HUB_CACHE" in error.remedy


def test_offline_mode_is_named_as_the_reason(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    error = refusal(hub, tmp_path)
    assert isinstance(error, HubUnavailable) and "HF_HUB_OFFLINE" in error.message


def test_a_hub_that_answers_for_another_commit_is_not_trusted(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = hub.repositories["org/model"].refs["main"]
    monkeypatch.setattr("hub_server.Repository.resolve", lambda self, revision: head)
    error = refusal(hub, tmp_path, "org/model@" + "0" * 40)
    assert isinstance(error, HubUnavailable) and head in error.message


def test_hostile_file_names_on_the_hub_are_only_listed(hub: Hub, tmp_path: Path) -> None:
    bad = {"../../evil.json": b"{}", "/etc/x.json": b"{}", "a\\b.json": b"{}", "x\u202e.json": b"{}"}
    hub.add("org/evil", FILES | bad)
    snapshot = pulled(hub, tmp_path, "org/evil")
    assert {file.path for file in snapshot.files} == FILES.keys() and len(snapshot.ignored) == len(bad)
    assert all(name.isprintable() for name in snapshot.ignored)


def test_pattern_signs_in_a_name_stand_for_themselves(hub: Hub, tmp_path: Path) -> None:
    hub.add("org/stars", {"config.json": b"{}", "[a]*.json": b"1", "a.jsonx": b"2"})
    assert {file.path for file in pulled(hub, tmp_path, "org/stars").files} == {"config.json", "[a]*.json"}


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_token_is_sent_to_the_hub_and_never_shown(hub: Hub, tmp_path: Path, status: int) -> None:
    hub.faults = Faults(status=status)
    error = refusal(hub, tmp_path)
    assert hub.requests[0][2] == f"Bearer {TOKEN}"
    assert TOKEN not in repr(error) + str(error) and error.__cause__ is None and error.__suppress_context__


def test_credentials_in_the_endpoint_are_never_shown(hub: Hub, tmp_path: Path) -> None:
    hub.faults.status = 500
    with pytest.raises(HubUnavailable) as caught:
        pull_hub("org/model", cache_dir=tmp_path, endpoint=hub.url.replace("http://", "http://me:pass-word@"))
    assert "pass-word" not in str(caught.value)


def test_downloading_reports_bytes_up_to_the_total(hub: Hub, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    pull("org/model", None, tmp_path, lambda *step: seen.append(step), hub.url)
    total = sum(map(len, FILES.values()))
    steps = [done for label, done, _ in seen if label == "pulling org/model"]
    assert steps[0] == 0 and steps[-1] == total and len(steps) > 2 and steps == sorted(steps)


def test_importing_the_module_does_not_import_the_client() -> None:
    code = "import json, sys, beear_gate.hub, beear_gate.artifacts; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert not {"huggingface_hub", "torch", "transformers", "safetensors", "numpy"} & set(loaded)
