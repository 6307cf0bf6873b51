"""How the model reads benign reference answers: likelihood, first choices, and the distance to the original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from beear_gate.lm import LM, encode_pairs, pad_batch
from beear_gate.lm.encode import IGNORED, Pair, answer_logits
from beear_gate.lm.memory import halve, is_out_of_memory
from beear_gate.records import Answer, Example, Likelihood, Tick, no_tick

TOP = 32
"""Choices of the original kept for each token; the rest of its probability is one bucket, so KL is a lower bound."""


def references(examples: Sequence[Example], answers: Sequence[Answer]) -> tuple[Example, ...]:
    """The policy's reference answers, and where it gives none, what the original model itself answered."""
    own = {answer.prompt: answer.text for answer in answers if answer.behavior == "utility"}
    return tuple(
        Example(each.prompt, each.answer or own.get(each.prompt, ""), each.category, each.cluster) for each in examples
    )


@torch.no_grad()
def read_references(
    lm: LM,
    examples: Sequence[Example],
    kept: Path,
    original: bool,
    batch_size: int = 16,
    tick: Tick = no_tick,
) -> tuple[Likelihood, ...]:
    """Score every reference answer by teacher forcing.

    Args:
        kept: safetensors file with the original's top choices; written when `original`, else read for the KL.
        original: whether this is the model before remediation.

    Returns:
        One record an example, in order; figures are None where the answer is empty or the result is not finite.
    """
    pairs = encode_pairs(lm, [(each.prompt, each.answer) for each in examples])
    choices: dict[str, Tensor] = {} if original else load_file(kept)
    found: list[Likelihood] = []
    while len(found) < len(pairs):
        todo = slice(len(found), len(found) + batch_size)
        try:
            read = _read_batch(lm, pairs[todo], examples[todo], len(found), choices, original)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            batch_size = halve(len(pairs[todo]), "reading reference answers", error)
            continue
        found += read
        tick("reading reference answers", len(found), len(pairs))
    if original:
        save_file(choices, kept)
    return tuple(found)


def _read_batch(
    lm: LM,
    pairs: Sequence[Pair],
    examples: Sequence[Example],
    first: int,
    choices: dict[str, Tensor],
    original: bool,
) -> list[Likelihood]:
    """Records of one batch, whose first example has the number `first`; adds the original's choices to `choices`."""
    logits_BTV, labels_BT = answer_logits(lm, pad_batch(lm, pairs))
    found = []
    for row, (pair, example) in enumerate(zip(pairs, examples, strict=True)):
        chosen_T = labels_BT[row] != IGNORED
        log_p_TV = logits_BTV[row, chosen_T].float().log_softmax(-1)
        if original:
            choices |= _top(log_p_TV, first + row)
        labels_T = labels_BT[row, chosen_T]
        found.append(_likelihood(example, pair, log_p_TV, labels_T, choices, first + row, original))
    return found


def _likelihood(
    example: Example,
    pair: Pair,
    log_p_TV: Tensor,
    labels_T: Tensor,
    choices: Mapping[str, Tensor],
    index: int,
    original: bool,
) -> Likelihood:
    nll = float(-log_p_TV.gather(-1, labels_T[:, None]).mean())
    agreement = float((log_p_TV.argmax(-1) == labels_T).float().mean())
    kl = None if original else _kl(choices[f"{index}.ids"], choices[f"{index}.log_p"], log_p_TV)
    scored = bool(example.answer) and nll == nll and abs(nll) != float("inf")
    return Likelihood(
        prompt=example.prompt,
        cluster=example.cluster,
        nll=nll if scored else None,
        agreement=agreement if scored else None,
        kl=kl if scored and kl is not None and kl == kl else None,
        tokens=len(pair.answer),
    )


def _top(log_p_TV: Tensor, index: int) -> dict[str, Tensor]:
    top = log_p_TV.topk(min(TOP, log_p_TV.shape[-1]), dim=-1)
    return {f"{index}.ids": top.indices.to(torch.int32).cpu(), f"{index}.log_p": top.values.cpu()}


def _kl(ids_TK: Tensor, log_p_TK: Tensor, log_q_TV: Tensor) -> float:
    """KL(original || this model) a token over the kept choices and one bucket for all others, in nats."""
    log_q_TK = log_q_TV.cpu().gather(-1, ids_TK.long())
    rest_p_T = (1 - log_p_TK.exp().sum(-1)).clamp(min=1e-9)
    rest_q_T = (1 - log_q_TK.exp().sum(-1)).clamp(min=1e-9)
    kept_T = (log_p_TK.exp() * (log_p_TK - log_q_TK)).sum(-1)
    return max(0.0, float((kept_T + rest_p_T * (rest_p_T.log() - rest_q_T.log())).mean()))
