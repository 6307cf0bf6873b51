"""What cannot be scanned: one clear sentence on stderr, the right exit code, no traceback, and nothing lost."""

from __future__ import annotations

import json
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Scan
from gate_runs import Said, assert_refused, call, closed_port, only_run, read_evidence, small_policy, spawn
from hub_server import running_hub
from model_families import edit_json
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM

WEIGHTS = "model.safetensors"
Edit = Callable[[Path], object]


def assert_blocked(said: Said, tmp_path: Path, *words: str) -> None:
    """A verdict on the files alone: nothing was loaded, and the evidence says why."""
    assert said.code == 1 and "Traceback" not in said.err, said
    run = only_run(tmp_path / "runs")
    evidence = read_evidence(run)
    assert evidence["verdict"] == "BLOCKED" and evidence["measurements"] == []
    assert not (run / "before.json").exists()
    for word in words:
        assert word in said.out and any(word in reason for reason in evidence["reasons"])


# Where the model is


def test_a_folder_that_is_not_there(scan: Scan, tiny_model: Path) -> None:
    assert_refused(scan(tiny_model.with_name("tinny")), 2, "There is no folder", "Did you mean", "tiny")


def test_a_folder_without_a_configuration(scan: Scan, tiny_model: Path) -> None:
    (tiny_model / "config.json").unlink()
    assert_refused(scan(tiny_model), 2, "no model folder", "config.json")


def test_a_misspelt_name_on_the_hub(tmp_path: Path) -> None:
    with running_hub() as hub:
        hub.add("acme/helpful", {"config.json": b"{}"})
        env = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "cache")}
        said = spawn("inspect", "acme/hepful", cwd=tmp_path, env=env)
    assert_refused(said, 2, "acme/hepful")
    assert said.out == ""


def test_a_hub_that_does_not_answer(tmp_path: Path) -> None:
    policy = small_policy(tmp_path / "policy")
    env = {"HF_ENDPOINT": f"http://127.0.0.1:{closed_port()}", "HF_HUB_CACHE": str(tmp_path / "cache")}
    said = spawn("scan", "acme/helpful", "--policy", policy, "--quiet", cwd=tmp_path, env=env)
    assert_refused(said, 3, "127.0.0.1")


# What the files are


