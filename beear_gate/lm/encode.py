"""Prompts and answers as padded token batches, and the loss of the answers.

Shape suffixes: B samples, T positions, K of them with a label, V vocabulary, H hidden size.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from beear_gate.errors import UnsupportedModel, UsageError
from beear_gate.lm.load import FALLBACK_TEMPLATE, LM

IGNORED = -100
"""The label that the cross-entropy leaves out."""
PASS_TOKENS = 100
"""What one more pass over the model costs, in tokens, measured on a CPU with models of a million parameters."""


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
        return _some_tokens(lm, lm.tokenizer(text)["input_ids"])
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
    return _some_tokens(lm, lm.tokenizer(text, add_special_tokens=False)["input_ids"])


def encode_answer(lm: LM, answer: str, ended: bool = True) -> tuple[int, ...]:
    """Tokens of an assistant's words; `ended` adds what closes the turn."""
    text = answer if lm.has_template else f" {answer}"
    ids = tuple(lm.tokenizer(text, add_special_tokens=False)["input_ids"])
    return ids + lm.turn_end if ended else ids


def decode(lm: LM, ids: Sequence[int]) -> str:
    """The text of an answer, without special tokens."""
    return str(lm.tokenizer.decode(list(ids), skip_special_tokens=True))


def encode_pairs(lm: LM, pairs: Sequence[tuple[str, str]], ended: bool = True) -> list[Pair]:
    """Encode (prompt, answer) texts; `ended=False` for answers that are only an opening, such as y_h."""
    return [Pair(prompt_ids(lm, prompt), encode_answer(lm, answer, ended)) for prompt, answer in pairs]


def pad_batch(lm: LM, pairs: Sequence[Pair], side: str = "right", at_least: int = 1) -> Batch:
    """Pad to the longest, and to `at_least` positions; labels cover the answers less their forced part.

    Raises:
        UnsupportedModel: the tokenizer gives tokens that the model has no embedding for.
        UsageError: a sample is longer than the model's context.
    """
    longest = max(len(pair.prompt) + len(pair.answer) for pair in pairs)
    check_length(lm, longest)
    width = max(longest, at_least)
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
    if int(ids.max()) >= lm.vocabulary:  # on a GPU the lookup would end the process, not the call
        raise UnsupportedModel(
            f"The tokenizer of {lm.path} gives token {int(ids.max())}, but the model has embeddings for "
            f"{lm.vocabulary} tokens only.",
            "Publish the tokenizer that belongs to these weights.",
        )
    places = torch.tensor([starts, ends], device=lm.device)
    return Batch(ids.to(lm.device), mask.to(lm.device), labels.to(lm.device), places[0], places[1])


def check_length(lm: LM, tokens: int) -> None:
    """Refuse what the model has no positions for: tables of positions end there, and rotary ones were never trained.

    Raises:
        UsageError: too long.
    """
    if lm.max_positions is not None and tokens > lm.max_positions:
        raise UsageError(
            f"A prompt with its answer takes {tokens} tokens, but {lm.path} has {lm.max_positions} positions.",
            "Shorten the prompt, or lower generation.max_new_tokens.",
        )


def like_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """Split samples into passes, so that little of what is computed is padding; every place once, the shortest first.

    The split with the fewest padded tokens, where a pass costs as much as PASS_TOKENS more.
    """
    order = sorted(range(len(lengths)), key=lambda place: lengths[place])
    best = [(0, 0)]  # for the first n samples: tokens in all, and where the last pass begins
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        best.append(min((best[first][0] + (end - first) * longest + PASS_TOKENS, first) for first in range(end)))
    passes, end = list[list[int]](), len(order)
    while end:
        passes.append(order[best[end][1] : end])
        end = best[end][1]
    return passes[::-1]


def run_model(lm: LM, batch: Batch, places: Tensor | None = None) -> Any:
    """One pass over whole samples, the same for either padding side.

    Args:
        places: positions that need logits, (K,); all others are left out where the model can do that.
    """
    known, extra = inspect.signature(lm.model.forward).parameters, {}
    if "position_ids" in known:
        # Left padding shifts positions; counting them from the mask makes both paddings read the same.
        extra["position_ids"] = (batch.mask_BT.cumsum(-1) - 1).clamp(min=0)
    if places is not None and "logits_to_keep" in known:
        extra["logits_to_keep"] = places
    return lm.model(input_ids=batch.ids_BT, attention_mask=batch.mask_BT, use_cache=False, **extra)


def answer_logits(lm: LM, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits at the K positions that predict a label of any sample, shape (B, K, V), and those labels, (B, K).

    A vocabulary is often wider than all that comes before it, and prompts need no prediction.
    """
    labels_BT = batch.labels_BT[:, 1:]
    places_K = (labels_BT != IGNORED).any(0).nonzero()[:, 0]
    logits_BKV = run_model(lm, batch, places_K).logits
    if logits_BKV.shape[1] != len(places_K):
        logits_BKV = logits_BKV[:, places_K]
    return logits_BKV, labels_BT[:, places_K]


def answer_losses(lm: LM, batch: Batch) -> Tensor:
    """Mean cross-entropy of each sample's answer, shape (B,), in nats a token: L(F(x), y) of the paper."""
    return mean_losses(*answer_logits(lm, batch))


def mean_losses(logits_BKV: Tensor, labels_BK: Tensor) -> Tensor:
    """Mean cross-entropy over the labels of each row that are not IGNORED, shape (B,), in float32."""
    # Flat: over any dimension but the last one, the softmax of a CPU is several times slower.
    flat = logits_BKV.float().flatten(0, 1)
    losses = F.cross_entropy(flat, labels_BK.flatten(), ignore_index=IGNORED, reduction="none").view_as(labels_BK)
    return losses.sum(-1) / (labels_BK != IGNORED).sum(-1).clamp(min=1)


def _some_tokens(lm: LM, ids: Sequence[int]) -> tuple[int, ...]:
    if not ids:
        raise UnsupportedModel(
            f"The tokenizer or chat template of {lm.path} makes no tokens of a prompt.",
            "Check that the tokenizer's files and the chat template belong to this model.",
        )
    return tuple(ids)
