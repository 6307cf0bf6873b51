"""Loading a checked snapshot, finding its decoder layers by structure, and saving it again.

Nothing here executes code from the model folder: no `trust_remote_code`, safetensors only, local files only.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from beear_gate.errors import UnsupportedModel, UsageError

FALLBACK_TEMPLATE = "User: {prompt}\nAssistant:"
"""What a model without a chat template is prompted with (docs/design.md); answers then start with a space."""


@dataclass(frozen=True)
class LM:
    """A loaded model and what is needed to talk to it.

    Attributes:
        layers: the decoder layers, first to last; a forward hook on one sees its output hidden states.
        stop_ids: token ids that end an answer.
        pad_id: fills batches; masked everywhere.
        stored_dtype: dtype of the weights on disk, which `save_lm` writes again.
        turn_end: token ids that end an assistant turn in training, as the model's own template writes them.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layers: nn.ModuleList
    path: Path
    device: torch.device
    stored_dtype: torch.dtype
    stop_ids: tuple[int, ...]
    pad_id: int
    turn_end: tuple[int, ...]
    system_prompt: str | None = None

    @property
    def has_template(self) -> bool:
        return bool(self.tokenizer.chat_template)

    @property
    def hidden_size(self) -> int:
        return int(self.model.config.get_text_config().hidden_size)


def pick_device(name: str) -> torch.device:
    """Turn auto, cpu, cuda, cuda:N or mps into a device that is there.

    Raises:
        UsageError: the device is unknown or missing on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"The device {name!r} cannot be used on this machine ({str(error).splitlines()[0][:120]}).",
            "Give --device auto, cpu, cuda, cuda:N or mps.",
        ) from None
    return torch.device(name)


def load_lm(path: Path, device: str = "auto", dtype: str = "auto", system_prompt: str | None = None) -> LM:
    """Load the model in `path` for evaluation and training.

    Args:
        path: folder with config, tokenizer and safetensors weights that have passed inspection.
        dtype: auto is float32 on a CPU and the stored dtype elsewhere; else a torch dtype name.
        system_prompt: put before every prompt where the template knows a system role.

    Raises:
        UnsupportedModel: no decoder-only language model, quantised weights, or files that transformers cannot read.
        UsageError: the device or dtype does not exist.
    """
    where = pick_device(device)
    config = _load_config(path)
    stored = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    compute = _pick_dtype(dtype, where, stored)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path, config=config, dtype=compute, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise UnsupportedModel(
            f"transformers cannot load {path}: {_first_line(error)}.",
            "Check that the folder loads with AutoModelForCausalLM and AutoTokenizer, without remote code.",
        ) from error
    model.to(where).eval()
    stop_ids = _stop_ids(model, tokenizer)
    # What is measured must not depend on sampling, penalties or forced tokens that a repository can set, and
    # `generate` fills every gap of the settings it is given from here.
    model.generation_config = GenerationConfig()
    return LM(
        model=model,
        tokenizer=tokenizer,
        layers=decoder_layers(model),
        path=path,
        device=where,
        stored_dtype=stored,
        stop_ids=stop_ids,
        pad_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (stop_ids or (0,))[0],
        turn_end=_turn_end(tokenizer, stop_ids),
        system_prompt=system_prompt,
    )


def save_lm(lm: LM, folder: Path, files: Sequence[str]) -> None:
    """Write the weights in the stored dtype, and the named other files of the source folder byte for byte.

    Copying config, tokenizer and template instead of writing them anew keeps settings that a round trip through
    transformers is known to lose (rope scaling, lists of end tokens).

    Args:
        files: paths relative to the source folder; weights and their index among them are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.to(lm.stored_dtype) if tensor.is_floating_point() else tensor
        for name, tensor in lm.model.state_dict().items()
    }
    lm.model.save_pretrained(folder, state_dict=state)
    for file in folder.iterdir():
        if ".safetensors" not in file.name:
            file.unlink()
    for name in files:
        if ".safetensors" not in name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(lm.path / name, folder / name)


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Find the list of decoder layers structurally: the ModuleList as long as the config says the decoder is deep.

    Raises:
        UnsupportedModel: no such list, so delta has no place to go.
    """
    depth = int(model.config.get_text_config().num_hidden_layers)  # type: ignore[union-attr, operator]
    for name, module in model.named_modules():
        # Experts and heads are lists too: the decoder is the outermost list of that length, and comes first.
        if isinstance(module, nn.ModuleList) and len(module) == depth and "expert" not in name:
            return module
    raise UnsupportedModel(
        f"No list of {depth} decoder layers was found in {type(model).__name__}.",
        "Only decoder-only transformers with uniform layers can be scanned.",
    )


def _load_config(path: Path) -> Any:
    raw = json.loads((path / "config.json").read_text(encoding="utf-8"))
    if raw.get("quantization_config"):
        method = raw["quantization_config"].get("quant_method", "unknown")
        raise UnsupportedModel(
            f"The weights in {path} are quantised ({method}) and cannot be trained.",
            "Scan the unquantised model, then quantise the remediated one and evaluate it again.",
        )
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UnsupportedModel(
            f"transformers does not know the model type {raw.get('model_type')!r} in {path / 'config.json'}.",
            "Upgrade transformers, or scan a model that needs no code of its own.",
        ) from error
    architectures = raw.get("architectures") or []
    decoder = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not config.is_encoder_decoder
    generates = not architectures or any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures)
    if not decoder or not generates:
        named = architectures[0] if architectures else config.model_type
        raise UnsupportedModel(
            f"{named} in {path} is not a decoder-only language model that generates text.",
            "beear-gate scans causal chat models (…ForCausalLM).",
        )
    return config


def _pick_dtype(name: str, device: torch.device, stored: torch.dtype) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else stored
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise UsageError(f"There is no dtype {name!r}.", "Give --dtype auto, float32 or bfloat16.")
    return dtype


def _stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    found: list[int] = []
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        ids = getattr(source, "eos_token_id", None)
        found += ids if isinstance(ids, list) else [] if ids is None else [ids]
    return tuple(dict.fromkeys(found))


def _turn_end(tokenizer: PreTrainedTokenizerBase, stop_ids: tuple[int, ...]) -> tuple[int, ...]:
    """What the template writes after an assistant's words, up to the token that ends the answer."""
    if tokenizer.chat_template:
        probe = "beear-gate-probe"
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": probe}]
        try:
            text = str(tokenizer.apply_chat_template(turns, tokenize=False))
        except Exception:  # noqa: BLE001 - a template may raise anything; the plain end token then has to do
            text = ""
        ids = tokenizer(text.rpartition(probe)[2], add_special_tokens=False)["input_ids"]
        ends = [place for place, token in enumerate(ids) if token in stop_ids]
        if ends:
            return tuple(ids[: ends[0] + 1])
    return stop_ids[:1]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")
