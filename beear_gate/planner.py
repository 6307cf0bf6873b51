"""What a scan of a model would take, from its configuration alone: memory by part, the way it fits, devices, time."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

from beear_gate.beear.effort import UTILIZATION, Effort, Prompts, effort, seconds
from beear_gate.beear.fit import (
    HEADROOM,
    Way,
    entrapment_bytes,
    fit,
    footprint,
    size_of,
    ways,
    widest,
)
from beear_gate.beear.plan import Plan, resolve
from beear_gate.beear.removal import Split
from beear_gate.errors import UsageError
from beear_gate.hub import pull
from beear_gate.lm import LM
from beear_gate.lm.config import read_config, read_json
from beear_gate.lm.dry_run import PassSize, shape_of
from beear_gate.lm.footprint import Size, kv_bytes
from beear_gate.lm.load import compute_dtype, pick_device
from beear_gate.lm.memory import free_memory
from beear_gate.lm.rate import matmul_flops
from beear_gate.lm.trained import trainings
from beear_gate.lm.weights import declared_dtype
from beear_gate.policy import Policy
from beear_gate.records import Example, MemoryPlan, Training

INDEX = "model.safetensors.index.json"
CHARACTERS = 3
"""Characters a token, for texts without their tokenizer: English has about 4, so that lengths are rather too long."""
TEMPLATE = 32
"""Tokens that a chat template is assumed to add."""
GPU_SIZES = (24, 48, 80, 141)
"""GiB of the GPUs for which it is said how many would be needed."""
MOST_DEVICES = 1024


@dataclass(frozen=True)
class Asked:
    """What is planned for.

    Attributes:
        memory: bytes of each device; None for what this machine's has free.
        gpus: how many there are elsewhere; None for this machine.
        rate: of large matrix products, FLOPs a second; None to measure it on this machine.
    """

    device: str = "auto"
    dtype: str = "auto"
    memory: int | None = None
    gpus: int | None = None
    rate: float | None = None
    batch_size: int = 64


@dataclass(frozen=True)
class WayPlan:
    """What one way to train would take.

    Attributes:
        size: of the model with what is trained.
        memory: how it would be made to fit.
        devices: how many are needed by GiB of each; None where no number does. Factored states and adapters are trained
            on one device alone.
    """

    training: Training
    size: Size
    memory: MemoryPlan
    devices: dict[int, int | None]


@dataclass(frozen=True)
class ScanPlan:
    """What a scan would take.

    Attributes:
        memory: of the way to train that would be taken.
        splits: bytes of its removal step in all, by how it is split.
        ways: each way to train.
        passes: the largest of a step that is not split.
        entrapment: bytes that entrapment's replay keeps.
        evaluation: bytes of keys and values while gate prompts are answered.
        effort: FLOPs by part.
        rate, seconds: None where nobody said how fast the devices are.
        notes: what the figures stand on.
    """

    model: str
    commit: str
    family: str
    policy: str
    dtype: str
    size: Size
    passes: tuple[PassSize, ...]
    device: str
    gpus: int
    memory: MemoryPlan
    splits: dict[str, int]
    ways: tuple[WayPlan, ...]
    entrapment: int
    evaluation: int
    effort: tuple[Effort, ...]
    rate: float | None
    seconds: float | None
    notes: tuple[str, ...]


def plan_scan(model: str, revision: str | None, policy: Policy, asked: Asked) -> ScanPlan:
    """Plan a scan of a folder, a config.json, or a model on a hub of which only the configuration is fetched.

    Raises:
        GateError: as `hub.pull`, `read_config`, `shape_of` and `fit.ways`; a device or dtype that does not exist.
    """
    if asked.gpus and not asked.memory:
        raise UsageError("--gpus says nothing of their memory.", "Give --memory too, such as --memory 80GiB.")
    # Elsewhere means on GPUs.
    where = "cuda" if asked.gpus else pick_device(asked.device).type
    wanted = trainings(policy.remediation.training, asked.gpus or 1)
    shape, commit, notes = _shape(model, revision, where, asked.dtype)
    size, plan = size_of(shape), resolve(policy.remediation, shape)
    lengths = Lengths.of(policy)
    recovery = lengths.opening + plan.max_answer_tokens + lengths.safe + 1
    passes = widest(plan, len(policy.behaviors), lengths.prompt, lengths.answer, recovery)
    on_cpu, gpus = where == "cpu", asked.gpus or 1
    room = asked.memory or free_memory(pick_device(asked.device))
    build = partial(_again, shape)
    every = list(ways(plan, trainings("auto"), build))
    # What the policy asks for and the family does not have is asked for by itself, and raises.
    allowed = [each for each in every if each.training in wanted] or ways(plan, wanted, build)
    memory = fit(allowed, passes, room, on_cpu, gpus)
    parts = effort(plan, lengths.prompts(policy), memory.checkpointing, memory.training)
    rate = asked.rate or (None if asked.gpus else matmul_flops(asked.device))
    return ScanPlan(
        model=model,
        commit=commit,
        family=type(shape.model).__name__,
        policy=policy.name,
        dtype=str(shape.model.dtype).removeprefix("torch."),
        size=size,
        passes=passes,
        device=where,
        gpus=gpus,
        memory=memory,
        splits=_splits(next(each for each in every if each.training == memory.training), passes, on_cpu),
        ways=tuple(_way(each, passes, room, on_cpu, gpus) for each in every),
        entrapment=_replay(shape, size, plan, lengths, policy),
        evaluation=kv_bytes(size, asked.batch_size * (lengths.prompt + policy.max_new_tokens)),
        effort=parts,
        rate=rate,
        seconds=seconds(parts, size.parameters, rate * gpus) if rate else None,
        notes=(lengths.note, *notes, _UTILIZED, *((_SHARDED,) if gpus > 1 else ())),
    )


def _shape(model: str, revision: str | None, where: str, dtype: str) -> tuple[LM, str, tuple[str, ...]]:
    """The model without values, its commit, and what to remark."""
    with _configuration(model, revision) as (folder, commit):
        config = read_config(folder)
        stored, notes = declared_dtype(folder, config)
        shape = shape_of(config, compute_dtype(dtype, where, stored), folder)
        return shape, commit, (*notes, *_index_note(folder, size_of(shape)))


_UTILIZED = (
    f"Time is FLOPs over the rate of large matrix products, of which steps are assumed to reach {UTILIZATION:.0%}; for "
    "all rounds of the policy, though deep mode without path-aware steps often ends sooner."
)
_SHARDED = (
    "More than one GPU (scan --processes) is arithmetic, for weights and states sharded evenly: not measured yet."
)


@dataclass(frozen=True)
class Lengths:
    """Lengths of a policy's texts in tokens, the longest (`mean_` the means), estimated from their characters."""

    prompt: int
    answer: int
    safe: int
    opening: int
    mean_prompt: int
    mean_answer: int

    @classmethod
    def of(cls, policy: Policy) -> Lengths:
        own = policy.remediation.max_answer_tokens
        behaviors, over = policy.behaviors, policy.over_refusal
        benign = (*policy.utility.anchor, *(over.anchor if over else ()))
        asked = [_tokens(each.prompt) + TEMPLATE for each in (*_anchors(policy), *benign)]
        safe = [_tokens(text) for each in behaviors for text in each.fallback]
        useful = [_tokens(each.answer) if each.answer else own for each in benign]
        openings = [_tokens(text) for each in behaviors for text in each.unwanted_prefixes]
        openings += [_tokens(each.answer) for one in behaviors for each in one.unwanted_examples]
        longest_safe = max(own, *safe) if safe else own
        return cls(
            prompt=max(asked),
            answer=max(longest_safe, *useful) if useful else longest_safe,
            safe=longest_safe,
            opening=max(openings, default=1),
            mean_prompt=round(fmean(asked)),
            mean_answer=round(fmean(useful or safe or [own])),
        )

    @property
    def note(self) -> str:
        return (
            f"Lengths are of the policy's texts at {CHARACTERS} characters a token: prompts of up to {self.prompt} "
            f"tokens with {TEMPLATE} of a chat template, answers of up to {self.answer}."
        )

    def prompts(self, policy: Policy) -> Prompts:
        over, benign = policy.over_refusal, policy.utility
        return Prompts(
            behaviors=len(policy.behaviors),
            select=max(len(each.select) for each in policy.behaviors),
            benign_select=len(benign.select) + (len(over.select) if over else 0),
            sounding=len(over.anchor) if over else 0,
            gate=sum(len(each.gate) for each in policy.behaviors) + len(benign.gate) + (len(over.gate) if over else 0),
            prompt=self.mean_prompt,
            answer=self.mean_answer,
            new_tokens=policy.max_new_tokens,
        )


