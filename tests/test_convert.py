"""Pickled weights: BLOCKED as they are, and with --convert a copy in safetensors that is looked at anew."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from docker_engine import IMAGE, Use, containers, engine
from gate_runs import Said, assert_refused, call, only_run, read_evidence, row, small_policy
from hub_server import Hub, running_hub
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from safetensors.torch import load_file
from tiny_judges import talking_judge

from beear_gate.artifacts import inspect_snapshot
from beear_gate.attest import attest
from beear_gate.errors import IncompleteError, UnsupportedModel, UsageError
from beear_gate.gate import run_gate
from beear_gate.hub import pull
from beear_gate.lm.pickles import rewrite_pickle
from beear_gate.manifest import hash_files
from beear_gate.policy_files import load_policy
from beear_gate.records import Verdict
from beear_gate.request import Request, Sandbox
from beear_gate.rundir import RunDirectory
from beear_gate.sandbox import may_be_converted
from beear_gate.sandbox.convert import with_pickles

__all__ = ["engine"]

Scan = Callable[..., Said]
INDEX = "pytorch_model.bin.index.json"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """An audit by a judge that the scan loads, and that lies beside the policy."""
    file = small_policy(tmp_path / "policy", remediation={"when": "never"})
    talking_judge(tmp_path / "policy" / "judge", "Yes", "No")
    document = yaml.safe_load(file.read_text())
    document["behaviors"][0] |= {
        "judge": {"name": "classifier", "model": "./judge", "style": "harmbench"},
        "limit": {"max_rate": 0.2, "max_incoherent": 1.0},
    }
    file.write_text(yaml.safe_dump(document))
    return file


@pytest.fixture
def scan(policy: Path, tiny_model: Path, tmp_path: Path, mlflow_uri: str) -> Scan:
    def scan(*arguments: object) -> Said:
        return call(
            "scan", tiny_model, "--policy", policy, "--runs", tmp_path / "runs", "--device", "cpu",
            "--tracking-uri", mlflow_uri, *arguments,
        )  # fmt: skip

    return scan


def sandbox(*more: str) -> tuple[str, ...]:
    return ("--sandbox", "docker", "--sandbox-image", IMAGE, "--convert", *more)


def pickled(folder: Path, **more: Any) -> dict[str, torch.Tensor]:
    """The same weights as one pickle, and nothing else; returns them."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({**tensors, **more}, folder / "pytorch_model.bin")
    return tensors


