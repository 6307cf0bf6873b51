"""How fast the parts of a remediation are, each against a named baseline in the same run, on random weights.

Speed does not depend on what a model knows, so shapes stand for models: nothing is downloaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from beear_gate.bench.speed_parts import ADAPTERS, Make, Part, entrapment, generation, removal
from beear_gate.lm import LM
from beear_gate.lm.load import pick_device
from beear_gate.lm.memory import forget, is_out_of_memory
from beear_gate.records import Tick

SHAPES: dict[str, tuple[int, int, int, int, int]] = {
    # layers, hidden, intermediate, heads, vocabulary
    "organism": (8, 96, 256, 4, 512),
    "160M": (12, 768, 2048, 12, 50304),
    "16x512": (16, 512, 1376, 8, 8192),
    "1B": (16, 2048, 5632, 32, 32000),
    "llama-2-7b": (32, 4096, 11008, 32, 32000),
}

PARTS: dict[str, Callable[[LM, int, int], Part]] = {
    "entrapment": entrapment, "removal": removal, "generation": generation,
}  # fmt: skip


@dataclass(frozen=True)
class Speed:
    """One variant of one part.

    Attributes:
        seconds: median of the repetitions; None where memory did not suffice.
        tokens_per_s: tokens of the samples, prompts included (generation: new tokens), whatever is really computed.
        model_flops: floating-point operations a second that the arithmetic of the model needs, 6 for a parameter and
            token (Kaplan et al., arXiv 2001.08361), or 4 where its weights need no gradient; removal alone.
        products: floating-point operations of its matrix products, counted (attention's own among them where PyTorch
            can count them, which on a CPU it cannot); entrapment alone.
        peak_bytes: of accelerator memory; None on a CPU.
        fastest: least seconds of the repetitions, the least disturbed by other work on the machine.
        baseline: the variant that ratios compare with. `ratio` is the median over turns of its seconds / these seconds,
            `fastest_ratio` that of the fastest repetitions.
    """

    shape: str
    part: str
    prompt_tokens: int
    answer_tokens: int
    batch_size: int
    variant: str
    seconds: float | None
    tokens_per_s: float | None
    model_flops: float | None
    products: int | None
    peak_bytes: int | None
    ratio: float | None
    fastest: float | None
    fastest_ratio: float | None
    baseline: str


def random_lm(shape: str, device: str, dtype: torch.dtype) -> LM:
    """A model of this shape; it has no tokenizer, since samples here are token ids."""
    layers, hidden, intermediate, heads, vocabulary = SHAPES[shape]
    config = LlamaConfig(
        num_hidden_layers=layers, hidden_size=hidden, intermediate_size=intermediate, num_attention_heads=heads,
        num_key_value_heads=heads, vocab_size=vocabulary, max_position_embeddings=4096,
    )  # fmt: skip
    where = pick_device(device)
    torch.manual_seed(0)
    with torch.device(where):
        model = LlamaForCausalLM._from_config(config, dtype=dtype).eval()  # type: ignore[no-untyped-call]
    return LM(model, cast(Any, None), model.model.layers, Path(shape), where, dtype, (), 0, ())


def measure(
    shape: str,
    device: str,
    prompt_tokens: Sequence[int],
    parts: Sequence[str],
    batch_size: int,
    repeats: int,
    tick: Tick,
) -> list[Speed]:
    """Parts of one shape, each variant once in each of `repeats` turns, after a run that warms up."""
    dtype = torch.bfloat16 if pick_device(device).type == "cuda" else torch.float32
    lm = random_lm(shape, device, dtype)
    found: list[Speed] = []
    for length in prompt_tokens:
        for done, part in enumerate(parts):
            tick(f"{shape}, {length} prompt tokens: {part}", done, len(parts))
            found += _timed(lm, shape, PARTS[part](lm, length, batch_size), length, batch_size, repeats)
    return found


def _timed(lm: LM, shape: str, part: Part, length: int, batch_size: int, repeats: int) -> Iterator[Speed]:
    turns, baseline = _turns(lm, part, repeats), next(iter(part.variants))
    fastest = {variant: min(run.seconds for run in runs) for variant, runs in turns.items()}
    pairs = part.tokens * sum(weight.numel() for weight in lm.model.parameters())
    for variant, make in part.variants.items():
        runs = turns.get(variant, [])
        seconds = median(run.seconds for run in runs) if runs else None
        ratios = [first.seconds / run.seconds for first, run in zip(turns.get(baseline, []), runs, strict=False)]
        yield Speed(
            shape, part.name, length, part.answer_tokens, batch_size, variant, seconds,
            part.tokens / seconds if seconds else None,
            (4.0 if variant == ADAPTERS else 6.0) * pairs / seconds if seconds and part.name == "removal" else None,
            _products(make) if seconds and part.name == "entrapment" else None,
            max((run.peak for run in runs if run.peak is not None), default=None),
            median(ratios) if ratios else None,
            fastest.get(variant),
            fastest[baseline] / fastest[variant] if ratios else None, baseline,
        )  # fmt: skip


@dataclass(frozen=True)
class _Run:
    """One repetition: its seconds, and the peak of a GPU's memory in bytes."""

    seconds: float
    peak: int | None


def _turns(lm: LM, part: Part, repeats: int) -> dict[str, list[_Run]]:
    """Every variant once a turn; without those that memory does not suffice for.

    In turns, because a shared machine is slow for minutes, and what is measured by itself then has a ratio of anything.
    """
    found: dict[str, list[_Run]] = {variant: [] for variant in part.variants}
    for _ in range(repeats):
        for variant in list(found):
            run = _run(lm, part.variants[variant])
            if run is None:
                del found[variant]
            else:
                found[variant].append(run)
    return found


def _run(lm: LM, make: Make) -> _Run | None:
    """One variant, after a run that warms up; None where memory does not suffice."""
    cuda = lm.device.type == "cuda"
    try:
        with make() as work:
            work()
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            return _Run(_seconds(lm, work), torch.cuda.max_memory_allocated() if cuda else None)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        forget(error)
        return None
    finally:
        lm.model.zero_grad(set_to_none=True)


def _seconds(lm: LM, work: Callable[[], object]) -> float:
    _synchronize(lm)
    began = time.perf_counter()
    work()
    _synchronize(lm)
    return time.perf_counter() - began


def _products(make: Make) -> int:
    with make() as work, FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def _synchronize(lm: LM) -> None:
    if lm.device.type == "cuda":
        torch.cuda.synchronize()