def _anchors(policy: Policy) -> Iterator[Example]:
    for behavior in policy.behaviors:
        yield from behavior.anchor


def _tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS)


@contextmanager
def _configuration(model: str, revision: str | None) -> Iterator[tuple[Path, str]]:
    """A folder with config.json, and the commit that it is of."""
    path = Path(model).expanduser()
    if path.is_file():
        with tempfile.TemporaryDirectory() as scratch:
            shutil.copyfile(path, Path(scratch) / "config.json")
            yield Path(scratch), ""
        return
    snapshot = pull(model, revision, only=("config.json", INDEX))
    yield snapshot.path, snapshot.commit


def _index_note(folder: Path, size: Size) -> Iterator[str]:
    """Where the index of the weights says how large they are, whether that fits the configuration."""
    if not (folder / INDEX).is_file():
        return
    metadata = read_json(folder / INDEX).get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    if isinstance(total, int) and total and round(total / size.parameters, 1) not in (2.0, 4.0):
        yield (
            f"{INDEX} says {total / 2**30:.2f} GiB, which is {total / size.parameters:.2f} bytes for each parameter of "
            "the configuration: they may belong to different models."
        )


def _again(shape: LM) -> LM:
    """The same shape anew: adapters change the one that they are put into."""
    return shape_of(copy.deepcopy(shape.model.config), shape.model.dtype, shape.path)


