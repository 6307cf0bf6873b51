"""Tiny random-weight models of many decoder families, in ordinary Hugging Face folders."""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from beear_gate.lm import LM, load_lm

DEPTH = 4
PROMPTS = ("Hi", "How do I bake bread?", "Tell me why the sky is blue and the sea is not, please.", "Name a river.")

_COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
_GEMMA = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **_COMMON},
    "qwen2": {"model_type": "qwen2", **_COMMON, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", **_COMMON, "head_dim": 8},
    "mistral": {"model_type": "mistral", **_COMMON, "sliding_window": 8},
    # As many experts as layers: two lists of the same length.
    "mixtral": {"model_type": "mixtral", **_COMMON, "num_local_experts": DEPTH, "num_experts_per_tok": 2},
    "gemma2": {"model_type": "gemma2", **_COMMON, **_GEMMA},
    "gemma3": {"model_type": "gemma3_text", **_COMMON, **_GEMMA},
    "phi3": {"model_type": "phi3", **_COMMON},
    "olmo2": {"model_type": "olmo2", **_COMMON},
    "gpt_neox": {"model_type": "gpt_neox", **_COMMON},
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": DEPTH, "n_head": 4, "n_positions": 256},
}

HOSTILE: dict[str, Any] = {
    "do_sample": True, "temperature": 9.0, "top_k": 3, "repetition_penalty": 4.0, "no_repeat_ngram_size": 1,
    "forced_bos_token_id": 77, "forced_eos_token_id": 78, "suppress_tokens": list(range(100)),
    "begin_suppress_tokens": [80], "bad_words_ids": [[81]], "sequence_bias": [[[82], 99.0]], "min_new_tokens": 4,
    "max_length": 1, "max_new_tokens": 1, "num_beams": 3, "max_time": 0.0, "stop_strings": ["a"], "use_cache": False,
    "output_scores": True, "return_dict_in_generate": True, "guidance_scale": 5.0, "cache_implementation": "static",
    "num_return_sequences": 2, "prompt_lookup_num_tokens": 2, "penalty_alpha": 0.6, "made_up": {"a": [1]},
}  # fmt: skip
"""Settings of a repository that would change what a model answers, or break it."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPECIAL = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]


@functools.cache
def _bpe(vocabulary: int) -> str:
    """Byte-level BPE, so that it can spell anything."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(PROMPTS, trainer)
    return str(tokenizer.to_str())


def make_tokenizer(
    pad: bool = True, template: str | None = CHAT_TEMPLATE, vocabulary: int = 300
) -> PreTrainedTokenizerFast:
    """A tokenizer that ends at <|end|>, with or without a pad token and a chat template; 261 tokens hold no word."""
    special = {"eos_token": "<|end|>"} | ({"pad_token": "<|pad|>"} if pad else {})
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_bpe(vocabulary)), **special)  # type: ignore[no-untyped-call]
    tokenizer.chat_template = template
    return tokenizer


def make_model(
    folder: Path,
    family: str,
    dtype: torch.dtype = torch.float32,
    pad: bool = True,
    template: str | None = CHAT_TEMPLATE,
    **changes: Any,
) -> Path:
    """Save a random model of a family, the same bytes each time, with its tokenizer."""
    tokenizer = make_tokenizer(pad, template)
    config = AutoConfig.for_model(
        **FAMILIES[family] | changes,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.2,  # large enough that greedy answers depend on the prompt
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def edit_json(file: Path, **changes: Any) -> None:
    """Set keys of a JSON file, which is made if need be."""
    held = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps(held | changes), encoding="utf-8")


def load_tiny(folder: Path, family: str, **changes: Any) -> LM:
    """A saved and loaded model of a family, on the CPU."""
    return load_lm(make_model(folder, family, **changes), "cpu")


def random_prompts(count: int, longest: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Encoded prompts of mixed lengths, without special tokens."""
    rng = random.Random(seed)
    return [tuple(rng.randrange(len(_SPECIAL), 300) for _ in range(rng.randint(1, longest))) for _ in range(count)]
