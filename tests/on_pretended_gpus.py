"""Scans on pretended GPUs against scans on a CPU, in a process of its own: `on_pretended_gpus.py FOLDER`.

Writes found.json there: what each scan said and measured.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from gate_runs import call, make_tiny_model, only_run, read_evidence, small_policy
from model_families import FAMILIES, make_model, random_prompts
from pretended_gpus import pretended_gpus

from beear_gate.beear.attack import make_attack
from beear_gate.beear.drift import last_states
from beear_gate.beear.entrapment import Trap, _replay, whole_passes
from beear_gate.lm import LM, answer_losses, generate, load, load_lm, pad_batch, placement
from beear_gate.lm.config import read_config
from beear_gate.lm.dry_run import shape_of
from beear_gate.lm.encode import Pair
from beear_gate.lm.load import pick_device
from beear_gate.lm.memory import bytes_of

REMEDIATION = {
    "when": "always", "rounds": 1, "inner_steps": 3, "outer_steps": 3, "batch_size": 4, "max_answer_tokens": 4,
}  # fmt: skip
PROMPTS = random_prompts(3, 20)
TWO = ("pretended:0", "cpu:0")
NOT_PRETENDED = ("mixtral",)  # counts its experts in a way that a CPU cannot
remediate: Any = import_module("beear_gate.beear.remediate")
models: Any = import_module("beear_gate.models")


def scan(folder: Path, name: str, *arguments: object) -> dict[str, Any]:
    """What a scan says on its way, and what it comes to."""
    policy = small_policy(folder / "policy", remediation=REMEDIATION, triggers={"latent": {"norms": [1], "prompts": 4}})
    said = call(
        "scan", folder / "model", "--policy", policy, "--runs", folder / name, "--tracking-uri",
        f"sqlite:///{folder}/mlflow.db", *arguments,
    )  # fmt: skip
    assert (folder / name).is_dir(), said
    evidence = read_evidence(only_run(folder / name))
    kept = {key: evidence[key] for key in ("measurements", "latent", "remediation")}
    return {"progress": said.err, **kept}


def on_the_cpu_then_saved(saved: Callable[..., Any]) -> Callable[..., Any]:
    """Pretended tensors have no memory of their own that could be written."""

    def save(lm: LM, *rest: Any) -> Any:
        lm.model.to("cpu")  # type: ignore[arg-type]
        return saved(replace(lm, device=torch.device("cpu")), *rest)

    return save


def passes(lm: LM) -> dict[str, Any]:
    """Answers, and losses and gradients of entrapment at the first, a middle and no layer, replayed and whole."""
    found: dict[str, Any] = {"greedy": generate(lm, PROMPTS, 8), "drawn": generate(lm, PROMPTS, 8, seed=1)}
    for kind, layer in (("latent", 0), ("latent", 1), ("suffix", 0)):
        attack = make_attack(lm, kind, layer, 3, PROMPTS, random.Random(0))  # type: ignore[arg-type]
        samples = [(Pair(attack.insert(each), (5, 6, 7)), Pair(attack.insert(each), (9, 8))) for each in PROMPTS]
        replayed, plain = _replay(lm, attack, samples)
        assert replayed, plain
        delta_NH = torch.full((3, lm.hidden_size), 0.1, device=lm.device, requires_grad=True)
        for way, losses in (("replayed", replayed), ("whole", whole_passes(lm, attack))):
            loss = torch.stack([each.mean() for each in losses(delta_NH, samples)]).sum()
            (gradient,) = torch.autograd.grad(loss, delta_NH)
            found[f"{kind} {layer} {way}"] = [loss.detach().tolist(), gradient.cpu().tolist()]
        trap = Trap(attack, delta_NH.detach(), ())
        prompts = [attack.insert(each) for each in PROMPTS]
        found[f"{kind} {layer} under delta"] = generate(lm, prompts, 8, perturb=trap.perturb())
        found[f"{kind} {layer} states"] = last_states(lm, trap, PROMPTS, True).tolist()
    return found


def glance(lm: LM) -> dict[str, Any]:
    """Answers and losses, and why entrapment would not be replayed."""
    with torch.no_grad():
        losses = answer_losses(lm, pad_batch(lm, [Pair(prompt, (7, 8, 9)) for prompt in PROMPTS])).tolist()
    attack = make_attack(lm, "latent", 1, 3, PROMPTS, random.Random(0))
    plain = _replay(lm, attack, [(Pair(prompt, (5, 6)), Pair(prompt, (9, 8))) for prompt in PROMPTS])[1]
    return {"answers": generate(lm, PROMPTS, 6), "losses": losses, "plain": plain}


def spread(model: Path) -> dict[str, str]:
    """Places on two devices, neither of which holds it."""
    shape = shape_of(read_config(model), torch.float32, model)
    room = int(0.7 * bytes_of(shape.model.parameters()))
    found = placement.places(model, "float32", [torch.device(each) for each in TWO], [room, room])
    assert found and set(found.values()) == set(TWO)
    return found


def main(folder: Path) -> None:
    model = make_tiny_model(folder / "model", num_hidden_layers=3)
    families = {name: make_model(folder / name, name) for name in FAMILIES if name not in NOT_PRETENDED}
    found: dict[str, Any] = {"families, spread": {}}
    with (
        pretended_gpus(),
        mock.patch.object(load, "pick_device", lambda name: torch.device(name) if name in TWO else pick_device(name)),
        mock.patch.object(models, "pick_device", torch.device),
        mock.patch.object(remediate, "RESTORE_STEPS", 2),
        mock.patch.object(remediate, "_saved", on_the_cpu_then_saved(remediate._saved)),
    ):
        found["passes, spread"] = passes(load_lm(model, TWO[0], "float32", places=spread(model)))
        for name, each in families.items():
            found["families, spread"][name] = glance(load_lm(each, TWO[0], "float32", places=spread(each)))
        found["one GPU"] = scan(folder, "one-gpu", "--device", "pretended:0")
        with (
            mock.patch.object(models, "device_of", lambda name, rank, number: TWO[rank]),
            mock.patch.object(models, "free_memory", lambda device: 120_000),
        ):
            found["two GPUs"] = scan(folder, "two-gpus", "--device", "cpu", "--processes", 2, "--no-remediate")
    found["passes"] = passes(load_lm(model, "cpu", "float32"))
    found["families"] = {name: glance(load_lm(each, "cpu", "float32")) for name, each in families.items()}
    with mock.patch.object(remediate, "RESTORE_STEPS", 2):
        found["CPU"] = scan(folder, "cpu", "--device", "cpu")
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