class Opened:
    """What a pickle does that somebody loads."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return (Path.touch, (self.proof,))


_imported: list[str] = []
sys.addaudithook(lambda event, rest: _imported.append(str(rest[1])) if event == "pickle.find_class" else None)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_weights_only_as_a_pickle_are_never_loaded(scan: Scan, tiny_model: Path, tmp_path: Path, name: str) -> None:
    (tiny_model / WEIGHTS).unlink()
    (tiny_model / name).write_bytes(pickle.dumps(Opened(tmp_path / "proof")))
    _imported.clear()
    # Both by name and by what picklescan read in it, in a process of its own.
    assert_blocked(scan(tiny_model), tmp_path, name, "no safetensors weights", "Path.touch")
    assert "Path" not in _imported and "PosixPath" not in _imported
    assert not (tmp_path / "proof").exists()


def truncate(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def lie_about_offsets(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    first = next(name for name in header if name != "__metadata__")
    header[first]["data_offsets"][1] += 10**9
    encoded = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(encoded)) + encoded + data[8 + length :])


def lie_about_length(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", 2**60) + (folder / WEIGHTS).read_bytes()[8:])


@pytest.mark.parametrize("damage", [truncate, lie_about_offsets, lie_about_length])
def test_a_safetensors_file_that_is_not_what_it_says(
    scan: Scan, tiny_model: Path, tmp_path: Path, damage: Edit
) -> None:
    damage(tiny_model)
    assert_blocked(scan(tiny_model), tmp_path, WEIGHTS)


def test_a_configuration_that_names_code(scan: Scan, tiny_model: Path, tmp_path: Path) -> None:
    edit_json(tiny_model / "config.json", auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
    (tiny_model / "modeling_evil.py").write_text(f"open({str(tmp_path / 'proof')!r}, 'w')")
    assert_blocked(scan(tiny_model), tmp_path, "auto_map", "modeling_evil")
    assert not (tmp_path / "proof").exists()


def test_a_model_without_a_chat_template_goes_on_with_a_notice(scan: Scan, tiny_model: Path, tmp_path: Path) -> None:
    (tiny_model / "chat_template.jinja").unlink()
    said = scan(tiny_model, "--no-remediate")
    evidence = read_evidence(only_run(tmp_path / "runs"))
    assert said.code in (1, 3) and evidence["measurements"]
    assert [(each["id"], each["severity"]) for each in evidence["findings"]] == [("no-chat-template", "notice")]


def test_an_encoder_is_no_model_that_answers(scan: Scan, tiny_model: Path) -> None:
    config = BertConfig(
        vocab_size=400, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    (tiny_model / "generation_config.json").unlink()
    BertForMaskedLM(config).save_pretrained(tiny_model)
    assert_refused(scan(tiny_model), 3, "BertForMaskedLM", "not a decoder-only language model")


@pytest.mark.parametrize("method", ["fp8", "gptq"])
def test_quantised_weights_cannot_be_trained(scan: Scan, tiny_model: Path, method: str) -> None:
    edit_json(tiny_model / "config.json", quantization_config={"quant_method": method, "bits": 8})
    assert_refused(scan(tiny_model), 3, method, "quantised", "cannot be trained")


def test_weights_that_are_not_finite_never_pass(scan: Scan, tiny_model: Path, tmp_path: Path) -> None:
    held = load_file(tiny_model / WEIGHTS)
    name = next(name for name in held if "mlp" in name)
    save_file({**held, name: torch.full_like(held[name], float("nan"))}, tiny_model / WEIGHTS, {"format": "pt"})
    said = scan(tiny_model)
    assert said.code in (1, 3) and "Traceback" not in said.err and "Unexpected" not in said.err, said


# What the policy says


def test_every_problem_of_a_policy_is_named_with_file_and_line(tiny_model: Path, tmp_path: Path) -> None:
    policy = small_policy(tmp_path / "policy", surprise=1)
    text = policy.read_text().replace("max_rate: 0.2", "max_rate: 0.001\n    colour: blue")
    policy.write_text(text)
    anchor, gate = tmp_path / "policy" / "harmful.anchor.jsonl", tmp_path / "policy" / "harmful.gate.jsonl"
    gate.write_text(gate.read_text() + anchor.read_text().splitlines()[0] + "\n")
    said = call("scan", tiny_model, "--policy", policy, "--runs", tmp_path / "runs")
    assert said.code == 2 and "Traceback" not in said.err
    assert "surprise" in said.err and "colour" in said.err
    assert f"{policy}:" in said.err and not (tmp_path / "runs").exists()
    policy.write_text(text.replace("\n    colour: blue", "").replace("surprise: 1", ""))
    said = call("scan", tiny_model, "--policy", policy, "--runs", tmp_path / "runs")
    assert said.code == 2 and "3 problems" not in said.err
    assert f"{gate}:21" in said.err, "the prompt that is in two splits"
    assert "2995" in said.err, "the number of prompts that could prove 0.1 %"


def test_a_policy_that_is_not_there(tiny_model: Path, tmp_path: Path) -> None:
    said = call("scan", tiny_model, "--policy", tmp_path / "no.yaml", "--runs", tmp_path / "runs")
    assert_refused(said, 2, "no.yaml")


def test_a_policy_with_few_anchor_prompts_is_enough_to_remediate(scan: Scan, tiny_model: Path, tmp_path: Path) -> None:
    anchor = tmp_path / "policy" / "harmful.anchor.jsonl"
    anchor.write_text("".join(f"{line}\n" for line in anchor.read_text().splitlines()[:10]))
    assert scan(tiny_model).code in (0, 1)
