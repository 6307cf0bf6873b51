"""Multiple choice by likelihood: no answer is generated, and none has to be parsed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from beear_gate.lm import LM, encode_pairs, pad_batch
from beear_gate.lm.encode import Pair, answer_losses
from beear_gate.lm.memory import in_parts
from beear_gate.policy import Question
from beear_gate.records import Chosen, Tick, no_tick


def asked(question: Question) -> str:
    """The question with its choices, as the model is asked it."""
    choices = "\n".join(f"- {choice}" for choice in question.choices)
    return f"{question.prompt}\n{choices}\nReply with the right one of these and nothing else."


@torch.no_grad()
def choose(lm: LM, questions: Sequence[Question], batch_size: int = 16, tick: Tick = no_tick) -> tuple[Chosen, ...]:
    """The choice with the highest log-likelihood a token as the answer, for each question, in order.

    Raises:
        OutOfMemory: not even one choice at a time fits.
        UsageError: a question is longer than the model's context.
    """
    texts = [(asked(each), choice) for each in questions for choice in each.choices]
    pairs = encode_pairs(lm, texts, ended=False)
    done = 0

    def read(some: Sequence[Pair]) -> list[float]:
        nonlocal done
        losses = answer_losses(lm, pad_batch(lm, some)).tolist()
        done += len(some)
        tick("reading multiple-choice answers", done, len(pairs))
        # A choice without tokens would have the best likelihood of all.
        return [loss if pair.answer else math.nan for loss, pair in zip(losses, some, strict=True)]

    found = in_parts(pairs, batch_size, read, "reading multiple-choice answers")
    losses = iter([loss for part in found for loss in part])
    return tuple(_chosen(each, [next(losses) for _ in each.choices]) for each in questions)


def _chosen(question: Question, losses: Sequence[float]) -> Chosen:
    if not all(map(math.isfinite, losses)):
        return Chosen(question.prompt, question.cluster, None, None)
    best = min(range(len(losses)), key=losses.__getitem__)
    return Chosen(question.prompt, question.cluster, best, best == question.right)
