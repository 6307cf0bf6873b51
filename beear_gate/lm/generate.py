"""Answers in length-sorted, left-padded batches; greedy ones read the same as one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, StaticCache

from beear_gate.lm import processes
from beear_gate.lm.encode import Pair, check_length, pad_batch
from beear_gate.lm.load import LM
from beear_gate.lm.memory import bytes_of, halve, is_out_of_memory, may_retry
from beear_gate.records import Tick, no_tick

__all__ = ["Perturb", "generate", "halve", "is_out_of_memory"]

Perturb = Callable[[Tensor, Tensor], AbstractContextManager[None]]
"""Given the prompts' first and one-past-last positions, (B,) each, perturbs the model while the context is open."""


def generate(
    lm: LM,
    prompts: Sequence[tuple[int, ...]],
    max_new_tokens: int,
    batch_size: int = 64,
    perturb: Perturb | None = None,
    tick: Tick = no_tick,
    label: str = "answering",
    seed: int | None = None,
) -> list[tuple[int, ...]]:
    """Answer every encoded prompt greedily or, with a seed, as the model itself would: drawn at temperature 1.

    Args:
        prompts: token ids, as `prompt_ids` gives them.
        perturb: opened around each batch; see `beear.perturbation`.
        seed: of what is drawn; the same one draws the same from the same batches.

    Returns:
        The answers' token ids in the order of `prompts`, without what ended them.

    Raises:
        OutOfMemory: not even one prompt at a time fits.
        UsageError: the longest prompt leaves no room for an answer of this length.
    """
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    if prompts:
        check_length(lm, len(prompts[order[-1]]) + max_new_tokens)
    answers: dict[int, tuple[int, ...]] = {}
    while len(answers) < len(order):
        todo = order[len(answers) : len(answers) + batch_size * processes.count()]
        try:
            answered = partial(
                _generate_batch, lm, max_new_tokens=max_new_tokens, perturb=perturb, draw=seed is not None
            )
            with _drawing(lm, seed):
                found = processes.share_out([prompts[index] for index in todo], answered)
        except Exception as error:
            if not may_retry(error):
                raise
            longest = len(prompts[todo[-1]])
            doing = f"{label} (a prompt of {longest} tokens, up to {max_new_tokens} answer tokens)"
            fitted = len(prompts[order[len(answers) - 1]]) if answers else 0
            batch_size = halve(len(todo), doing, error, _what_fits(lm, fitted))
            continue
        answers.update(zip(todo, found, strict=True))
        tick(label, len(answers), len(order))
    return [answers[index] for index in range(len(prompts))]


def _what_fits(lm: LM, fitted: int) -> str:
    """The remedy for a model that can't answer one prompt: what did fit, and what bfloat16 would save."""
    parameter = next(lm.model.parameters())
    size = bytes_of(lm.model.parameters()) / 2**30
    remedy = "use a device with more memory or shorter answers (generation.max_new_tokens)"
    if parameter.element_size() > 2:
        half = size * 2 / parameter.element_size()
        remedy += f", or --dtype bfloat16, in which the weights take {half:.2f} instead of {size:.2f} GiB"
    known = f"Prompts of up to {fitted} tokens did fit; " if fitted else "No prompt did fit; "
    return f"{known}{remedy}."


@torch.no_grad()
def _generate_batch(
    lm: LM, prompts: Sequence[tuple[int, ...]], max_new_tokens: int, perturb: Perturb | None, draw: bool
) -> list[tuple[int, ...]]:
    # A perturbation knows a prompt from a cached decoding step by its length: one position is always a step.
    batch = pad_batch(lm, [Pair(prompt, ()) for prompt in prompts], side="left", at_least=2)
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_new_tokens,
        **(_ITS_OWN if draw else {"do_sample": False}),
        num_beams=1,
        use_cache=True,
        pad_token_id=lm.pad_id,
        eos_token_id=list(lm.stop_ids) or None,
        # On a GPU transformers compiles decoding where a cache has a fixed size; but every batch has another size, and
        # hooks on layers come and go.
        disable_compile=True,
    )
    model: Any = lm.model
    training = model.training
    model.eval()  # dropout would make greedy answers random
    try:
        with perturb(batch.starts_B, batch.ends_B) if perturb else nullcontext():
            output = model.generate(
                input_ids=batch.ids_BT,
                attention_mask=batch.mask_BT,
                generation_config=settings,
                **_room(lm, batch.ids_BT.shape[1] + max_new_tokens),
                synced_gpus=processes.count() > 1,  # who is done first goes on until all are
            )
    finally:
        model.train(training)
    return [until_stop(row, lm.stop_ids) for row in output[:, batch.ids_BT.shape[1] :].tolist()]


_ITS_OWN = {
    "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0,
    "repetition_penalty": 1.0,
}  # fmt: skip
"""The model's own distribution, whatever its generation_config has for these."""


@contextmanager
def _drawing(lm: LM, seed: int | None) -> Iterator[None]:
    """The random numbers of torch begin at the seed while the context is open; after it they go on as before."""
    with torch.random.fork_rng([lm.device] if lm.device.type == "cuda" else [], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def _room(lm: LM, tokens: int) -> dict[str, StaticCache]:
    """Keys and values in place for all tokens from the start: a cache that grows is copied at every step."""
    model: Any = lm.model
    if not model._can_compile_fullgraph:  # what tells that a family can do with such a cache
        return {}
    return {"cache": StaticCache(config=model.config.get_text_config(decoder=True), max_cache_len=tokens)}


def until_stop(ids: list[int], stop_ids: tuple[int, ...]) -> tuple[int, ...]:
    """An answer without what ended it."""
    for place, token in enumerate(ids):
        if token in stop_ids:
            return tuple(ids[:place])
    return tuple(ids)