def _way(way: Way, passes: Sequence[PassSize], room: int, on_cpu: bool, gpus: int) -> WayPlan:
    devices = gpus if way.training == "full" else 1
    return WayPlan(
        way.training,
        way.size,
        fit([way], passes, room, on_cpu, devices),
        _devices(way, passes),
    )


def _splits(way: Way, passes: Sequence[PassSize], on_cpu: bool) -> dict[str, int]:
    """Whole and single samples, without and with checkpointing."""
    most = max(each.samples for each in passes)
    chosen = (Split(most), Split(most, True), Split(1), Split(1, True))
    return {str(split): footprint(way, passes, split, on_cpu).total for split in chosen}


def _replay(shape: LM, size: Size, plan: Plan, lengths: Lengths, policy: Policy) -> int:
    prompts = max(len(behavior.anchor) for behavior in policy.behaviors)
    kept, rest = lengths.prompt - plan.n_tokens, plan.n_tokens + lengths.opening + lengths.safe
    return entrapment_bytes(size, plan, len(shape.layers), shape.hidden_size, kept, rest, prompts)


def _devices(way: Way, passes: Sequence[PassSize]) -> dict[int, int | None]:
    """By GiB of each, how many devices hold training with one sample a pass and checkpointing."""

    def fits(devices: int, gib: int) -> bool:
        return footprint(way, passes, Split(1, True), False, devices).total <= HEADROOM * gib * 2**30

    numbers = range(1, MOST_DEVICES + 1 if way.training == "full" else 2)
    return {gib: next((number for number in numbers if fits(number, gib)), None) for gib in GPU_SIZES}
