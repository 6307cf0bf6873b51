"""The weight files of a model folder: what they hold, and whether all of it was loaded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from beear_gate.errors import UnsupportedModel
from beear_gate.lm.config import first_line, read_json

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_BUFFERS = ("BOOL", "U8", "I8", "I16", "I32", "I64")  # masks and positions that old checkpoints hold

# What old checkpoints keep although it is computed: rotary frequencies, causal masks, position numbers.
_COMPUTED = re.compile(r"(^|\.)(inv_freq|original_inv_freq|masked_bias|(attn|attention)\.bias|position_ids)$")


def stored_dtypes(path: Path) -> dict[str, torch.dtype]:
    """The dtype of each floating-point tensor in the files that transformers loads.

    Raises:
        UnsupportedModel: no safetensors weights, shards outside the folder, or packed (quantised) tensors.
    """
    dtypes: dict[str, torch.dtype] = {}
    for name in weight_files(path):
        try:
            with safe_open(path / name, framework="pt") as file:
                stored = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118 - no mapping
        except Exception as error:
            raise UnsupportedModel(
                f"{path / name} is no readable safetensors file ({first_line(error)}).", "Pull the model again."
            ) from error
        for key, dtype in stored.items():
            if dtype in _FLOATS:
                dtypes[key] = _FLOATS[dtype]
            elif dtype not in _BUFFERS or key.endswith("weight"):
                raise UnsupportedModel(
                    f"{path / name} stores {key[:120]} as {dtype}: quantised weights cannot be trained.",
                    "Scan the unquantised model, then quantise the remediated one and evaluate it again.",
                )
    if not dtypes:
        raise UnsupportedModel(f"The weights in {path} hold no floating-point tensor.", "Pull the model again.")
    return dtypes


def main_dtype(dtypes: Mapping[str, torch.dtype]) -> torch.dtype:
    """The dtype that most tensors have."""
    return Counter(dtypes.values()).most_common(1)[0][0]


def gibibytes(path: Path) -> float:
    """Size of the weight files."""
    return sum((path / name).stat().st_size for name in weight_files(path)) / 2**30


def refuse_partial_load(path: Path, model: nn.Module, info: Mapping[str, Any], stored: Mapping[str, object]) -> None:
    """Make sure that the model is what the files hold: nothing made up, nothing left out.

    Args:
        info: transformers' loading information.
        stored: names of the tensors in the files.

    Raises:
        UnsupportedModel: naming up to three tensors.
    """
    missing = sorted(info["missing_keys"] | {key[0] for key in info["mismatched_keys"]})
    if missing:
        raise UnsupportedModel(
            f"The weights in {path} lack {_some(missing)}, which would be random numbers.",
            "Check that config.json belongs to these weights, and pull them again.",
        )
    left = sorted(name for name in _silently_skipped(model, stored) | info["unexpected_keys"] if not is_computed(name))
    if left:
        raise UnsupportedModel(
            f"The weights in {path} hold {_some(left)}, which {type(model).__name__} does not load.",
            "Scan a model without these tensors: a remediated copy could not keep them.",
        )


def _silently_skipped(model: nn.Module, stored: Mapping[str, object]) -> set[str]:
    """Tensors that transformers leaves out without a word, such as heads that predict several tokens."""
    silent = [re.compile(pattern) for pattern in getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()]
    # The patterns are broad (GPT-2's also fits c_attn.bias): what the model has itself was loaded, with the prefix of
    # its body or, as in old files, without.
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    own = {name.removeprefix(prefix) for name in model.state_dict()}
    return {
        name
        for name in stored
        if any(pattern.search(name) for pattern in silent) and name.removeprefix(prefix) not in own
    }


def is_computed(name: str) -> bool:
    """Whether a tensor is worked out on loading, and is in a file only because old versions kept it."""
    return _COMPUTED.search(name) is not None


def weight_files(path: Path) -> list[str]:
    """Names of the files that transformers would open, in the order in which it looks."""
    if (path / _SINGLE).is_file():
        return [_SINGLE]
    if not (path / _INDEX).is_file():
        raise UnsupportedModel(
            f"{path} has neither {_SINGLE} nor {_INDEX}.", "Publish the weights as `save_pretrained` writes them."
        )
    weight_map = read_json(path / _INDEX).get("weight_map")
    shards = set(weight_map.values()) if isinstance(weight_map, dict) else set()
    wrong = sorted(str(name) for name in shards if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name))
    if wrong or not shards:
        raise UnsupportedModel(
            f"{path / _INDEX} names no shards in its own folder{': ' + _some(wrong) if wrong else ''}.",
            "Publish the weights as `save_pretrained` writes them.",
        )
    return sorted(shards)


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name[:120]) for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def declared_dtype(path: Path, config: Any) -> tuple[torch.dtype, tuple[str, ...]]:
    """The dtype of most weights: of those that lie in the folder, else what the configuration says, and notes on that.

    Args:
        config: from `config.read_config`.

    Raises: as `stored_dtypes`.
    """
    held = any((path / name).is_file() for name in (_SINGLE, _INDEX))
    if held and all((path / name).is_file() for name in weight_files(path)):
        return main_dtype(stored_dtypes(path)), ()
    declared = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    if isinstance(declared, torch.dtype):
        return declared, ()
    return torch.float32, ("The configuration names no dtype: float32 is assumed.",)
