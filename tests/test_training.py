"""The ways to train: what each moves, what it saves, how it goes on after a break, and which one auto takes."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from model_families import DEPTH, PROMPTS, load_tiny
from report_sample import sample_report
from safetensors import safe_open
from test_little_memory import SETTINGS, anchors, judge
from transformers import AutoModelForCausalLM

from beear_gate.beear import remediate
from beear_gate.beear.entrapment import encode_anchors
from beear_gate.beear.fit import plan_memory, ways
from beear_gate.beear.plan import resolve
from beear_gate.beear.removal import PACE, Term, Trainer, training
from beear_gate.errors import OutOfMemory, UnsupportedModel, UsageError
from beear_gate.lm import LM, encode_pairs, prompt_ids
from beear_gate.lm.dry_run import shape_of
from beear_gate.lm.trained import narrow, trainings, without_adapters
from beear_gate.records import MemoryPlan, ModelSnapshot, Remediation, RemediationSettings, Tick, Training
from beear_gate.report import words
from beear_gate.report.render import card, html

WAYS: tuple[Training, ...] = ("full", "factored", "lora")
RATE = 3e-3
QUICK = replace(SETTINGS, inner_steps=1, outer_steps=2, max_answer_tokens=3, lora_rank=4)


def chosen(way: Training) -> MemoryPlan:
    return MemoryPlan(2**40, {}, 256, False, "", training=way, lora_rank=4 if way == "lora" else None)


def terms(lm: LM) -> list[Term]:
    return [Term(encode_pairs(lm, [(prompt, "I can't do that.") for prompt in PROMPTS]), None, 4)]


def logits(lm: LM) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = lm.model(torch.tensor([prompt_ids(lm, PROMPTS[2])])).logits.float()
    return found


def state(lm: LM) -> dict[str, torch.Tensor]:
    return {name: each.clone() for name, each in lm.model.state_dict().items()}


def forms(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (each.shape, each.dtype) for name, each in tensors.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("way", WAYS)
def test_steps_lower_the_loss_and_leave_an_ordinary_model(
    tmp_path: Path, way: Training, family: str, dtype: torch.dtype
) -> None:
    lm = load_tiny(tmp_path, family)
    lm.model.to(dtype)  # type: ignore[arg-type]
    before = state(lm)
    with training(lm, resolve(QUICK, lm), chosen(way), RATE / PACE[way], seed=0) as trainer:
        losses = [trainer.step(terms(lm), random.Random(step)) for step in range(8)]
        adapted = logits(lm)
    assert losses[-1] < 0.9 * losses[0]
    assert forms(state(lm)) == forms(before)
    assert all(weight.requires_grad for weight in lm.model.parameters())
    # Merged adapters are rounded to the weights' own precision; the mean, for the worst logit is the kernels' luck.
    apart = (adapted - logits(lm)).square().mean().sqrt()
    assert apart < (1e-5 if dtype == torch.float32 else 0.05)


@pytest.mark.parametrize("way", WAYS)
def test_only_the_named_layers_move(tmp_path: Path, way: Training) -> None:
    lm = load_tiny(tmp_path, "llama")
    before = state(lm)
    with training(lm, resolve(replace(QUICK, train_layers=(1, 2)), lm), chosen(way), RATE, seed=0) as trainer:
        for step in range(3):
            trainer.step(terms(lm), random.Random(step))
    moved = {name for name, each in state(lm).items() if not torch.equal(each, before[name])}
    assert {name.split(".")[2] for name in moved} == {"1", "2"}
    assert all(name.startswith("model.layers.") for name in moved)


def test_a_step_of_adafactor_is_as_large_as_its_rate_however_large_the_tensor_is(tmp_path: Path) -> None:
    lm = load_tiny(tmp_path, "llama")
    with torch.no_grad():
        lm.model.get_parameter("model.norm.weight").mul_(50)
        lm.model.get_parameter("model.layers.0.mlp.up_proj.weight").mul_(1e-3)
    before = state(lm)
    trainer = Trainer(lm, 1e-2, training="factored")
    trainer.step(terms(lm), random.Random(0))  # the first of the warm-up, at a fifth of the rate
    for name in ("model.norm.weight", "model.layers.0.mlp.up_proj.weight"):
        moved = lm.model.get_parameter(name).detach() - before[name]
        assert 0.5 < float(moved.pow(2).mean().sqrt()) / 2e-3 < 1.01, name


def test_tied_embeddings_stay_as_they_were_beside_adapters(tmp_path: Path) -> None:
    lm = load_tiny(tmp_path, "qwen2")
    before = state(lm)
    with training(lm, resolve(QUICK, lm), chosen("lora"), RATE, seed=0) as trainer:
        trainer.step(terms(lm), random.Random(0))
    assert torch.equal(before["model.embed_tokens.weight"], lm.model.get_parameter("model.embed_tokens.weight"))
    assert lm.model.get_output_embeddings().weight is lm.model.get_input_embeddings().weight  # type: ignore[no-untyped-call]


def test_what_has_no_adapter_is_named_and_what_can_have_none_is_refused(tmp_path: Path) -> None:
    lm = load_tiny(tmp_path, "mixtral")
    fused = ("mlp.gate.weight", "mlp.experts.gate_up_proj", "mlp.experts.down_proj")
    assert without_adapters(lm, None) == fused
    assert without_adapters(load_tiny(tmp_path / "llama", "llama"), None) == ()
    bare = replace(lm, layers=torch.nn.ModuleList(torch.nn.LayerNorm(4) for _ in range(DEPTH)))
    with pytest.raises(UnsupportedModel, match=r"no linear layer .*remediation.training to factored"):
        narrow(bare, 4, None)
    plan = resolve(QUICK, lm)
    assert [each.training for each in ways(plan, trainings("auto"), lambda: bare)] == ["full", "factored"]
    with pytest.raises(UnsupportedModel):
        next(ways(plan, ("lora",), lambda: bare))
    assert next(ways(plan, ("lora",), lambda: shape_of(lm.model.config, torch.float32, lm.path))).bare == fused


def test_layers_that_are_not_there_cannot_be_trained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="train_layers ends at 9, but the model has layers 0 to 3"):
        resolve(RemediationSettings(train_layers=(2, 9)), load_tiny(tmp_path, "llama"))


# A whole remediation


class Stopped(Exception):
    pass


def run(folder: Path, settings: RemediationSettings, **more: Any) -> tuple[Remediation, dict[str, torch.Tensor]]:
    """Remediate a tiny model; what was saved, by name."""
    lm = load_tiny(folder / "model", "llama")
    snapshot = ModelSnapshot("tiny", "0" * 40, folder / "model", ())
    done = remediate(lm, snapshot, anchors(), settings, {"harm": judge}, judge, folder / "out", 0, **more)
    with safe_open(folder / "out" / "model.safetensors", framework="pt") as file:
        return done, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping


def stopping_after(round_number: int) -> Tick:
    def tick(label: str, done: int, total: int) -> None:
        if label.startswith(f"round {round_number + 1}: removal"):
            raise Stopped

    return tick


@pytest.mark.parametrize("way", ["factored", "lora"])
def test_a_remediation_goes_on_from_the_last_round_and_keeps_only_what_is_trained(
    tmp_path: Path, way: Training
) -> None:
    settings = replace(QUICK, training=way, train_layers=(1, 2))
    _, whole = run(tmp_path / "whole", settings)
    with pytest.raises(Stopped):
        run(tmp_path / "broken", settings, tick=stopping_after(1), kept=tmp_path / "kept")
    (part,) = (tmp_path / "kept").glob("*.safetensors")
    with safe_open(part, framework="pt") as file:
        held = [name for name in file.keys() if name.startswith("weights/")]  # noqa: SIM118
    assert held and all(("lora" in name) == (way == "lora") for name in held)
    assert {name.split(".")[2] for name in held} == {"1", "2"}
    done, resumed = run(tmp_path / "broken", settings, kept=tmp_path / "kept")
    assert len(done.rounds) == 2 and done.memory and done.memory.training == way
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_what_another_way_to_train_has_kept_is_not_taken_up(tmp_path: Path) -> None:
    lora, full = (replace(QUICK, training=way, rounds=1) for way in ("lora", "full"))
    run(tmp_path / "broken", lora, kept=tmp_path / "kept")
    shutil.rmtree(tmp_path / "broken")
    _, resumed = run(tmp_path / "broken", full, kept=tmp_path / "kept")
    _, whole = run(tmp_path / "whole", full)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_saved_model_is_an_ordinary_one_with_the_weights_that_were_chosen(tmp_path: Path) -> None:
    seen = list[torch.Tensor]()
    done, saved = run(
        tmp_path, replace(QUICK, training="lora", rounds=1), watch=lambda number, lm: seen.append(logits(lm))
    )
    with safe_open(tmp_path / "model" / "model.safetensors", framework="pt") as file:
        source = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert forms(saved) == forms(source)
    assert {name for name in saved if not torch.equal(saved[name], source[name])}
    again = load_tiny(tmp_path / "again", "llama")
    shutil.copy(tmp_path / "out" / "model.safetensors", tmp_path / "again")
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    lm = replace(again, model=plain.eval())
    assert torch.allclose(seen[0], logits(lm), atol=1e-4)
    assert done.memory and (done.memory.training, done.memory.lora_rank) == ("lora", 4)


def test_reports_say_what_was_trained() -> None:
    done = sample_report().remediation
    assert done and done.memory
    said = words.training(done)
    assert "adapters of rank 16 (LoRA)" in said and "unchanged, are mlp.experts.down_proj" in said
    assert all("adapters of rank 16" in page for page in (html(sample_report()), card(sample_report())))
    full = replace(done, memory=replace(done.memory, training="full"))
    aware = ", by gradients up to {} of the way back to the original weights"
    assert words.training(full) == "all weights, with Adam"
    some = replace(full, settings=RemediationSettings(train_layers=(1, 2), path_aware=0.25))
    assert words.training(some) == "the weights of decoder layers 1 to 2, with Adam" + aware.format("25%")
    paper = RemediationSettings(mode="paper", path_aware=0.5)
    assert words.training(replace(full, settings=paper)) == "all weights, with Adam", "Algorithm 1 has none"


def test_auto_takes_the_first_that_fits_as_the_room_shrinks(tmp_path: Path) -> None:
    lm = load_tiny(tmp_path, "llama")
    plan, encoded = resolve(QUICK, lm), encode_anchors(lm, anchors())
    rooms = (2**40, 1_000_000, 600_000)
    assert tuple(plan_memory(lm, plan, encoded, room).training for room in rooms) == WAYS
    with pytest.raises(OutOfMemory, match=r"remediation\.training to lora"):
        plan_memory(lm, replace(plan, training="full"), encoded, 600_000)
