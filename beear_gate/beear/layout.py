"""The samples of one entrapment as one row of tokens, and batches of them as tables into it.

Prompts and answers of any lengths stand side by side without a copy for each sample, and what is recorded of a token
is found by its number (`beear.replay`).

Shape suffixes: M samples in all, B of them at once, G segments of each, F tokens in all, T slots, W slots of one
segment, A tokens of an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from beear_gate.beear.attack import Attack
from beear_gate.lm import LM
from beear_gate.lm.encode import IGNORED, Pair, check_length

Answers = tuple[Pair, ...]
"""The answers of one sample: pairs with one and the same prompt, filler included."""


@dataclass(frozen=True)
class Texts:
    """The samples of one entrapment as one row of tokens, in which a batch is no more than a table of numbers.

    Segments of a sample: its prompt before p, the rest of it, and each answer but for its last token, which predicts
    nothing. First come the `kept` tokens before p of all samples, then the others, last one token of padding.

    Attributes:
        number: of each sample, from 0.
        ids_F, places_F, parts_F: token ids; the positions that the model counts; 0 in a prompt, n in the n-th answer,
            -1 for padding.
        offsets_MG, lengths_MG: where in the row each segment begins, and its tokens.
        labels: for each answer its tokens, (M, A), IGNORED where a sample has none or is not asked for it.
    """

    number: dict[Answers, int]
    kept: int
    ids_F: Tensor
    places_F: Tensor
    parts_F: Tensor
    offsets_MG: Tensor
    lengths_MG: Tensor
    labels: tuple[Tensor, ...]


@dataclass(frozen=True)
class Layout:
    """A batch in slots: prompts before p, rests of prompts (both end at one slot for all), then each answer.

    Attributes:
        numbers_BT: of the token in each slot, in the row of all.
        begins: the first slot of the rest of the prompt, then of each answer; last, how many slots there are.
        labels: for each answer the slots whose logits predict its tokens, (A,), and those tokens, (B, A).
    """

    numbers_BT: Tensor
    begins: tuple[int, ...]
    labels: tuple[tuple[Tensor, Tensor], ...]


def lay_in_row(lm: LM, attack: Attack, samples: Sequence[Answers]) -> Texts:
    """The row of these samples, no two of which are the same.

    Raises:
        UsageError: a sample is longer than the model's context.
    """
    check_length(lm, max(len(pair.prompt) + len(pair.answer) for answers in samples for pair in answers))
    segments, places = [], []
    for answers in samples:
        prompt, kept = answers[0].prompt, _kept(attack, answers)
        segments.append([prompt[:kept], prompt[kept:], *(pair.answer[:-1] for pair in answers)])
        places.append([0, kept, *(len(prompt) for _ in answers)])
    order = [(row, 0) for row in range(len(samples))]
    order += [(row, part) for row, each in enumerate(segments) for part in range(1, len(each))]
    lengths_MG = torch.tensor([[len(segment) for segment in each] for each in segments])
    offsets_MG = torch.zeros_like(lengths_MG)
    ids, counted, parts = list[int](), list[int](), list[int]()
    for row, part in order:
        offsets_MG[row, part] = len(ids)
        segment, first = segments[row][part], places[row][part]
        ids += segment
        counted += range(first, first + len(segment))
        parts += [max(0, part - 1)] * len(segment)
    ids_F, places_F, parts_F = (
        torch.tensor([*each, padding], device=lm.device)
        for each, padding in ((ids, lm.pad_id), (counted, 0), (parts, -1))
    )
    number = {answers: place for place, answers in enumerate(samples)}
    labels = tuple(_labels(pairs) for pairs in zip(*samples, strict=True))
    return Texts(number, int(lengths_MG[:, 0].sum()), ids_F, places_F, parts_F, offsets_MG, lengths_MG, labels)


def _labels(pairs: Sequence[Pair]) -> Tensor:
    labels_MA = torch.full((len(pairs), max(len(pair.answer) for pair in pairs)), IGNORED)
    for row, pair in enumerate(pairs):
        labels_MA[row, pair.forced : len(pair.answer)] = torch.tensor(pair.answer[pair.forced :])
    return labels_MA


def _kept(attack: Attack, answers: Answers) -> int:
    """p: prompt tokens before the first that delta reaches."""
    zero = torch.zeros(1, dtype=torch.long)
    return max(0, int(attack.last(zero, zero + len(answers[0].prompt))) - attack.n_tokens)


def lay_out(texts: Texts, numbers: Sequence[int]) -> Layout:
    """Put samples side by side: prompts to the right of their slots, answers to the left."""
    offsets_BG, lengths_BG = texts.offsets_MG[numbers], texts.lengths_MG[numbers]
    padding, device = len(texts.ids_F) - 1, texts.ids_F.device
    segments, begins = [], [0]
    for part, width in enumerate(lengths_BG.amax(0).tolist()):
        offset_B1, length_B1 = offsets_BG[:, part, None], lengths_BG[:, part, None]
        place_BW = torch.arange(width) - (width - length_B1 if part < 2 else 0)
        inside_BW = (place_BW >= 0) & (place_BW < length_B1)
        segments.append(torch.where(inside_BW, offset_B1 + place_BW, padding))
        begins.append(begins[-1] + width)
    labels = []
    for each, begin, end in zip(texts.labels, begins[2:], begins[3:], strict=False):
        slots_A = torch.tensor([begins[2] - 1, *range(begin, end)])
        labels_BA = each[numbers, : len(slots_A)]
        wanted_A = (labels_BA != IGNORED).any(0)
        labels.append((slots_A[wanted_A], labels_BA[:, wanted_A].to(device)))
    return Layout(torch.cat(segments, 1).to(device), tuple(begins[1:]), tuple(labels))
