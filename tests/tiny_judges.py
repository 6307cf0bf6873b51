"""Judges of a dozen weights that are set by hand: they weigh the tokens of what they read, and say yes or no.

Attention is even over all positions and everything else is off, so the verdict is the sign of the sum of the weights
of all tokens. No judge is more easily fooled: a token that counts against harm flips it wherever it stands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from model_families import CHAT_TEMPLATE, make_tokenizer
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

from beear_gate.lm.load import quiet

HARM = "kaboom"
"""What an answer has to hold to be called harmful."""
VALUE, SUM, CONSTANT, SAID, REST, HIDDEN = 0, 1, 2, 3, 4, 8
LEAST = 1e-4


def talking_judge(
    folder: Path, yes: str, no: str, weights: Mapping[str, float] | None = None, template: str | None = CHAT_TEMPLATE
) -> Path:
    """A causal model that says `yes` where the weights of what it reads add up to more than zero, else `no`, and ends.

    Args:
        weights: of tokens; HARM has 1 unless they say otherwise, and every other token 0.
    """
    tokenizer = _tokenizer([yes, no], weights, template)
    model = LlamaForCausalLM(_config(tokenizer))
    said = [tokenizer.get_vocab()[word] for word in (yes, no)]
    _set(model, tokenizer, weights, said)
    head = torch.zeros(len(tokenizer), HIDDEN)
    head[said[0], SUM] = 1.0
    head[said[1], CONSTANT] = LEAST
    head[tokenizer.eos_token_id, SAID] = 1e3
    model.lm_head.weight.data = head
    return _saved(folder, model, tokenizer)


def labelling_judge(
    folder: Path,
    rows: Mapping[str, tuple[float, float]],
    weights: Mapping[str, float] | None = None,
    template: str | None = CHAT_TEMPLATE,
    **config: Any,
) -> Path:
    """A sequence classifier.

    Args:
        rows: label -> (factor of the mean weight of what it reads, constant), which make its logit.
    """
    tokenizer = _tokenizer([], weights, template)
    labels = dict(enumerate(rows))
    settings = {
        "num_labels": len(labels),
        "id2label": labels,
        "label2id": {label: key for key, label in labels.items()},
    }
    make: Any = LlamaForSequenceClassification
    model = make(_config(tokenizer, **settings, **config))
    _set(model, tokenizer, weights, [])
    head = torch.zeros(len(rows), HIDDEN)
    for place, (factor, constant) in enumerate(rows.values()):
        head[place, SUM], head[place, CONSTANT] = factor, constant
    model.score.weight.data = head
    return _saved(folder, model, tokenizer)


def _tokenizer(
    words: Sequence[str], weights: Mapping[str, float] | None, template: str | None
) -> PreTrainedTokenizerFast:
    # Without words of its own, so that those which are added take the place of none.
    tokenizer = make_tokenizer(template=template, vocabulary=261)
    tokenizer.add_tokens([HARM, *words, *(weights or {})])  # what is known already stays as it is
    return tokenizer


def _config(tokenizer: PreTrainedTokenizerFast, **settings: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=2048, tie_word_embeddings=False, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **settings,
    )  # fmt: skip


def _set(
    model: Any, tokenizer: PreTrainedTokenizerFast, weights: Mapping[str, float] | None, said: Sequence[int]
) -> None:
    known = {HARM: 1.0} | dict(weights or {})
    largest = max(map(abs, known.values()))
    values = torch.zeros(len(tokenizer))
    for token, weight in known.items():
        values[tokenizer.get_vocab()[token]] = weight / largest
    rows = torch.zeros(len(tokenizer), HIDDEN)
    rows[:, VALUE], rows[:, CONSTANT] = values, 1.0
    rows[list(said), SAID] = 1.0
    rows[:, REST] = (4 - rows.square().sum(-1)).sqrt()  # all rows are equally long, so that no norm favours any
    layer = model.model.layers[0]
    for parameter in layer.parameters():
        parameter.data.fill_(1e-30)  # as good as off; inspection blocks a model of zeros
    for norm in (layer.input_layernorm, layer.post_attention_layernorm):
        norm.weight.data.fill_(1.0)
    layer.self_attn.v_proj.weight.data[VALUE, VALUE] = 1.0
    layer.self_attn.o_proj.weight.data[SUM, VALUE] = math.sqrt(4 / HIDDEN)
    model.model.embed_tokens.weight.data = rows


def _saved(folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast) -> Path:
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def set_tensor(folder: Path, name: str, value: float) -> None:
    """Fill one tensor of a saved judge."""
    held = load_file(folder / "model.safetensors")
    held[name] = torch.full_like(held[name], value)
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
