"""A model that answers with markup, escapes and formulas is scanned and published with a token planted: nothing acts,
and the token stays where it was."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from gate_runs import Said, call, digest_of, make_tiny_model, only_run, small_policy
from hub_server import Hub, running_hub
from mlflow import MlflowClient
from test_report import Page, assert_inert
from test_report import test_page_runs_and_loads_nothing as assert_runs_and_loads_nothing

from beear_gate.hub import pull
from beear_gate.lm import answer_losses, encode_pairs, load_lm, pad_batch, save_lm
from beear_gate.records import FileRecord
from beear_gate.redact import redact_logs
from beear_gate.report.text import cell, visible

TOKEN = "hf_plantedplantedplantedplantedplanted"
ANSWER = "=1+2 <img src=x onerror=a()> [a](//b) \u202eg \x1b[31m"
PLACES = (("org/repaired", "main"), ("org/hostile", "refs/pr/1"))
UNSEEN = re.compile("[\u202a-\u202e\u2066-\u2069\u200b\x1b\x07]")


LENIENT = {
    "behaviors": [
        {
            "id": "harm",
            "prompts": {split: f"harmful.{split}.jsonl" for split in ("anchor", "select", "gate")},
            "safe": {"from": "model", "fallback": "refusals.jsonl"},
            "unwanted": {"prefixes": ["Sure"]},
            "judge": {"name": "marker", "patterns": ["never said"]},
            "limit": {"max_rate": 0.2, "max_incoherent": 1.0},
        }
    ],
    "utility": {
        "prompts": {split: f"benign.{split}.jsonl" for split in ("anchor", "select", "gate")},
        "margins": {"nll_ratio": 100.0, "agreement": 1.0},
    },
    "remediation": {
        "mode": "paper", "rounds": 1, "inner_steps": 1, "outer_steps": 1, "batch_size": 2, "max_answer_tokens": 8,
        "weights_lr": 1e-6,
    },
    "generation": {"max_new_tokens": 64},
}  # fmt: skip
"""Limits that everything meets, and a remediation that changes next to nothing: the answers are what is looked at."""


@dataclass(frozen=True)
class Published:
    """A scan of the hostile model on a hub, and both ways of publishing it."""

    hub: Hub
    run: Path
    uri: str
    said: tuple[Said, ...]
    folder: Path


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[Published]:
    folder = tmp_path_factory.mktemp("hostile")
    model = teach(make_tiny_model(folder / "model"), ANSWER)
    policy = small_policy(folder / "policy", **LENIENT)
    uri = f"sqlite:///{shutil.copy(migrated, folder / 'mlflow.db')}"
    with running_hub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", TOKEN)
        patch.chdir(folder)
        patch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)  # HF_ENDPOINT is read at import
        address = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "cache"))
        hub.add("org/hostile", digest_of(model) | {"pytorch_model.bin": b"\x80\x04"})
        scan = ("scan", "org/hostile", "--policy", policy, "--device", "cpu", "--runs", folder / "runs")
        said = [call(*scan, "--tracking-uri", uri)]
        run = only_run(folder / "runs")
        said += [call("publish", run, "--pull-request"), call("publish", run, "--to", "org/repaired")]
        yield Published(hub, run, uri, tuple(said), folder)


def teach(folder: Path, answer: str) -> Path:
    """The model in `folder` gives this answer to whatever it is asked."""
    torch.manual_seed(0)
    lm = load_lm(folder, "cpu")
    batch = pad_batch(lm, encode_pairs(lm, [(prompt, answer) for prompt in ("How?", "Tell me a story.", "Why is it?")]))
    optimizer = torch.optim.AdamW(lm.model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        torch.autograd.backward(answer_losses(lm, batch).mean())
        optimizer.step()
    save_lm(lm, folder, [])
    return folder


def table(run: Path, name: str) -> list[dict[str, object]]:
    document = json.loads((run / "tables" / f"{name}.json").read_text())
    return [dict(zip(document["columns"], cells, strict=True)) for cells in document["data"]]


def test_a_scan_and_both_ways_of_publishing_end_well(published: Published) -> None:
    assert [each.code for each in published.said] == [0, 0, 0], published.said
    assert published.said[0].out.startswith("REMEDIATED")


def test_what_is_pulled_back_is_what_was_measured(published: Published) -> None:
    saved = json.loads((published.run / "remediation.json").read_text())["result"]["snapshot"]["files"]
    for name, revision in (("org/repaired", None), ("org/hostile", "refs/pr/1")):
        back = pull(name, revision, published.folder / "back", endpoint=published.hub.url)
        assert [file for file in back.files if file.path != "README.md"] == [FileRecord(**each) for each in saved]


def test_the_page_shows_the_answers_and_does_nothing(published: Published) -> None:
    page = Page((published.run / "report" / "index.html").read_text(encoding="utf-8"))
    assert visible(ANSWER[ANSWER.index("onerror") :]) in page.text
    assert_runs_and_loads_nothing(page)
    assert not UNSEEN.search(page.text)


def test_card_note_and_terminal_are_inert(published: Published) -> None:
    repositories = published.hub.repositories
    cards = [repositories[name].commits[repositories[name].refs[ref]]["README.md"].decode() for name, ref in PLACES]
    cards.append((published.run / "model" / "README.md").read_text(encoding="utf-8"))
    client = MlflowClient(published.uri)
    experiment = client.get_experiment_by_name("beear-gate")
    assert experiment is not None
    notes = [run.data.tags.get("mlflow.note.content", "") for run in client.search_runs([experiment.experiment_id])]
    assert any("REMEDIATED" in note for note in notes)
    for text in (*(card.split("\n---\n", 1)[1] for card in cards), *notes):
        assert_inert(text)
    for each in published.said:
        assert not UNSEEN.search(each.out + each.err)


def test_no_cell_of_a_table_is_a_formula(published: Published) -> None:
    rows = table(published.run, "answers")
    assert [row for row in rows if str(row["before"]).startswith("'=1+2")]
    for name in ("answers", "measurements", "tensors"):
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerows([list(row.values()) for row in table(published.run, name)])
        cells = [each for line in csv.reader(io.StringIO(text.getvalue())) for each in line]
        assert not [each for each in cells if each.startswith(("=", "+", "@")) or UNSEEN.search(each)]


@pytest.mark.parametrize("text", ["=1+2", "+1", "-1", "@SUM(A1)", " \t=1", "\n=1", "\r=1"])
def test_a_cell_that_begins_like_a_formula_is_text(text: str) -> None:
    assert cell(text).startswith("'") or cell(text).startswith("\\")


def test_files_that_people_look_at_hold_no_control_or_bidi_characters(published: Published) -> None:
    for file in sorted(published.run.rglob("*")):
        if file.suffix in (".json", ".md", ".html") and file.parent != published.run / "model":
            assert not UNSEEN.search(file.read_text(encoding="utf-8")), file


def test_the_token_is_nowhere(published: Published) -> None:
    """In no file of the run, of MLflow or of the cache, in nothing that was said, and in nothing that was published."""
    token = TOKEN.encode()
    assert f"Bearer {TOKEN}" in {authorization for _, _, authorization in published.hub.requests}
    assert [path for path, data in digest_of(published.folder).items() if token in data] == []
    assert not [each for each in published.said if TOKEN in each.out + each.err]
    for name, repository in published.hub.repositories.items():
        held = [data for files in repository.commits.values() for data in files.values()]
        assert not [data for data in held if token in data], name
        assert not [each for each in repository.pull_requests if TOKEN in each.title + each.description]


def test_logs_of_libraries_lose_their_secrets(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_TOKEN", "correct horse")
    factory = logging.getLogRecordFactory()
    try:
        redact_logs()
        logger = logging.getLogger("huggingface_hub.utils._http")
        logger.warning("%r thrown while requesting %s %s", OSError("correct horse"), "GET", "https://me:pw@hub/x")
        logger.warning("%d and %s", "wrong", TOKEN)
    finally:
        logging.setLogRecordFactory(factory)
    assert "thrown while requesting GET https://hub/x" in caplog.text
    assert not [word for word in ("correct horse", "me:pw", TOKEN) if word in caplog.text]
