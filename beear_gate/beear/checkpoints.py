"""What a remediation leaves on disk after each round, so that it can go on from there when a process dies.

All that later rounds depend on: what is trained, the optimizer's states, the traps so far, the random state. Each
process writes its own part of every tensor; one JSON file, renamed into place last, says that all parts are there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from beear_gate.beear.attack import Attack, Kind, module_of
from beear_gate.beear.entrapment import Sample, Trap
from beear_gate.beear.removal import Drill, Split, Trainer
from beear_gate.beear.selection import Checkpoint, SelectScores
from beear_gate.lm import processes
from beear_gate.lm.encode import Pair
from beear_gate.lm.sharded import local, put_weights
from beear_gate.records import Drift, Round, Training

if TYPE_CHECKING:
    from beear_gate.beear.remediate import Rounds


@dataclass(frozen=True)
class KeptDrill:
    """A `Drill` without what is a tensor or a module."""

    kind: Kind
    n_tokens: int
    filler: tuple[int, ...]
    head: int
    tail: int
    rms: float
    losses: tuple[float, ...]
    plain: str
    safe: tuple[Pair, ...]
    recovery: tuple[Pair, ...]
    useful: tuple[Pair, ...]


@dataclass(frozen=True)
class KeptCheckpoint:
    """A `Checkpoint` without its weights."""

    number: int
    scores: SelectScores
    elicited: float


@dataclass(frozen=True)
class State:
    """What of `Rounds` is no tensor."""

    processes: int
    training: Training
    random: tuple[int, tuple[int, ...], float | None]
    samples: dict[str, list[Sample]]
    drills: list[KeptDrill]
    records: list[Round]
    checkpoints: list[KeptCheckpoint]
    first_drift: tuple[Drift, ...]
    whole_passes: list[str]
    steps: int
    split: Split
    retries: list[str]


_STATE: TypeAdapter[State] = TypeAdapter(State)


def keep_round(folder: Path, rounds: Rounds) -> None:
    """Write what is there after a round, then remove what was kept of the one before."""
    number = len(rounds.records)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(_tensors(rounds)), folder / _part(number))
    processes.gathered(None)  # all parts are there
    if processes.rank() == 0:
        unfinished = folder / f".round-{number}.json.part"
        unfinished.write_bytes(_STATE.dump_json(_state(rounds)))
        os.replace(unfinished, folder / f"round-{number}.json")
        for file in folder.glob("round-*"):
            if not file.name.startswith(f"round-{number}."):
                file.unlink()
    processes.agreed(None)


def resume_rounds(folder: Path, rounds: Rounds) -> None:
    """Take up what was kept of the last round, if there is any by as many processes that trained in the same way."""
    state = processes.once(lambda: _last(folder, rounds.trainer.training))
    if state is None:
        return
    tensors = load_file(folder / _part(len(state.records)))
    version, numbers, gauss = state.random
    rounds.rng.setstate((version, numbers, gauss))
    rounds.samples = state.samples
    rounds.records = state.records
    rounds.first_drift = state.first_drift
    rounds.whole_passes = state.whole_passes
    for each in state.checkpoints:
        prefix = f"weights/{each.number}/"
        weights = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        rounds.checkpoints.append(Checkpoint(each.number, weights, each.scores, each.elicited))
    put_weights(rounds.lm, rounds.checkpoints[-1].weights)
    for place, drill in enumerate(state.drills):
        rounds.drills.append(_drill(rounds, drill, tensors[f"delta/{place}"].to(rounds.lm.device)))
    rounds.trainer.steps, rounds.trainer.split, rounds.trainer.retries = state.steps, state.split, state.retries
    with torch.no_grad():
        for name, tensor in _moved(rounds.trainer):
            tensor.copy_(tensors[name])


def _part(number: int) -> str:
    return f"round-{number}.{processes.rank()}-of-{processes.count()}.safetensors"


def _last(folder: Path, training: Training) -> State | None:
    found = {int(file.stem.removeprefix("round-")): file for file in folder.glob("round-*.json")}
    try:
        state = _STATE.validate_json(found[max(found)].read_bytes()) if found else None
    except (OSError, ValidationError):  # not by this version: the rounds are done again
        return None
    alike = state and (state.processes, state.training) == (processes.count(), training)
    return state if alike else None


def _tensors(rounds: Rounds) -> Iterator[tuple[str, Tensor]]:
    for checkpoint in rounds.checkpoints:
        yield from ((f"weights/{checkpoint.number}/{name}", each) for name, each in checkpoint.weights.items())
    yield from ((f"delta/{place}", each.trap.delta_NH.cpu()) for place, each in enumerate(rounds.drills))
    yield from ((name, each.cpu().clone()) for name, each in _moved(rounds.trainer))


def _moved(trainer: Trainer) -> Iterator[tuple[str, Tensor]]:
    """This process's part of every tensor of the optimizers, and of the float32 copies that they move."""
    for place, (weight, master, optimizer) in enumerate(
        zip(trainer.weights, trainer.masters, trainer.optimizers, strict=True)
    ):
        if master is not weight:
            yield f"master/{place}", local(master)
        states: dict[str, Any] = optimizer.state[master]
        yield from ((f"{name}/{place}", local(each)) for name, each in states.items())


def _state(rounds: Rounds) -> State:
    version, numbers, gauss = rounds.rng.getstate()
    return State(
        processes=processes.count(),
        training=rounds.trainer.training,
        random=(version, numbers, gauss),
        samples=rounds.samples,
        drills=[_kept(drill) for drill in rounds.drills],
        records=rounds.records,
        checkpoints=[KeptCheckpoint(each.number, each.scores, each.elicited) for each in rounds.checkpoints],
        first_drift=rounds.first_drift,
        whole_passes=rounds.whole_passes,
        steps=rounds.trainer.steps,
        split=rounds.trainer.split,
        retries=rounds.trainer.retries,
    )


def _kept(drill: Drill) -> KeptDrill:
    attack, trap = drill.trap.attack, drill.trap
    return KeptDrill(
        attack.kind, attack.n_tokens, attack.filler, attack.head, attack.tail, attack.rms, trap.losses, trap.plain,
        tuple(drill.safe), tuple(drill.recovery), tuple(drill.useful),
    )  # fmt: skip


def _drill(rounds: Rounds, kept: KeptDrill, delta_NH: Tensor) -> Drill:
    module = module_of(rounds.lm, kept.kind, rounds.plan.layer)
    attack = Attack(kept.kind, module, kept.n_tokens, kept.filler, kept.head, kept.tail, kept.rms)
    return Drill(Trap(attack, delta_NH, kept.losses, kept.plain), kept.safe, kept.recovery, kept.useful)
