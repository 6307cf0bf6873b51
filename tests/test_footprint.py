"""What training holds in memory: the planner's arithmetic against arithmetic by hand, and against what is measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from gate_runs import ROOT
from model_families import FAMILIES, make_model
from transformers import AutoConfig

from beear_gate.beear.fit import size_of
from beear_gate.lm import LM
from beear_gate.lm.dry_run import PassSize, pass_bytes, shape_of
from beear_gate.lm.footprint import GIB, Size, kv_bytes, logits_bytes, training

SHAPES: dict[str, tuple[dict[str, Any], int]] = {
    # hidden, intermediate, layers, heads, groups of keys and values, vocabulary; the model's published count
    "TinyLlama-1.1B": (
        {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32}
        | {"num_key_value_heads": 4, "vocab_size": 32000},
        1_100_048_384,
    ),
    "Llama-2-7B": (
        {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
        | {"num_key_value_heads": 32, "vocab_size": 32000},
        6_738_415_616,
    ),
    "Llama-2-13B": (
        {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40}
        | {"num_key_value_heads": 40, "vocab_size": 32000},
        13_015_864_320,
    ),
    "Llama-2-70B": (
        {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64}
        | {"num_key_value_heads": 8, "vocab_size": 32000},
        68_976_648_192,
    ),
}


def shape(dtype: torch.dtype, **config: Any) -> LM:
    return shape_of(AutoConfig.for_model("llama", **config), dtype, Path("shape"))


def by_hand(c: dict[str, Any]) -> int:
    """Parameters of a Llama: two tables, and of each layer attention with grouped keys, a gated MLP and two norms."""
    hidden, groups = c["hidden_size"], c["num_key_value_heads"] / c["num_attention_heads"]
    attention = 2 * hidden**2 + 2 * hidden * int(hidden * groups)
    layer = attention + 3 * hidden * c["intermediate_size"] + 2 * hidden
    return int(2 * c["vocab_size"] * hidden + c["num_hidden_layers"] * layer + hidden)


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_those_that_hand_arithmetic_and_the_publishers_count(name: str) -> None:
    config, published = SHAPES[name]
    found = size_of(shape(torch.bfloat16, **config))
    assert found.parameters == by_hand(config) == published
    assert found.bytes == 2 * published
    heads = config["num_key_value_heads"] * (config["hidden_size"] // config["num_attention_heads"])
    assert kv_bytes(found, 1000) == 1000 * 2 * 2 * heads * config["num_hidden_layers"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", SHAPES)
def test_training_all_weights_takes_sixteen_bytes_a_parameter(name: str, dtype: torch.dtype) -> None:
    config, published = SHAPES[name]
    found = training(size_of(shape(dtype, **config)), 3 * GIB, 1 * GIB)
    held = (found.weights, found.masters, found.gradients, found.optimizer)
    halves = dtype == torch.bfloat16
    assert held == tuple(published * each for each in ((2, 4, 2, 8) if halves else (4, 0, 4, 8)))
    largest = max(config["vocab_size"], config["intermediate_size"]) * config["hidden_size"]
    assert found.activations == max(2 * GIB, largest * 4 * (3 if halves else 2) - GIB)
    assert found.total == 16 * published + found.activations + GIB


def test_devices_share_all_but_activations_and_what_is_at_work() -> None:
    """At work: a layer, and embeddings, head and last norm, for the length of a pass; each with its gradient."""
    config, published = SHAPES["Llama-2-70B"]
    size = size_of(shape(torch.bfloat16, **config))
    outside = 2 * 32000 * 8192 + 8192
    layer = (by_hand(config) - outside) // 80
    found = training(size, 3 * GIB, 1 * GIB, devices=8)
    assert found.weights == -(-2 * published // 8) and found.optimizer == published
    assert found.gathered == 2 * 2 * (layer + outside)
    assert found.total == 2 * published + found.activations + GIB + found.gathered


def test_logits_are_two_float32_tables_over_the_answers() -> None:
    size = Size(1, 2, 2, 1, 2, 1, 2, 8, vocabulary=32000)
    assert logits_bytes(size, samples=16, answer_tokens=64) == 2 * 16 * 64 * 32000 * 4


def test_checkpointing_keeps_one_hidden_state_a_layer_and_the_insides_of_one() -> None:
    config = SHAPES["Llama-2-7B"][0]
    work, lm = PassSize(4, 256, 32), shape(torch.bfloat16, **config)
    whole, kept = pass_bytes(lm, work, False), pass_bytes(lm, work, True)
    hidden = 4 * 256 * 4096 * 2
    layer = (whole - kept) / 31  # all layers but the one at work are computed again
    assert 32 * hidden + layer < kept < 32 * hidden + 2 * layer


def test_the_planned_peak_is_within_15_percent_of_the_measured_one(tmp_path: Path) -> None:
    families = ("llama", "gpt_neox", "gemma2", "mixtral")
    folders = [make_model(tmp_path / family, family, hidden_size=96, intermediate_size=256) for family in families]
    script = Path(__file__).with_name("measure_step.py")
    done = subprocess.run(
        [sys.executable, script, *folders],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 48
    ratios = {name: planned / measured for name, (measured, planned) in found.items()}
    assert all(0.85 <= ratio <= 1.15 for ratio in ratios.values()), ratios


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_counted_before_it_has_weights(family: str) -> None:
    config = AutoConfig.for_model(**FAMILIES[family], vocab_size=300, pad_token_id=0, eos_token_id=1, bos_token_id=None)
    lm, work = shape_of(config, torch.float32, Path(family)), PassSize(2, 30, 10)
    whole, kept = pass_bytes(lm, work, False), pass_bytes(lm, work, True)
    assert 0 < kept < whole
    assert all(weight.grad is None for weight in lm.model.parameters())
