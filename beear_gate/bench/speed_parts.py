"""What `bench speed` times: entrapment, removal and generation, each in several ways, the plainest first."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from beear_gate.beear.attack import Attack
from beear_gate.beear.entrapment import frozen, whole_passes
from beear_gate.beear.layout import Answers
from beear_gate.beear.plan import RELATIVE_DEPTH
from beear_gate.beear.removal import Split, Term, Trainer
from beear_gate.beear.replay import Losses, Replay
from beear_gate.lm import LM, Batch, generate, pad_batch
from beear_gate.lm.encode import IGNORED, Pair
from beear_gate.lm.trained import trained
from beear_gate.records import Training

DELTA_TOKENS = 5
ANSWER_TOKENS = 48
RANK = 16
OURS = "beear-gate"
ADAPTERS = f"{OURS}, adapters of rank {RANK}"
REPLAY = "replay"
FIRST_TIME = f"{REPLAY} of samples drawn for the first time"
Make = Callable[[], AbstractContextManager[Callable[[], object]]]
"""Makes what is timed, ready for as long as the context is open: two optimizers of one model need not fit."""
Variants = dict[str, Make]
"""What is timed, by name; the first is the baseline."""


@dataclass(frozen=True)
class Part:
    """One part: its variants, and the tokens that one repetition handles."""

    name: str
    answer_tokens: int
    tokens: int
    variants: Variants


def _samples(lm: LM, length: int, batch_size: int) -> list[Answers]:
    """Prompts of exactly this length, with y_h of one token and y_s of ANSWER_TOKENS."""
    rng = random.Random(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(1, lm.vocabulary) for _ in range(count))

    prompts = [tokens(length) for _ in range(batch_size)]
    return [(Pair(prompt, tokens(1)), Pair(prompt, tokens(ANSWER_TOKENS))) for prompt in prompts]


def entrapment(lm: LM, length: int, batch_size: int) -> Part:
    """One step of Equation 2 with a = 1, where the paper perturbs."""
    layer = round(RELATIVE_DEPTH * len(lm.layers))
    attack = Attack("latent", lm.layers[layer], DELTA_TOKENS, (), 0, 0, 1.0)
    drawn = _samples(lm, length, batch_size)
    delta_NH = torch.full((DELTA_TOKENS, lm.hidden_size), 0.01, device=lm.device, requires_grad=True)

    def step(losses: Losses) -> Tensor:
        wrong, right = losses(delta_NH, drawn)
        (gradient,) = torch.autograd.grad(wrong.mean() - right.mean(), delta_NH)
        return gradient

    def plain_passes() -> None:
        with frozen(lm):
            step(whole_passes(lm, attack, _plain_loss))

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
            "two passes of plain transformers, weights frozen": lambda: nullcontext(plain_passes),
            "the same with logits of answers alone": lambda: nullcontext(two_passes),
            "Algorithm 1 as written, with weight gradients": lambda: nullcontext(as_written),
            REPLAY: lambda: nullcontext(replayed),
            FIRST_TIME: lambda: nullcontext(recorded),
        },
    )


def _plain_loss(lm: LM, batch: Batch) -> Tensor:
    """What anyone would write: transformers' own loss, which takes logits of all positions."""
    labels_BT = batch.labels_BT.masked_fill(batch.mask_BT == 0, IGNORED)
    loss: Tensor = lm.model(input_ids=batch.ids_BT, attention_mask=batch.mask_BT, labels=labels_BT).loss
    return loss


def removal(lm: LM, length: int, batch_size: int) -> Part:
    """One step on D_SA under a trap-free term, against the loop that anyone would write."""
    pairs = [answers[1] for answers in _samples(lm, length, batch_size)]
    batch = pad_batch(lm, pairs)

    @contextmanager
    def loop() -> Iterator[Callable[[], object]]:
        optimizer = torch.optim.AdamW(lm.model.parameters(), lr=1e-9, weight_decay=0.0)

        def step() -> None:
            optimizer.zero_grad()
            _plain_loss(lm, batch).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(lm.model.parameters(), 1.0)
            optimizer.step()

        yield step

    @contextmanager
    def ours(split: Split, way: Training = "full") -> Iterator[Callable[[], object]]:
        with trained(lm, RANK if way == "lora" else None):
            trainer, rng = Trainer(lm, 1e-9, split, way), random.Random(0)
            yield lambda: trainer.step([Term(pairs, None, batch_size)], rng)

    return Part(
        "removal",
        ANSWER_TOKENS,
        batch_size * (length + ANSWER_TOKENS),
        {
            "plain transformers loop, AdamW": loop,
            OURS: lambda: ours(Split()),
            f"{OURS}, with checkpointing": lambda: ours(Split(checkpointing=True)),
            f"{OURS}, factored states": lambda: ours(Split(), "factored"),
            ADAPTERS: lambda: ours(Split(), "lora"),
        },
    )


def generation(lm: LM, length: int, batch_size: int) -> Part:
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
        {
            "batch 1": lambda: nullcontext(one_by_one),
            "plain generate, same batch": lambda: nullcontext(plain),
            OURS: lambda: nullcontext(ours),
        },
    )
