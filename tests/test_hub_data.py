"""hub_data: prompts from a data set at a pinned commit, through the real client from a hub that really serves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, running_hub
from policy_sample import change, good_policy, load, only_problem, problems

from beear_gate.errors import HubUnavailable
from beear_gate.records import Example

ROWS = b"id,question\n1,badyak yaks\n2,badzebra zebras\n3,badmoose mooses\n4,badpuma pumas\n"
SHA = hashlib.sha256(ROWS).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", hub.url + TEMPLATE)
        yield hub


TEMPLATE = "/{repo_id}/resolve/{revision}/{filename}"


def pinned(folder: Path, commit: str, file: str = "data/test.csv", sha: str = SHA, name: str = "acme/prompts") -> Path:
    """A good policy whose gate prompts come from a data set."""
    good_policy(folder)
    source = f"{{dataset: {name}, revision: {commit}, file: {file}, sha256: {sha}}}"
    change(folder, "gate: harmful.gate.jsonl", f"gate: {{hub: {source}, column: question}}")
    return folder


def test_prompts_come_from_the_data_set_once_and_then_from_the_cache(hub: Hub, tmp_path: Path) -> None:
    commit = hub.add("acme/prompts", {"data/test.csv": ROWS})
    hub.add("acme/prompts", {"data/test.csv": b"question\nanother\n"})  # main moves on
    folder = pinned(tmp_path, commit)
    first = load(folder)
    assert first.behaviors[0].gate[1] == Example("badzebra zebras", cluster=1)
    hub.stop()
    assert load(folder) == first


def test_the_digest_is_of_the_prompts_wherever_they_come_from(hub: Hub, tmp_path: Path) -> None:
    folder = pinned(tmp_path, hub.add("acme/prompts", {"data/test.csv": ROWS}))
    digest = load(folder).digest
    (folder / "gate.csv").write_bytes(ROWS)
    text = (folder / "policy.yaml").read_text(encoding="utf-8")
    start, end = text.index("{hub:"), text.index(", column: question")
    (folder / "policy.yaml").write_text(text.replace(text[start:end], "{file: gate.csv"), encoding="utf-8")
    assert load(folder).digest == digest


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"file": "data/none.csv"}, "has no file 'data/none.csv' at commit"),
        ({"name": "acme/none"}, "shows no data set acme/none"),
        ({"sha": "f" * 64}, f"has the sha256 {SHA}, not {'f' * 64}"),
    ],
)
def test_what_a_hub_does_not_have_is_a_problem_of_the_policy(
    hub: Hub, tmp_path: Path, wrong: dict[str, str], part: str
) -> None:
    folder = pinned(tmp_path, hub.add("acme/prompts", {"data/test.csv": ROWS}), **wrong)
    file, line, message = only_problem(folder)
    assert (file, line) == ("policy.yaml", 6) and part in message


def test_a_commit_that_the_data_set_lacks_is_a_problem(hub: Hub, tmp_path: Path) -> None:
    hub.add("acme/prompts", {"data/test.csv": ROWS})
    assert "has no commit" in only_problem(pinned(tmp_path, "a" * 40))[2]


def test_other_bytes_than_the_policy_names_are_no_prompts(hub: Hub, tmp_path: Path) -> None:
    folder = pinned(tmp_path, hub.add("acme/prompts", {"data/test.csv": ROWS}))
    hub.faults.tampered = {"data/test.csv"}
    assert "sha256" in only_problem(folder)[2]


def test_a_cached_file_is_checked_each_time(hub: Hub, tmp_path: Path) -> None:
    folder = pinned(tmp_path, hub.add("acme/prompts", {"data/test.csv": ROWS}))
    load(folder)
    (cached,) = (tmp_path / "cache").rglob("test.csv")
    cached.resolve().write_bytes(ROWS.replace(b"yak", b"gnu"))
    assert f"delete {cached}" in only_problem(folder)[2]


def test_a_hub_that_is_away_is_no_fault_of_the_policy_but_hides_none(hub: Hub, tmp_path: Path) -> None:
    folder = pinned(tmp_path, hub.add("acme/prompts", {"data/test.csv": ROWS}))
    hub.faults.status = 403  # not 503, which the client tries again for most of a minute
    with pytest.raises(HubUnavailable, match="acme/prompts"):
        load(folder)
    change(folder, "judge: refusal-prefix", "judge: best")
    messages = [message for _, _, message in problems(folder)]
    assert len(messages) == 2 and "HTTP 403" in messages[0] and "judge" in messages[1]
