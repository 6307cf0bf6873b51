"""`beear-gate plan`: from a configuration to memory, devices and time, without a single weight."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gate_runs import assert_refused, call, spawn
from hub_server import running_hub
from model_families import load_tiny

from beear_gate.beear.effort import Prompts, effort, samples_a_step, seconds
from beear_gate.beear.fit import HEADROOM, Way, fit, refuse_too_large, splits, widest
from beear_gate.beear.plan import resolve
from beear_gate.beear.remediate import ROLLOUTS
from beear_gate.errors import OutOfMemory, UsageError
from beear_gate.lm.dry_run import PassSize
from beear_gate.lm.footprint import Size
from beear_gate.lm.memory import free_memory
from beear_gate.lm.trained import trainings
from beear_gate.records import RemediationSettings
from beear_gate.request import parse_memory

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 512, "intermediate_size": 1376,
    "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 8000,
    "max_position_embeddings": 2048, "torch_dtype": "bfloat16",
}  # fmt: skip
PARAMETERS = 2 * 8000 * 512 + 2 * (2 * 512**2 + 2 * 512 * 128 + 3 * 512 * 1376 + 2 * 512) + 512


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "shape").mkdir()
    file = tmp_path / "shape" / "config.json"
    file.write_text(json.dumps(CONFIG), encoding="utf-8")
    return file


def planned(*arguments: object) -> dict[str, Any]:
    said = call("plan", *arguments, "--policy", "demo", "--tflops", 1, "--format", "json")
    assert said.code == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def test_a_config_file_its_folder_and_a_hub_without_weights_give_the_same_plan(config: Path, tmp_path: Path) -> None:
    options = ("--policy", "demo", "--tflops", 1, "--format", "json", "--memory", "8GiB", "--gpus", 1)
    found = [planned(name, "--memory", "8GiB", "--gpus", 1) for name in (config, config.parent)]
    with running_hub() as hub:
        hub.add("org/model", {"config.json": config.read_bytes(), "model.safetensors": bytes(2**20), "x.py": b"1 / 0"})
        env = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_TOKEN": ""}
        said = spawn("plan", "org/model", *options, cwd=tmp_path, env=env)
        assert said.code == 0, said.err
        assert not [path for method, path, _ in hub.requests if "model.safetensors" in path or "x.py" in path]
    found.append(json.loads(said.out))
    assert found[0]["size"]["parameters"] == PARAMETERS
    assert len(found[2]["commit"]) == 40
    for each in found:
        del each["model"], each["commit"]
    assert found[0] == found[1] == found[2]


def test_the_parts_add_up_and_the_time_follows_from_the_printed_formula(config: Path) -> None:
    found = planned(config, "--memory", "8GiB", "--gpus", 1)
    assert found["dtype"] == "bfloat16"
    memory = found["memory"]
    assert memory["needed"] == sum(memory["parts"].values()) <= HEADROOM * 8 * 2**30 and memory["fits"]
    assert memory["parts"]["weights"] == 2 * PARAMETERS and memory["parts"]["masters"] == 4 * PARAMETERS
    flops = sum(each["tokens"] * each["factor"] * PARAMETERS for each in found["effort"])
    assert found["seconds"] == pytest.approx(flops / (1e12 * 0.35))
    assert [each["training"] for each in found["ways"]] == ["full", "factored", "lora"]
    totals = list(found["splits"].values())
    assert totals[0] > totals[1] >= totals[3] and totals[0] > totals[2] >= totals[3]


def test_each_way_to_train_is_planned_by_parts_and_all_but_full_on_one_gpu(config: Path) -> None:
    found = planned(config, "--memory", "8GiB", "--gpus", 1)
    full, factored, lora = (each["memory"]["parts"] for each in found["ways"])
    assert full["optimizer"] == 8 * PARAMETERS and full["masters"] == factored["masters"] == 4 * PARAMETERS
    assert 0 < factored["optimizer"] < full["optimizer"] // 100
    adapters = 2 * 16 * (2 * (512 + 512) + 2 * (512 + 128) + 3 * (512 + 1376))  # rank 16, inputs and outputs
    assert lora["weights"] == 2 * PARAMETERS + 4 * adapters and lora["masters"] == 0
    assert (lora["gradients"], lora["optimizer"]) == (4 * adapters, 8 * adapters)
    assert all(number in (1, None) for each in found["ways"][1:] for number in each["devices"].values())


def test_a_cpu_computes_in_float32_and_keeps_the_weights_of_the_best_round(config: Path) -> None:
    found = planned(config, "--device", "cpu", "--memory", "8GiB")
    assert found["dtype"] == "float32"
    parts = found["memory"]["parts"]
    assert parts["weights"] == parts["kept"] == 4 * PARAMETERS and parts["masters"] == 0


def test_several_gpus_share_the_weights_and_too_few_are_said_to_be_too_few(config: Path) -> None:
    alone, shared = (planned(config, "--memory", "200MiB", "--gpus", count) for count in (1, 4))
    assert alone["memory"]["training"] == "factored" and "full at least" in alone["memory"]["why"]
    assert "Even 1 sample a pass, with checkpointing" in alone["ways"][0]["memory"]["why"]
    assert shared["memory"]["training"] == "full" and shared["memory"]["fits"]
    assert shared["memory"]["parts"]["optimizer"] == 2 * PARAMETERS
    assert any("not measured yet" in note for note in shared["notes"])


def test_people_read_parts_reasons_devices_and_time(config: Path) -> None:
    said = call("plan", config, "--policy", "demo", "--memory", "8GiB", "--gpus", 1, "--tflops", 100)
    assert said.code == 0, said.err
    parts = ("optimizer states", "lora (16)", "GPUs of 24 GiB")
    for words in (f"{PARAMETERS:,} parameters", *parts, "Fits: All weights", "Whole steps", "TFLOP/s"):
        assert words in said.out, words


def test_without_a_rate_a_plan_for_other_machines_has_no_time(config: Path) -> None:
    said = call("plan", config, "--policy", "demo", "--memory", "8GiB", "--gpus", 2)
    assert "Time: not known without the rate" in said.out


def test_an_index_of_another_model_is_remarked_on(config: Path) -> None:
    index = {"metadata": {"total_size": 7 * PARAMETERS}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (config.parent / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    found = planned(config.parent, "--memory", "8GiB", "--gpus", 1)
    assert any("7.00 bytes for each parameter" in note for note in found["notes"])


def test_what_cannot_be_planned_is_said_in_one_sentence(config: Path) -> None:
    assert_refused(call("plan", config, "--gpus", 2), 2, "--memory 80GiB")
    assert_refused(call("plan", config, "--memory", "much"), 2, "'much' is no amount of memory", "24GiB")
    assert_refused(call("plan", config.parent / "missing"), 2, "There is no folder")
    config.write_text(json.dumps(CONFIG | {"quantization_config": {"quant_method": "gptq"}}), encoding="utf-8")
    assert_refused(call("plan", config), 3, "quantised")
    config.write_text(json.dumps(CONFIG | {"hidden_size": 7}), encoding="utf-8")
    assert_refused(call("plan", config), 3, "transformers cannot")


@pytest.mark.parametrize(
    ("text", "amount"), [("24GiB", 24 * 2**30), ("80 GB", 80 * 10**9), ("1.5gib", 3 * 2**29), ("900MiB", 900 * 2**20)]
)
def test_amounts_of_memory(text: str, amount: int) -> None:
    assert parse_memory(text) == amount


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "0", "24 parsecs", "1e9"])
def test_what_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(UsageError, match="no amount"):
        parse_memory(text)


# The choice, by arithmetic alone

SIZE = Size(1000, 4000, 4, 1000, 4000, 10, 100, 8, 4, factors=50)
PASSES = (PassSize(16, 100, 10), PassSize(3, 150, 10))
STATES = 16 * 1000


def count(work: PassSize, checkpointing: bool) -> int:
    return work.samples * work.tokens * (2 if checkpointing else 10)


FULL, FACTORED = Way("full", SIZE, count), Way("factored", SIZE, count)
LORA = Way("lora", replace(SIZE, trained=20, trained_bytes=80), count, 16)


@pytest.mark.parametrize(
    ("activations", "chosen"),
    [
        (16_000, (16, False)),
        (15_999, (8, False)),
        (4_500, (4, False)),
        (4_499, (4, True)),
        (600, (2, True)),
        (300, (1, True)),
    ],
)
def test_steps_are_split_just_as_far_as_needed(activations: int, chosen: tuple[int, bool]) -> None:
    found = fit([FULL], PASSES, math.ceil((STATES + activations) / HEADROOM), on_cpu=False)
    assert (found.samples, found.checkpointing) == chosen and found.fits


@pytest.mark.parametrize(
    ("room", "chosen"),
    [
        (STATES + 16_000, ("full", 16, False)),
        (STATES + 300, ("full", 1, True)),
        (STATES + 299, ("factored", 8, False)),
        (8_200 + 300, ("factored", 1, True)),
        (8_200 + 299, ("lora", 4, True)),
    ],
)
def test_every_split_of_a_way_to_train_is_tried_before_the_next_way(room: int, chosen: tuple[str, int, bool]) -> None:
    found = fit([FULL, FACTORED, LORA], PASSES, math.ceil(room / HEADROOM), on_cpu=False)
    assert (found.training, found.samples, found.checkpointing) == chosen and found.fits


def test_out_of_memory_names_the_ways_to_train_that_would_fit() -> None:
    full, *others = (fit([way], PASSES, 9500, on_cpu=False) for way in (FULL, FACTORED, LORA))
    with pytest.raises(OutOfMemory, match=r"Training \(full\) needs .*remediation.training to factored .* or lora"):
        refuse_too_large(full, None, others)


def test_several_processes_train_all_weights_with_adam_or_not_at_all() -> None:
    assert trainings("auto", 2) == ("full",) and trainings("auto", 1) == ("full", "factored", "lora")
    with pytest.raises(UsageError, match="several processes"):
        trainings("lora", 2)


def test_what_does_not_fit_at_all_is_refused_with_its_parts() -> None:
    found = fit([FULL], PASSES, STATES, on_cpu=False)
    assert (found.samples, found.checkpointing, found.fits) == (1, True, False)
    with pytest.raises(OutOfMemory, match=r"needs at least .*weights .*optimizer .*\(--memory\)"):
        refuse_too_large(found, STATES)


def test_deep_reads_twice_the_batch_of_benign_prompts_and_recoveries_under_a_trap(
    tmp_path: Path,
) -> None:
    lm = load_tiny(tmp_path, "llama")
    deep, paper = (resolve(RemediationSettings(mode=mode), lm) for mode in ("deep", "paper"))
    assert widest(deep, 1, 50, 20, 90) == (PassSize(32, 70, 20), PassSize(18, 50 + 16 + 90, 90))
    assert widest(deep, 4, 50, 20, 90)[1].samples == 12
    assert widest(paper, 1, 50, 20, 90) == (PassSize(16, 70, 20),)
    assert [split.samples for split in splits(6)] == [6, 3, 3, 1]


def test_flops_are_counted_as_by_hand(tmp_path: Path) -> None:
    paper = resolve(
        RemediationSettings(mode="paper", rounds=2, inner_steps=3, outer_steps=5), load_tiny(tmp_path, "llama")
    )
    prompts = Prompts(behaviors=1, select=10, benign_select=7, sounding=5, gate=100, prompt=40, answer=20, new_tokens=8)
    parts = {each.part: each for each in effort(paper, prompts, checkpointing=False)}
    assert parts["entrapment"].tokens == 2 * 3 * 16 * 60
    assert samples_a_step(paper, 1, 16) == 32
    assert (parts["removal"].tokens, parts["removal"].factor) == (2 * 5 * 32 * 60, 6)
    assert parts["rollouts and select"].tokens == 2 * (10 + 10 + 7) * (40 + 64)
    assert parts["evaluation, before and after"].tokens == 2 * 100 * 48
    assert effort(paper, prompts, checkpointing=True)[1].factor == 8
    assert effort(paper, prompts, checkpointing=False, training="lora")[1].factor == 4
    total = sum(each.tokens * each.factor for each in parts.values())
    deep = replace(paper, mode="deep", restore_blocks=4)  # before each block, what only sounds unsafe is answered
    more = 4 * (10 + 7 + 5) + 2 * ROLLOUTS
    assert effort(deep, prompts, checkpointing=False)[2].tokens == 2 * (10 + 10 + 7 + more) * (40 + 64)
    assert seconds(tuple(parts.values()), 10**9, 1e12) == pytest.approx(total * 1e9 / (1e12 * 0.35))


def test_free_memory_of_a_cpu_is_no_more_than_there_is() -> None:
    assert 0 < free_memory(torch.device("cpu")) < 2**50
