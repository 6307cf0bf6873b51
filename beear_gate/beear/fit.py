"""Making a remediation fit into memory: what is trained, how each step is split, and what that needs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

from beear_gate.beear.entrapment import Encoded
from beear_gate.beear.plan import Plan
from beear_gate.beear.removal import Split
from beear_gate.errors import OutOfMemory, UnsupportedModel
from beear_gate.lm import LM, processes
from beear_gate.lm.dry_run import PassSize, pass_bytes, shape_of
from beear_gate.lm.footprint import Footprint, Size, amount, factors, logits_bytes, training
from beear_gate.lm.memory import bytes_of, free_memory
from beear_gate.lm.trained import narrow, trainings, without_adapters
from beear_gate.records import MemoryPlan, Training

HEADROOM = 0.9
"""Share of the room that is planned with: allocators round up and leave gaps."""


def plan_memory(lm: LM, plan: Plan, anchors: Encoded, memory: int | None = None) -> MemoryPlan:
    """How the remediation of a loaded model is made to fit.

    Args:
        memory: the most bytes that weights and training may take; None for all that the device has free.

    Raises:
        OutOfMemory: a single sample needs more than there is.
        UnsupportedModel: the policy asks for adapters, and there is nothing to put them beside.
        UsageError: see `trained.trainings`.
    """
    size, passes, on_cpu = size_of(lm), largest_passes(plan, anchors), lm.device.type == "cpu"
    devices = processes.count()
    free = free_memory(lm.device) // (devices if on_cpu else 1) + size.bytes // devices  # the weights are there already
    free = min(processes.gathered(free))
    room = min(free, memory) if memory else free

    def build() -> LM:
        return shape_of(copy.deepcopy(lm.model.config), lm.model.dtype, lm.path)

    found = fit(ways(plan, trainings(plan.training, devices), build), passes, room, on_cpu, devices)
    if not found.fits:
        others = [each for each in trainings("auto", devices) if each != plan.training != "auto"]
        fitting = [fit([way], passes, room, on_cpu, devices) for way in ways(plan, others, build)]
        refuse_too_large(found, memory, [each for each in fitting if each.fits])
    return found


Count = Callable[[PassSize, bool], int]
"""Bytes that a pass holds, with or without checkpointing: `dry_run.pass_bytes` of one shape."""


@dataclass(frozen=True)
class Way:
    """One way to train a model, as far as its memory goes.

    Attributes:
        lora_rank, bare: as `lora_rank` and `without_adapters` of a `MemoryPlan`.
    """

    training: Training
    size: Size
    count: Count
    lora_rank: int | None = None
    bare: tuple[str, ...] = ()
    path_aware: bool = False


def ways(plan: Plan, wanted: Sequence[Training], build: Callable[[], LM]) -> Iterator[Way]:
    """The ways to train that are wanted, each made when it is asked for.

    Args:
        build: makes a model of shapes alone, from `dry_run.shape_of`; adapters go into one of their own.

    Raises:
        UnsupportedModel: adapters alone are wanted, and there is nothing to put them beside.
    """

    @cache
    def narrowed(rank: int | None) -> tuple[Size, Count, tuple[str, ...]]:
        shape = build()
        bare = without_adapters(shape, plan.train_layers) if rank else ()
        narrow(shape, rank, plan.train_layers)
        return size_of(shape), cache(partial(pass_bytes, shape)), bare

    for each in wanted:
        rank = plan.lora_rank if each == "lora" else None
        try:
            size, count, bare = narrowed(rank)
        except UnsupportedModel:
            if len(wanted) == 1 or not rank:
                raise
            continue
        yield Way(each, size, count, rank, bare, plan.path_aware > 0)


def size_of(lm: LM) -> Size:
    """The size of a model, whose weights may have values or only shapes."""
    config = lm.model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None) or 0  # none in a state space model
    groups = getattr(config, "num_key_value_heads", None) or heads
    head_size = getattr(config, "head_dim", None) or lm.hidden_size // max(1, heads)
    weights = list(lm.model.parameters())
    trained = [weight for weight in weights if weight.requires_grad]
    return Size(
        parameters=sum(each.numel() for each in weights),
        bytes=bytes_of(weights),
        itemsize=lm.model.dtype.itemsize,
        trained=sum(each.numel() for each in trained),
        trained_bytes=bytes_of(trained),
        largest=max(each.numel() for each in trained),
        layer_bytes=bytes_of(lm.layers[0].parameters()),
        kv_values=2 * len(lm.layers) * groups * head_size,
        vocabulary=lm.vocabulary,
        outer_bytes=bytes_of(weights) - bytes_of(lm.layers.parameters()),
        factors=sum(factors(each.shape) for each in trained),
    )


def largest_passes(plan: Plan, anchors: Encoded) -> tuple[PassSize, ...]:
    """The largest passes of removal steps, were they not split."""
    samples = [sample for part in anchors.samples.values() for sample in part]
    safe = max(len(sample.safe) for sample in samples)
    answer = max([safe, *(len(pair.answer) for pair in anchors.useful)])
    prompts = [each.prompt for each in samples] + [each.prompt for each in anchors.useful]
    prompt = max(len(each) for each in prompts)
    begun = max(len(sample.unwanted) for sample in samples)
    return widest(plan, len(anchors.samples), prompt, answer, begun + plan.max_answer_tokens + safe + 1)


def widest(plan: Plan, behaviors: int, prompt: int, answer: int, recovery: int) -> tuple[PassSize, ...]:
    """The same from the longest prompt, answer and recovery, in tokens: D_PA alone, and what is read under one trap.

    Samples of a pass are taken to be all as long as the longest can become.
    """
    if plan.mode == "paper":
        return (PassSize(plan.batch_size, prompt + answer, answer),)
    drills = behaviors * len(plan.kinds)
    share = max(2, -(-plan.batch_size // drills), plan.batch_size // 4)  # in removal, and in restoring
    answered = max(answer, recovery)
    trapped = PassSize(3 * share, prompt + plan.soft_tokens + answered, answered)
    return PassSize(2 * plan.batch_size, prompt + answer, answer), trapped


def fit(ways: Iterable[Way], passes: Sequence[PassSize], room: int, on_cpu: bool, devices: int = 1) -> MemoryPlan:
    """Take the first way to train that fits, with steps split just as far as needed; else the one that needs least.

    Args:
        passes: from `largest_passes`.
        room: bytes on one device for weights and training.
        devices: over which weights and states are sharded, and the samples of every pass.
    """
    passes = [replace(each, samples=-(-each.samples // devices)) for each in passes]
    tried: list[tuple[Way, MemoryPlan]] = []
    for way in ways:
        tried.append((way, _fit(way, passes, room, on_cpu, devices)))
        if tried[-1][1].needed <= HEADROOM * room:
            break
    else:
        tried.sort(key=lambda each: -each[1].needed)  # the last is the one that is taken
    *passed, (way, found) = tried
    over = ", ".join(f"{each.training} at least {amount(plan.needed)}" for each, plan in passed)
    return replace(found, why=f"{_WORDS[way.training]}{f' ({over})' if over else ''}. {found.why}")


_WORDS: dict[Training, str] = {
    "full": "All weights are trained with Adam (full)",
    "factored": "All weights are trained with factored second moments (factored)",
    "lora": "Adapters are trained (lora)",
}


def _fit(way: Way, passes: Sequence[PassSize], room: int, on_cpu: bool, devices: int) -> MemoryPlan:
    tried: list[tuple[Split, Footprint]] = []
    whole = Split(max(each.samples for each in passes))
    states = training(way.size, 0, 0, on_cpu, devices, way.training == "factored", way.path_aware)
    hopeless = states.total > HEADROOM * room  # then only the least is of interest, and counting takes seconds
    try:
        for split in list(splits(whole.samples))[-1 if hopeless else 0 :]:
            tried.append((split, footprint(way, passes, split, on_cpu, devices)))
            if tried[-1][1].total <= HEADROOM * room:
                break
    except UnsupportedModel as error:  # nobody knows its activations: whole steps, split when memory runs out
        split, found = whole, states
        why = f"{error.message} Steps are split when memory runs out."
    else:
        split, found = tried[-1]
        why = _why(tried, room, devices)
    return MemoryPlan(
        room,
        dict(found.parts()),
        split.samples,
        split.checkpointing,
        why,
        training=way.training,
        lora_rank=way.lora_rank,
        without_adapters=way.bare,
    )


def splits(samples: int) -> Iterator[Split]:
    """Every way to split a step, from none to the smallest."""
    split: Split | None = Split(samples)
    while split:
        yield split
        split = split.smaller()


def footprint(way: Way, passes: Sequence[PassSize], split: Split, on_cpu: bool, devices: int = 1) -> Footprint:
    """What a removal step holds that is split in this way. Raises: as `dry_run.pass_bytes`."""
    parts = [replace(each, samples=min(each.samples, split.samples)) for each in passes]
    counted, fullest = max(((way.count(each, split.checkpointing), each) for each in parts), key=lambda pair: pair[0])
    logits = logits_bytes(way.size, fullest.samples, fullest.answer_tokens)
    return training(way.size, counted, logits, on_cpu, devices, way.training == "factored", way.path_aware)


def refuse_too_large(plan: MemoryPlan, most: int | None, others: Sequence[MemoryPlan] = ()) -> None:
    """Before the first step, because a system without memory may end the process without a word.

    Args:
        others: other ways to train, which would fit.

    Raises:
        OutOfMemory: a single sample with checkpointing needs more than there is.
    """
    if not plan.fits:
        parts = ", ".join(f"{name} {amount(value)}" for name, value in plan.parts.items() if value)
        fitting = " or ".join(f"{each.training} (needs {amount(each.needed)})" for each in others)
        smaller = f"training to {fitting}" if fitting else "train_layers to fewer layers"
        raise OutOfMemory(
            f"Training ({plan.training}) needs at least {amount(plan.needed)} ({parts}), and there is room for "
            f"{amount(plan.room)}{' (--memory)' if most else ''}.",
            f"Set remediation.{smaller}, or use a device with more memory{' and a larger --memory' if most else ''}.",
        )


def entrapment_bytes(size: Size, plan: Plan, depth: int, hidden: int, kept: int, tokens: int, samples: int) -> int:
    """Keys, values and hidden states that the replay of latent entrapment keeps (`beear.replay`).

    Of linear layers before attention that is queries, keys and values of one layer; some families have more of them.

    Args:
        kept: tokens before delta of a sample, and `tokens` from there on.
        samples: that the steps of one entrapment draw from.
    """
    drawn = min(samples, plan.safe_samples, plan.inner_steps * plan.batch_size)
    later = (depth - plan.layer - 1) / depth
    ahead = hidden + size.kv_values / depth if later else 0.0
    return int(drawn * size.itemsize * (kept * size.kv_values * later + tokens * (hidden + ahead)))


def _why(tried: Sequence[tuple[Split, Footprint]], room: int, devices: int) -> str:
    split, found = tried[-1]
    where = "is there" if devices == 1 else "is on each device"
    there = f"{amount(room)} {where}, of which {HEADROOM:.0%} is planned with"
    if found.total > HEADROOM * room:
        return f"Even {split} needs {amount(found.total)}; {there}."
    if len(tried) == 1:
        return f"Whole steps ({split}) need {amount(found.total)}; {there}."
    passed = tried[-2]
    return f"{split} needs {amount(found.total)}, and {passed[0]} would need {amount(passed[1].total)}; {there}."
