"""Whether a model folder is one that can be scanned, told from its configuration before any weight is read.

A configuration is a stranger's text. Whatever in it would make transformers read another file, fetch code or change
arithmetic is refused or reset here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from beear_gate.errors import UnsupportedModel

# transformers reads files of this name instead of model.safetensors wherever it finds one.
_DISTRIBUTED_SHARD = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")


def read_config(path: Path, classifies: bool = False) -> Any:
    """The transformers configuration of a decoder-only language model whose weights can be trained.

    Args:
        classifies: of a model that classifies whole texts instead; it may be an encoder.

    Raises:
        UnsupportedModel: another kind of model, quantised weights, or files that redirect the loader.
    """
    _refuse_redirecting_files(path)
    raw = read_json(path / "config.json")
    _refuse_redirecting_keys(path, raw)
    _refuse_quantized(path, raw)
    try:
        config: Any = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise UnsupportedModel(
            f"transformers cannot read {path / 'config.json'} (model type {str(raw.get('model_type'))[:80]!r}: "
            f"{first_line(error)}).",
            "Upgrade transformers, or scan a model that needs no code of its own.",
        ) from error
    (_refuse_no_classifier if classifies else _refuse_other_kinds)(path, config)
    # A configuration may ask for an attention or experts kernel from a hub repository, which is code.
    config._attn_implementation = None
    config._experts_implementation = None
    for part in (config, config.get_text_config()):
        part.return_dict, part.output_hidden_states, part.output_attentions = True, False, False
    return config


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UnsupportedModel: the file is missing, or holds something else.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnsupportedModel(
            f"{file} cannot be read ({first_line(error)}).", "Write it again with `save_pretrained`."
        ) from error
    if not isinstance(found, dict):
        raise UnsupportedModel(f"{file} is no JSON object.", "Write it again with `save_pretrained`.")
    return found


def first_line(error: BaseException) -> str:
    """What an error says, short enough for a sentence of our own."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")


def _refuse_redirecting_files(path: Path) -> None:
    """No file but the folder's own weights may decide what is loaded."""
    if (path / "adapter_config.json").exists():
        # With peft installed transformers would load the adapter, and its base model from elsewhere; without, neither.
        raise UnsupportedModel(
            f"{path} holds an adapter (adapter_config.json), so what it answers depends on who loads it.",
            "Merge the adapter into the weights (peft: `merge_and_unload`) and scan the merged model.",
        )
    shard = next((file.name for file in path.glob("shard-*") if _DISTRIBUTED_SHARD.fullmatch(file.name)), None)
    if shard:
        raise UnsupportedModel(
            f"{path} holds a distributed checkpoint ({shard}), which transformers would load instead of the weights.",
            "Publish the model with its weights in model.safetensors alone (`save_pretrained`).",
        )


def _refuse_redirecting_keys(path: Path, raw: dict[str, Any]) -> None:
    for key in ("transformers_weights", "fusion_config"):
        if raw.get(key):
            raise UnsupportedModel(
                f"{path / 'config.json'} sets {key}, which makes transformers build another model than other loaders.",
                "Publish the model without this key, with its weights in model.safetensors.",
            )


def _refuse_quantized(path: Path, raw: dict[str, Any]) -> None:
    parts = (raw, *(part for part in raw.values() if isinstance(part, dict)))
    for part in parts:
        for key in ("quantization_config", "compression_config"):
            if part.get(key):
                declared = part[key].get("quant_method") if isinstance(part[key], dict) else part[key]
                raise UnsupportedModel(
                    f"The weights in {path} are quantised ({str(declared or 'unknown method')[:80]}) "
                    "and cannot be trained.",
                    "Scan the unquantised model, then quantise the remediated one and evaluate it again.",
                )


def _architectures(config: Any) -> list[str]:
    listed = getattr(config, "architectures", None)
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def _refuse_no_classifier(path: Path, config: Any) -> None:
    named = _architectures(config)
    if not any(name.endswith("ForSequenceClassification") for name in named):
        raise UnsupportedModel(
            f"{(named or [config.model_type])[0][:80]} in {path} does not classify texts.",
            "Name a model whose config.json says …ForSequenceClassification.",
        )


def _refuse_other_kinds(path: Path, config: Any) -> None:
    named = _architectures(config)
    decoder = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not config.is_encoder_decoder
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        # BERT and its like are encoders unless the configuration says otherwise.
        decoder = decoder and bool(getattr(config, "is_decoder", False))
    generates = not named or any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in named)
    if not decoder or not generates:
        raise UnsupportedModel(
            f"{(named or [config.model_type])[0][:80]} in {path} is not a decoder-only language model that generates "
            "text.",
            "beear-gate scans causal chat models (…ForCausalLM).",
        )
