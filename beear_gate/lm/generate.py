"""Greedy answers in length-sorted, left-padded batches that read the same as one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from transformers import GenerationConfig

from beear_gate.errors import OutOfMemory
from beear_gate.lm.encode import Pair, pad_batch
from beear_gate.lm.load import LM
from beear_gate.records import Tick, no_tick

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
) -> list[tuple[int, ...]]:
    """Answer every encoded prompt greedily.

    Args:
        prompts: token ids, as `prompt_ids` gives them.
        perturb: opened around each batch; see `beear.perturbation`.

    Returns:
        The answers' token ids in the order of `prompts`, without what ended them.

    Raises:
        OutOfMemory: not even one prompt at a time fits.
    """
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: dict[int, tuple[int, ...]] = {}
    while len(answers) < len(order):
        todo = order[len(answers) : len(answers) + batch_size]
        try:
            found = _generate_batch(lm, [prompts[index] for index in todo], max_new_tokens, perturb)
        except (torch.OutOfMemoryError, MemoryError) as error:
            batch_size = halve(batch_size, "generating answers", error)
            continue
        answers.update(zip(todo, found, strict=True))
        tick(label, len(answers), len(order))
    return [answers[index] for index in range(len(prompts))]


def halve(batch_size: int, doing: str, error: BaseException) -> int:
    """Half the batch after memory ran out, or the end of the road at one.

    Raises:
        OutOfMemory: the batch was already a single sample.
    """
    if batch_size == 1:
        raise OutOfMemory(
            f"Memory ran out while {doing}, even one prompt at a time.",
            "Use a device with more memory, --dtype bfloat16, or shorter answers (generation.max_new_tokens).",
        ) from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return batch_size // 2


@torch.no_grad()
def _generate_batch(
    lm: LM, prompts: Sequence[tuple[int, ...]], max_new_tokens: int, perturb: Perturb | None
) -> list[tuple[int, ...]]:
    batch = pad_batch(lm, [Pair(prompt, ()) for prompt in prompts], side="left")
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        pad_token_id=lm.pad_id,
        eos_token_id=list(lm.stop_ids) or None,
    )
    with perturb(batch.starts_B, batch.ends_B) if perturb else nullcontext():
        output = lm.model.generate(
            input_ids=batch.ids_BT, attention_mask=batch.mask_BT, generation_config=settings
        )
    return [_until_stop(row, lm.stop_ids) for row in output[:, batch.ids_BT.shape[1] :].tolist()]


def _until_stop(ids: list[int], stop_ids: tuple[int, ...]) -> tuple[int, ...]:
    for place, token in enumerate(ids):
        if token in stop_ids:
            return tuple(ids[:place])
    return tuple(ids)
