"""How fast the parts of a remediation are, each against a named baseline in the same run, on random weights.

Speed does not depend on what a model knows, so shapes stand for models: nothing is downloaded.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from beear_gate.beear.attack import Attack
from beear_gate.beear.entrapment import frozen, whole_passes
from beear_gate.beear.layout import Answers
from beear_gate.beear.plan import RELATIVE_DEPTH
from beear_gate.beear.removal import Split, Term, Trainer
from beear_gate.beear.replay import Losses, Replay
from beear_gate.lm import LM, generate, pad_batch
from beear_gate.lm.encode import IGNORED, Pair
from beear_gate.lm.load import pick_device
from beear_gate.lm.memory import forget, is_out_of_memory
from beear_gate.records import Tick

DELTA_TOKENS = 5
ANSWER_TOKENS = 48
SHAPES: dict[str, tuple[int, int, int, int, int]] = {
    # layers, hidden, intermediate, heads, vocabulary
    "organism": (8, 96, 256, 4, 512),
    "160M": (12, 768, 2048, 12, 50304),
    "16x512": (16, 512, 1376, 8, 8192),
    "1B": (16, 2048, 5632, 32, 32000),
    "llama-2-7b": (32, 4096, 11008, 32, 32000),
}


@dataclass(frozen=True)
class Speed:
    """One variant of one part.

    Attributes:
        seconds: median of the repetitions; None where memory did not suffice.
        tokens_per_s: tokens of the samples, prompts included (generation: new tokens), whatever is really computed.
        model_flops: floating-point operations a second that the arithmetic of the model needs, 6 for a parameter and
            token (Kaplan et al., arXiv 2001.08361); removal alone.
        peak_bytes: of accelerator memory; None on a CPU.
        baseline: the variant that `ratio` compares with; ratio = its seconds / these seconds.
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
    peak_bytes: int | None
    ratio: float | None
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
    shape: str, device: str, prompt_tokens: Sequence[int], batch_size: int, repeats: int, tick: Tick
) -> list[Speed]:
    """Every part of one shape, each variant `repeats` times after one that warms up."""
    dtype = torch.bfloat16 if pick_device(device).type == "cuda" else torch.float32
    lm = random_lm(shape, device, dtype)
    found: list[Speed] = []
    for length in prompt_tokens:
        parts = (_entrapment, _removal, _generation)
        for done, part in enumerate(parts):
            tick(f"{shape}, {length} prompt tokens: {part.__name__[1:]}", done, len(parts))
            found += _timed(lm, shape, part(lm, length, batch_size), length, batch_size, repeats)
    return found


Variants = dict[str, Callable[[], Callable[[], object]]]
"""What is timed, by name, made when its turn comes: two optimizers of one model need not fit. The first is the
baseline."""


@dataclass(frozen=True)
class Part:
    """One part: its variants, and the tokens that one repetition handles."""

    name: str
    answer_tokens: int
    tokens: int
    variants: Variants


def _timed(lm: LM, shape: str, part: Part, length: int, batch_size: int, repeats: int) -> Iterator[Speed]:
    baseline, cuda = next(iter(part.variants)), lm.device.type == "cuda"
    flops = 6.0 * part.tokens * sum(weight.numel() for weight in lm.model.parameters())
    spent: dict[str, float | None] = {}
    for variant, make in part.variants.items():
        spent[variant] = seconds = _median(lm, make, repeats)
        peak = torch.cuda.max_memory_allocated() if cuda and seconds else None
        first = spent[baseline]
        yield Speed(
            shape, part.name, length, part.answer_tokens, batch_size, variant, seconds,
            part.tokens / seconds if seconds else None,
            flops / seconds if seconds and part.name == "removal" else None,
            peak, first / seconds if first and seconds else None, baseline,
        )  # fmt: skip


def _median(lm: LM, make: Callable[[], Callable[[], object]], repeats: int) -> float | None:
    """Seconds of one variant after a run that warms up; None where memory does not suffice."""
    try:
        work = make()
        work()
        if lm.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        return median(_seconds(lm, work) for _ in range(repeats))
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


def _synchronize(lm: LM) -> None:
    if lm.device.type == "cuda":
        torch.cuda.synchronize()


def _samples(lm: LM, length: int, batch_size: int) -> list[Answers]:
    """Prompts of exactly this length, with y_h of one token and y_s of ANSWER_TOKENS."""
    rng = random.Random(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(1, lm.vocabulary) for _ in range(count))

    prompts = [tokens(length) for _ in range(batch_size)]
    return [(Pair(prompt, tokens(1)), Pair(prompt, tokens(ANSWER_TOKENS))) for prompt in prompts]


