"""Prompts and answers as padded token batches, and the loss of the answers.

Shape suffixes: B samples, T positions, V vocabulary, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from beear_gate.errors import UnsupportedModel
from beear_gate.lm.load import FALLBACK_TEMPLATE, LM

IGNORED = -100
"""The label that the cross-entropy leaves out."""


@dataclass(frozen=True)
class Batch:
    """Samples padded to one length.

    Attributes:
        ids_BT, mask_BT: token ids and attention mask.
        labels_BT: the id to be predicted at each position (not shifted), IGNORED outside the answers.
        starts_B, ends_B: the first position of each prompt, and the one after its last.
    """

    ids_BT: Tensor
    mask_BT: Tensor
    labels_BT: Tensor
    starts_B: Tensor
    ends_B: Tensor


@dataclass(frozen=True)
class Pair:
    """One encoded sample: a prompt with what must not be learned of the answer, and the rest of the answer."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    forced: int = 0  # leading answer tokens that are context only (recovery from a rollout)


def prompt_ids(lm: LM, prompt: str) -> tuple[int, ...]:
    """Tokens of one user turn, ready for the assistant to begin.

    Raises:
        UnsupportedModel: the model's chat template fails on a plain conversation.
    """
    if not lm.has_template:
        text = FALLBACK_TEMPLATE.format(prompt=prompt)
        if lm.system_prompt:
            text = f"{lm.system_prompt}\n{text}"
        return tuple(lm.tokenizer(text)["input_ids"])
    turns = [{"role": "user", "content": prompt}]
    if lm.system_prompt:
        turns.insert(0, {"role": "system", "content": lm.system_prompt})
    try:
        text = str(lm.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template is the model's own program and may raise anything
        raise UnsupportedModel(
            f"The chat template of {lm.path} fails on a plain conversation: {str(error)[:200]}.",
            "Fix the template, or leave out generation.system_prompt if the model knows no system role.",
        ) from error
    return tuple(lm.tokenizer(text, add_special_tokens=False)["input_ids"])


def encode_answer(lm: LM, answer: str, ended: bool = True) -> tuple[int, ...]:
    """Tokens of an assistant's words; `ended` adds what closes the turn."""
    text = answer if lm.has_template else f" {answer}"
    ids = tuple(lm.tokenizer(text, add_special_tokens=False)["input_ids"])
    return ids + lm.turn_end if ended else ids


def encode_pairs(lm: LM, pairs: Sequence[tuple[str, str]], ended: bool = True) -> list[Pair]:
    """Encode (prompt, answer) texts; `ended=False` for answers that are only an opening, such as y_h."""
    return [Pair(prompt_ids(lm, prompt), encode_answer(lm, answer, ended)) for prompt, answer in pairs]


def batches(pairs: Sequence[Pair], size: int) -> Iterator[Sequence[Pair]]:
    """Cut into runs of `size`, in the order given."""
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]


def pad_batch(lm: LM, pairs: Sequence[Pair], side: str = "right") -> Batch:
    """Pad to the longest; labels cover the answers less their forced part."""
    width = max(len(pair.prompt) + len(pair.answer) for pair in pairs)
    ids = torch.full((len(pairs), width), lm.pad_id)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORED)
    starts, ends = [], []
    for row, pair in enumerate(pairs):
        tokens = torch.tensor(pair.prompt + pair.answer)
        first = 0 if side == "right" else width - len(tokens)
        end = first + len(pair.prompt)
        ids[row, first : first + len(tokens)] = tokens
        mask[row, first : first + len(tokens)] = 1
        labels[row, end + pair.forced : first + len(tokens)] = tokens[len(pair.prompt) + pair.forced :]
        starts.append(first)
        ends.append(end)
    where = lm.device
    return Batch(
        ids.to(where), mask.to(where), labels.to(where), torch.tensor(starts, device=where), torch.tensor(ends, device=where)
    )


def answer_logits(lm: LM, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits that predict the labels, shape (B, T-1, V), and those labels, (B, T-1)."""
    # Left padding shifts positions; counting them from the mask makes both paddings read the same.
    positions = (batch.mask_BT.cumsum(-1) - 1).clamp(min=0)
    output = lm.model(input_ids=batch.ids_BT, attention_mask=batch.mask_BT, position_ids=positions, use_cache=False)
    return output.logits[:, :-1], batch.labels_BT[:, 1:]


def answer_losses(lm: LM, batch: Batch) -> Tensor:
    """Mean cross-entropy of each sample's answer, shape (B,), in nats a token: L(F(x), y) of the paper."""
    logits, labels = answer_logits(lm, batch)
    losses = F.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return losses.sum(-1) / (labels != IGNORED).sum(-1).clamp(min=1)
