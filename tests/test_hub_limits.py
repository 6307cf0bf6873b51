"""What a pull refuses before the first byte, what it takes from the cache, and what the hub says of its own scans."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gate_runs import assert_refused, call, digest_of
from hub_server import Faults, Hub, running_hub

from beear_gate.artifacts import inspect_snapshot
from beear_gate.errors import GateError, HubUnavailable, IncompleteError, UsageError
from beear_gate.hub import pull
from beear_gate.records import HubScan, ModelSnapshot, Severity

WEIGHTS = bytes(range(256)) * 40
FILES = {"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}", "model.safetensors": WEIGHTS}
TOTAL = sum(map(len, FILES.values()))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits 1 to 8 seconds between its attempts
    with running_hub() as hub:
        hub.add("org/model", FILES | {"pytorch_model.bin": bytes(10**6)})
        yield hub


def pulled(hub: Hub, tmp_path: Path, model: str = "org/model", **options: Any) -> ModelSnapshot:
    return pull(model, cache_dir=tmp_path / "cache", endpoint=hub.url, **options)


def refusal(hub: Hub, tmp_path: Path, model: str = "org/model", **options: Any) -> GateError:
    with pytest.raises(GateError) as caught:
        pulled(hub, tmp_path, model, **options)
    return caught.value


def fetched(hub: Hub) -> list[str]:
    """Files whose bytes were sent."""
    return [path.rpartition("/")[2] for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]


# --- size


def test_a_model_that_is_too_large_is_refused_before_the_first_byte(hub: Hub, tmp_path: Path) -> None:
    error = refusal(hub, tmp_path, max_gb=(TOTAL - 1) / 1e9)
    assert isinstance(error, UsageError) and "at most" in error.message and "--max-pull-gb" in error.remedy
    assert fetched(hub) == []
    assert pulled(hub, tmp_path, max_gb=TOTAL / 1e9).files  # what is not pulled does not count


def test_a_file_without_a_size_is_refused_before_the_first_byte(hub: Hub, tmp_path: Path) -> None:
    hub.faults.no_sizes = True
    error = refusal(hub, tmp_path)
    assert type(error) is IncompleteError and "lists no size" in error.message and fetched(hub) == []


def test_the_limit_can_be_given_on_the_command_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    assert_refused(call("inspect", "org/model", "--max-pull-gb", "0.000001"), 2, "GB may be pulled")


# --- resume


def test_what_has_arrived_is_not_fetched_again_after_a_failure(hub: Hub, tmp_path: Path) -> None:
    hub.faults.cut = {"model.safetensors": 100}
    assert isinstance(refusal(hub, tmp_path), HubUnavailable)
    hub.faults = Faults()
    hub.requests.clear()
    assert (pulled(hub, tmp_path).path / "model.safetensors").read_bytes() == WEIGHTS
    assert fetched(hub) == ["model.safetensors"]


def test_a_tampered_file_is_named_and_only_it_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.faults.tampered = {"model.safetensors"}
    error = refusal(hub, tmp_path)
    assert error.exit_code == 3 and "'model.safetensors' of org/model is not what the hub lists" in error.message
    hub.faults = Faults()
    hub.requests.clear()
    assert (pulled(hub, tmp_path).path / "model.safetensors").read_bytes() == WEIGHTS
    assert fetched(hub) == ["model.safetensors"]


# --- gated, private, renamed, disabled, missing


def test_a_renamed_repository_is_named_as_it_is_called_now(hub: Hub, tmp_path: Path) -> None:
    hub.add("org/newer", FILES)
    hub.repositories["org/model"].moved_to = "org/newer"
    error = refusal(hub, tmp_path)
    assert isinstance(error, UsageError) and "is called 'org/newer'" in error.message and fetched(hub) == []


def test_every_reason_why_a_model_cannot_be_had_has_its_own_sentence(hub: Hub, tmp_path: Path) -> None:
    said = {}
    for name, fault in {
        "gated": Faults(status=403, error_code="GatedRepo"),
        "private or missing": Faults(status=401),
        "bad token": Faults(status=401, message="Invalid credentials in Authorization header"),
        "disabled": Faults(status=403, message="Access to this resource is disabled."),
        "forbidden": Faults(status=403),
    }.items():
        hub.faults = fault
        said[name] = refusal(hub, tmp_path).message
    assert len(set(said.values())) == len(said)
    assert "is gated" in said["gated"] and "or it is private" in said["private or missing"]
    assert "does not accept the token" in said["bad token"] and "has been disabled" in said["disabled"]


# --- offline


@pytest.fixture
def offline(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSnapshot:
    """A model that was pulled before the network went."""
    snapshot = pulled(hub, tmp_path)
    hub.stop()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return snapshot


def test_a_commit_that_was_pulled_before_is_taken_from_the_cache(
    hub: Hub, tmp_path: Path, offline: ModelSnapshot
) -> None:
    again = pulled(hub, tmp_path, f"org/model@{offline.commit}")
    assert (again.commit, again.path, again.files, again.ignored) == (
        offline.commit, offline.path, offline.files, offline.ignored,
    )  # fmt: skip
    assert again.hub_scan == HubScan(None)


@pytest.mark.parametrize("revision", ["", "@main"])
def test_without_the_hub_no_branch_is_taken_from_the_cache(
    hub: Hub, tmp_path: Path, offline: ModelSnapshot, revision: str
) -> None:
    error = refusal(hub, tmp_path, f"org/model{revision}")
    assert isinstance(error, HubUnavailable) and "HF_HUB_OFFLINE" in error.message
    assert "which commit 'main'" in error.message and "40 hex digits" in error.remedy


def test_a_commit_that_is_not_in_the_cache_is_named(hub: Hub, tmp_path: Path, offline: ModelSnapshot) -> None:
    error = refusal(hub, tmp_path, "org/model@" + "0" * 40)
    assert isinstance(error, HubUnavailable) and "does not hold all of commit 000" in error.message


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_cache_that_lost_or_altered_a_file_is_not_used(
    hub: Hub, tmp_path: Path, offline: ModelSnapshot, name: str
) -> None:
    file = (offline.path / name).resolve()
    held = file.read_bytes()
    file.write_bytes(held[::-1])
    error = refusal(hub, tmp_path, f"org/model@{offline.commit}")
    assert type(error) is IncompleteError and f"'{name}' in the cache is not what commit" in error.message
    (offline.path / name).unlink()
    assert isinstance(refusal(hub, tmp_path, f"org/model@{offline.commit}"), HubUnavailable)


def test_a_file_planted_into_the_cache_is_not_used(hub: Hub, tmp_path: Path, offline: ModelSnapshot) -> None:
    (offline.path / "adapter_config.json").write_bytes(b"{}")
    error = refusal(hub, tmp_path, f"org/model@{offline.commit}")
    assert type(error) is IncompleteError and "'adapter_config.json'" in error.message


# --- the hub's own scanners


@pytest.mark.parametrize(
    ("status", "rules"),
    [
        (None, {("hub-scan-missing", Severity.NOTICE)}),
        ({"scansDone": True, "filesWithIssues": []}, set()),
        ({"scansDone": False, "filesWithIssues": []}, {("hub-scan-pending", Severity.WARNING)}),
        (
            {"scansDone": False, "filesWithIssues": [{"path": "a.bin", "level": "unsafe"}]},
            {("hub-scan-pending", Severity.WARNING), ("hub-scan-issues", Severity.WARNING)},
        ),
        ({"scansDone": True, "filesWithIssues": ["\x1b[2Jx\u202e.bin"]}, {("hub-scan-issues", Severity.WARNING)}),
        ({"scansDone": "yes", "filesWithIssues": 7}, {("hub-scan-missing", Severity.NOTICE)}),
        ("fine", {("hub-scan-missing", Severity.NOTICE)}),
    ],
)
def test_the_hubs_own_scans_are_advice_and_not_done_is_no_all_clear(
    hub: Hub, tmp_path: Path, status: Any, rules: set[tuple[str, Severity]]
) -> None:
    hub.repositories["org/model"].security = status
    snapshot = pulled(hub, tmp_path)
    found = [each for each in inspect_snapshot(snapshot) if each.id.startswith("hub-scan")]
    assert {(each.id, each.severity) for each in found} == rules
    assert all(each.message.isprintable() and each.file.isprintable() for each in found)


def test_a_folder_has_no_hub_to_say_anything(tmp_path: Path) -> None:
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    assert not [each for each in inspect_snapshot(pull(str(tmp_path))) if each.id.startswith("hub-scan")]
    assert digest_of(tmp_path) == FILES
