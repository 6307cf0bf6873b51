"""Pickled weights as safetensors. Called in a container alone: what reads pickles is not trusted with anything."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from beear_gate.errors import UnsupportedModel
from beear_gate.lm.config import first_line

_REMEDY = "Convert it by hand where nothing can be harmed, and look at what it holds."


def rewrite_pickle(source: Path, target: Path) -> None:
    """Write the tensors of one `pytorch_model*.bin` under their names and in their dtypes.

    Tensors that share memory (tied weights) become tensors of their own: whoever loads them ties them by the
    configuration, and safetensors knows no sharing.

    Raises:
        UnsupportedModel: torch's restricted unpickler refuses the file, or it holds anything but named tensors.
    """
    try:
        state = _load(source)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, TypeError, AttributeError, KeyError) as error:
        raise UnsupportedModel(
            f"torch.load(weights_only=True) does not take {source.name}: {first_line(error)[:200]}.", _REMEDY
        ) from error
    if not isinstance(state, Mapping) or not state:
        raise UnsupportedModel(f"{source.name} holds no mapping of names to tensors.", _REMEDY)
    strange = [name for name, value in state.items() if not isinstance(name, str) or not _is_plain(value)]
    if strange:
        raise UnsupportedModel(f"{source.name} holds more than plain tensors: {str(strange[0])[:100]!r}.", _REMEDY)
    save_file(_apart(dict(state)), target, metadata={"format": "pt"})


def _load(source: Path) -> object:
    try:
        return torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # files from before torch 1.6 are no archives, and cannot be mapped
        return torch.load(source, map_location="cpu", weights_only=True)


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor dense, and none in memory that another one has."""
    seen: set[int] = set()
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        place = tensor.untyped_storage().data_ptr()
        found[name] = tensor.detach().clone(memory_format=torch.contiguous_format) if place in seen else tensor.detach()
        seen.add(place)
    return {name: tensor.contiguous() for name, tensor in found.items()}