def sharded(folder: Path) -> dict[str, torch.Tensor]:
    """The same weights as two pickles with an index, the output head sharing the embeddings' memory."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    first = {name for name in tensors if "layers" not in name}
    files = {f"pytorch_model-0000{n}-of-00002.bin": part for n, part in ((1, first), (2, tensors.keys() - first))}
    for file, names in files.items():
        torch.save({name: tensors[name] for name in names}, folder / file)
    places = {name: file for file, names in files.items() for name in names}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return tensors


@pytest.fixture
def hub(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that holds the tiny model in pickles alone."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    sharded(tiny_model)
    with running_hub() as hub:
        hub.add("org/model", {file.name: file.read_bytes() for file in tiny_model.iterdir()})
        yield hub


# --- scans


def test_without_convert_pickles_are_blocked_with_the_way_out(scan: Scan, tiny_model: Path, tmp_path: Path) -> None:
    pickled(tiny_model)
    assert scan().code == 1
    (found,) = [each for each in read_evidence(only_run(tmp_path / "runs"))["findings"] if each["severity"] == "block"]
    assert found["id"] == "pickle-weights" and "--sandbox docker --convert" in found["remedy"]


def test_convert_needs_the_sandbox(scan: Scan) -> None:
    assert_refused(scan("--convert"), 2, "--sandbox docker")


def test_pickles_are_converted_in_the_sandbox_and_the_copy_is_inspected_judged_and_signed(
    hub: Hub, policy: Path, tiny_model: Path, tmp_path: Path, mlflow_uri: str, engine: Use
) -> None:
    shards = hash_files(tiny_model, [file.name for file in tiny_model.glob("*.bin")])
    tensors = {name: tensor for file in shards for name, tensor in torch.load(tiny_model / file.path).items()}
    asked = Request("org/model", load_policy(policy), endpoint=hub.url, device="cpu", tracking_uri=mlflow_uri)
    asked = replace(asked, sandbox=Sandbox(image=IMAGE), convert=True)
    report = run_gate(asked, RunDirectory.create(tmp_path / "runs", "org/model"))
    run = only_run(tmp_path / "runs")
    assert report.decision.verdict is Verdict.PASS, report.decision
    assert not containers() and not (run / "pickles").exists() and not list(run.glob(".sandbox*"))
    copy = run / "converted"
    assert not list(copy.glob("*.bin")) and not (copy / INDEX).exists()
    made = {name: tensor for file in copy.glob("*.safetensors") for name, tensor in load_file(file).items()}
    assert made.keys() == tensors.keys() and all(torch.equal(made[name], tensors[name]) for name in tensors)

    evidence = read_evidence(run)
    schema = json.loads((Path(__file__).parent.parent / "docs" / "evidence.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(evidence)
    assert evidence["commit"] == hub.repositories["org/model"].refs["main"]  # of what the user named
    snapshot = pull(str(copy))
    digests = {file.path: file.sha256 for file in snapshot.files}
    assert evidence["converted"]["commit"] == snapshot.commit
    assert [(row["source"], row["source_sha256"]) for row in evidence["converted"]["files"]] == [
        (file.path, file.sha256) for file in shards
    ]
    assert all(row["target_sha256"] == digests[row["target"]] for row in evidence["converted"]["files"])
    assert not [each for each in evidence["findings"] if each["severity"] == "block"]
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert all(file.sha256 in page for file in shards)
    # The judge was asked inside, and none of its answers is missing here.
    asr = row(evidence, behavior="harm", metric="asr", judge="classifier:harmbench:judge")
    assert (asr["n"], asr["unscored"]) == (20, 0)

    assert attest(run, "signed", lambda data: data.decode()).files == len(snapshot.files)
    statement = json.loads((run / "attestation" / "signed").read_text())
    assert {each["name"]: each["digest"]["sha256"] for each in statement["subject"]} == digests


def test_pickles_that_hold_more_than_weights_stay_blocked(
    scan: Scan, tiny_model: Path, tmp_path: Path, engine: Use
) -> None:
    pickled(tiny_model, epoch=3)
    assert scan(*sandbox()).code == 1
    findings = {each["id"]: each["message"] for each in read_evidence(only_run(tmp_path / "runs"))["findings"]}
    assert "pickle-weights" in findings and "more than plain tensors: 'epoch'" in findings["pickle-unconverted"]


def test_a_pickle_that_scanners_call_dangerous_reaches_no_container(
    scan: Scan, tiny_model: Path, tmp_path: Path, engine: Use
) -> None:
    (tiny_model / "model.safetensors").unlink()

    class Call:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("true",)

    (tiny_model / "pytorch_model.bin").write_bytes(pickle.dumps({"w": Call()}))
    assert scan(*sandbox()).code == 1
    run = only_run(tmp_path / "runs")
    assert "pickle-dangerous" in {each["id"] for each in read_evidence(run)["findings"]}
    assert not (run / "convert.json").exists()


# --- pickles of a hub


def test_pickles_of_a_hub_are_pulled_beside_the_rest_and_read_by_the_scanners(hub: Hub, tmp_path: Path) -> None:
    snapshot = pull("org/model", None, tmp_path / "cache", endpoint=hub.url)
    assert may_be_converted(inspect_snapshot(snapshot))
    found = with_pickles(snapshot, 1.0, tmp_path / "pickles", hub.url)
    assert found.files == snapshot.files and found.commit == snapshot.commit
    assert sorted(name for name in found.ignored if name.endswith(".bin")) == [
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
    ]
    assert all((found.path / name).is_file() for name in found.ignored if name.endswith(".bin"))
    assert {each.id for each in inspect_snapshot(found) if each.blocks} == {"pickle-weights"}


def test_pickles_that_are_not_what_the_hub_lists_are_refused(hub: Hub, tmp_path: Path) -> None:
    snapshot = pull("org/model", None, tmp_path / "cache", endpoint=hub.url)
    hub.faults.tampered.add("pytorch_model-00002-of-00002.bin")
    with pytest.raises(IncompleteError, match="is not what the hub lists"):
        with_pickles(snapshot, 1.0, tmp_path / "pickles", hub.url)


def test_pickles_count_in_what_may_be_pulled(hub: Hub, tmp_path: Path) -> None:
    snapshot = pull("org/model", None, tmp_path / "cache", endpoint=hub.url)
    with pytest.raises(UsageError, match="may be pulled"):
        with_pickles(snapshot, 0.0001, tmp_path / "pickles", hub.url)


# --- what runs inside


def test_tensors_keep_names_dtypes_and_values_and_share_nothing(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {"a": base, "tied": base, "part": base[1:], "turned": base.T, "half": base.half(), "count": torch.tensor(3)}
    torch.save(state, tmp_path / "pytorch_model.bin")
    rewrite_pickle(tmp_path / "pytorch_model.bin", tmp_path / "model.safetensors")
    made = load_file(tmp_path / "model.safetensors")
    assert made.keys() == state.keys()
    assert all(torch.equal(made[name], state[name]) and made[name].dtype == state[name].dtype for name in state)


def test_files_from_before_archives_are_read_too(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    rewrite_pickle(tmp_path / "old.bin", tmp_path / "model.safetensors")
    assert torch.equal(load_file(tmp_path / "model.safetensors")["a"], torch.ones(3))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.ones(2)], "no mapping of names"),
        ({}, "no mapping of names"),
        ({"state_dict": {"a": torch.ones(2)}}, "more than plain tensors: 'state_dict'"),
        ({3: torch.ones(2)}, "more than plain tensors: '3'"),
        ({"a": torch.eye(2).to_sparse()}, "more than plain tensors: 'a'"),
        ({"a": Path("x")}, "does not take"),
    ],
)
def test_what_is_no_mapping_of_names_to_tensors_is_refused(content: object, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(UnsupportedModel, match=words):
        rewrite_pickle(tmp_path / "pytorch_model.bin", tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()


def test_what_is_no_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04 no pickle")
    with pytest.raises(UnsupportedModel, match="does not take"):
        rewrite_pickle(tmp_path / "pytorch_model.bin", tmp_path / "model.safetensors")
