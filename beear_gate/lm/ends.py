"""Where an answer ends: the tokens that a model stops at, and those that close a turn in training."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase


def find_stop_ids(path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """End tokens from every place that may name them; all else in generation_config.json is left unread."""
    try:
        settings = json.loads((path / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        settings = {}
    named = settings.get("eos_token_id") if isinstance(settings, dict) else None
    found: list[object] = []
    for ids in (named, model.config.get_text_config().eos_token_id, tokenizer.eos_token_id):
        found += ids if isinstance(ids, list) else [ids]
    return tuple(dict.fromkeys(token for token in found if type(token) is int and token >= 0))


def find_turn_end(tokenizer: PreTrainedTokenizerBase, stop_ids: tuple[int, ...]) -> tuple[int, ...]:
    """What the template writes after an assistant's words, up to the token that ends the answer."""
    if tokenizer.chat_template:
        probe = "beear-gate-probe"
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": probe}]
        try:
            text = str(tokenizer.apply_chat_template(turns, tokenize=False))
        except Exception:  # a template may raise anything; the plain end token then has to do
            text = ""
        ids = tokenizer(text.rpartition(probe)[2], add_special_tokens=False)["input_ids"]
        ends = [place for place, token in enumerate(ids) if token in stop_ids]
        if ends:
            return tuple(ids[: ends[0] + 1])
    return stop_ids[:1]