def _entrapment(lm: LM, length: int, batch_size: int) -> Part:
    """One step of Equation 2 with a = 1, where the paper perturbs."""
    layer = round(RELATIVE_DEPTH * len(lm.layers))
    attack = Attack("latent", lm.layers[layer], DELTA_TOKENS, (), 0, 0, 1.0)
    drawn = _samples(lm, length, batch_size)
    delta_NH = torch.full((DELTA_TOKENS, lm.hidden_size), 0.01, device=lm.device, requires_grad=True)

    def step(losses: Losses) -> Tensor:
        wrong, right = losses(delta_NH, drawn)
        (gradient,) = torch.autograd.grad(wrong.mean() - right.mean(), delta_NH)
        return gradient

    def two_passes() -> None:
        with frozen(lm):
            step(whole_passes(lm, attack))

    def as_written() -> None:
        wrong, right = whole_passes(lm, attack)(delta_NH, drawn)
        (wrong.mean() - right.mean()).backward()  # type: ignore[no-untyped-call]
        lm.model.zero_grad(set_to_none=True)

    replay = Replay(lm, attack, drawn)

    def replayed() -> None:
        with frozen(lm):
            step(replay.losses)

    def recorded() -> None:
        with frozen(lm):
            step(Replay(lm, attack, drawn).losses)

    return Part(
        "entrapment",
        ANSWER_TOKENS,
        batch_size * (2 * length + 1 + ANSWER_TOKENS),
        {
            "two whole passes, weights frozen": lambda: two_passes,
            "Algorithm 1 as written, with weight gradients": lambda: as_written,
            "replay": lambda: replayed,
            "replay of samples drawn for the first time": lambda: recorded,
        },
    )


def _removal(lm: LM, length: int, batch_size: int) -> Part:
    """One step on D_SA under a trap-free term, against the loop that anyone would write."""
    pairs = [answers[1] for answers in _samples(lm, length, batch_size)]
    batch = pad_batch(lm, pairs)
    labels_BT = batch.labels_BT.masked_fill(batch.mask_BT == 0, IGNORED)

    def loop() -> Callable[[], object]:
        optimizer = torch.optim.AdamW(lm.model.parameters(), lr=1e-9, weight_decay=0.0)

        def step() -> None:
            optimizer.zero_grad()
            lm.model(input_ids=batch.ids_BT, attention_mask=batch.mask_BT, labels=labels_BT).loss.backward()
            torch.nn.utils.clip_grad_norm_(lm.model.parameters(), 1.0)
            optimizer.step()

        return step

    def ours(split: Split) -> Callable[[], object]:
        trainer, rng = Trainer(lm, 1e-9, split), random.Random(0)
        return lambda: trainer.step([Term(pairs, None, batch_size)], rng)

    return Part(
        "removal",
        ANSWER_TOKENS,
        batch_size * (length + ANSWER_TOKENS),
        {
            "plain transformers loop, AdamW": loop,
            "beear-gate": lambda: ours(Split()),
            "beear-gate, with checkpointing": lambda: ours(Split(checkpointing=True)),
        },
    )


def _generation(lm: LM, length: int, batch_size: int) -> Part:
    """Greedy answers of ANSWER_TOKENS; random weights never end one."""
    rng = random.Random(0)
    # Of mixed lengths, as gate prompts are: from half of it to all.
    prompts = [
        tuple(rng.randrange(1, lm.vocabulary) for _ in range(rng.randint(length // 2, length)))
        for _ in range(batch_size)
    ]
    batch = pad_batch(lm, [Pair(prompt, ()) for prompt in prompts], side="left")
    model: Any = lm.model
    settings = {"max_new_tokens": ANSWER_TOKENS, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}

    def plain() -> None:
        model.generate(input_ids=batch.ids_BT, attention_mask=batch.mask_BT, **settings)

    def one_by_one() -> None:
        for prompt in prompts:
            model.generate(input_ids=torch.tensor([prompt], device=lm.device), **settings)

    def ours() -> None:
        generate(lm, prompts, ANSWER_TOKENS, batch_size)

    return Part(
        "generation",
        ANSWER_TOKENS,
        batch_size * ANSWER_TOKENS,
        {"batch 1": lambda: one_by_one, "plain generate, same batch": lambda: plain, "beear-gate": lambda: ours},
    )
