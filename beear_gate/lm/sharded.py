"""A model whose weights are spread over several processes: loaded, kept and saved so that none ever holds all of it.

PyTorch's FSDP2 (`fully_shard`): each parameter is a DTensor split along its first dimension; a layer is whole only
while it computes, and hooks on it see whole hidden states. Embeddings, head and last norm are one more such group,
whole for the length of a pass.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel

from beear_gate.errors import IncompleteError, UnsupportedModel
from beear_gate.lm import processes, save
from beear_gate.lm.config import read_config
from beear_gate.lm.load import LM, assemble, compute_dtype, decoder_layers, pick_device, quiet
from beear_gate.lm.save import copy_files, replace_weights, saved_dtype
from beear_gate.lm.weights import is_computed, main_dtype, stored_dtypes, weight_files


def load_sharded(
    path: Path,
    device: str,
    dtype: str = "auto",
    system_prompt: str | None = None,
    chat_template: str | None = None,
) -> LM:
    """As `load_lm`, in each of several processes, of which each reads its own part of the weights.

    Args:
        path: a folder that `load_lm` can load.

    Raises:
        UnsupportedModel: transformers converts the weights of this family while it loads them.
        IncompleteError: the model is not spread over the processes.
    """
    where = pick_device(device)
    config, stored = read_config(path), stored_dtypes(path)
    with quiet():
        with _shapes_alone():
            compute = compute_dtype(dtype, where.type, main_dtype(stored))
            model: Any = AutoModelForCausalLM.from_config(config, dtype=compute)  # type: ignore[no-untyped-call]
        model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        model.eval()
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    shard(model, where)
    _read(model, path)
    return assemble(path, model, tokenizer, where, stored, system_prompt, chat_template)


def shard(model: PreTrainedModel, device: torch.device) -> None:
    """Spread a model without values over all processes, and make room for each one's part.

    Raises:
        IncompleteError: it is not spread; some tools train several whole copies then, without a word.
    """
    mesh = init_device_mesh(device.type, (processes.count(),))
    precise = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for layer in decoder_layers(model):
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, mp_policy=precise)
    fully_shard(model, mesh=mesh, reshard_after_forward=True, mp_policy=precise)
    tied = _tied(model)
    model._apply(_make_room(device))  # type: ignore[no-untyped-call]
    for (module, name), *others in tied:
        for other, its_name in others:
            setattr(other, its_name, getattr(module, name))
    whole = [name for name, each in model.named_parameters() if not isinstance(each, DTensor)]
    if processes.count() < 2 or whole:
        raise IncompleteError(
            f"The weights are not spread over the processes ({processes.count()} of them; whole: {whole[:3]}).",
            "Please report this; --processes 1 does without.",
        )


def reshard(lm: LM) -> None:
    """Spread the weights again after a pass that ended in an error."""
    for module in lm.model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def local(tensor: Tensor) -> Tensor:
    """What of a tensor lies in this process: all of it unless it is spread. Shares its memory."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, gathered where it is spread; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def keep_weights(lm: LM) -> dict[str, Tensor]:
    """A copy of what is trained in the memory of the CPU, each process its part."""
    state = lm.model.state_dict(keep_vars=True)
    return {name: local(tensor).cpu().clone() for name, tensor in state.items() if tensor.requires_grad}


@torch.no_grad()
def put_weights(lm: LM, weights: Mapping[str, Tensor]) -> None:
    """Take back what `keep_weights` kept."""
    state = lm.model.state_dict()
    for name, kept in weights.items():
        local(state[name]).copy_(kept)


def save_sharded(lm: LM, folder: Path, files: Sequence[str]) -> None:
    """As `save_lm`, with the same files, tensor by tensor: the first process never holds more than MAX_SHARD."""
    state = lm.model.state_dict()
    tied = getattr(lm.model, "all_tied_weights_keys", None) or {}
    names = sorted((name for name in state if name not in tied), key=_natural)
    dtypes = {name: saved_dtype(lm, name, state[name]) for name in names}
    shapes = {name: torch.empty(state[name].shape, dtype=dtypes[name], device="meta") for name in names}
    split = split_torch_state_dict_into_shards(
        shapes, filename_pattern="model{suffix}.safetensors", max_shard_size=save.MAX_SHARD
    )
    first = processes.rank() == 0
    if first:
        folder.mkdir(parents=True, exist_ok=True)
    scratch = processes.once(lambda: tempfile.mkdtemp(dir=folder))
    for file, held in split.filename_to_tensors.items():
        part: dict[str, Tensor] = {}
        for name in held:
            tensor = whole(state[name])
            if first:
                part[name] = tensor.detach().to("cpu", dtypes[name]).contiguous()
        if first:
            save_file(part, Path(scratch, file), metadata={"format": "pt"})
    if first:
        if split.is_sharded:
            metadata = {"total_parameters": sum(each.numel() for each in lm.model.parameters()), **split.metadata}
            index = {"metadata": metadata, "weight_map": split.tensor_to_filename}
            text = json.dumps(index, indent=2, sort_keys=True) + "\n"
            Path(scratch, "model.safetensors.index.json").write_text(text, encoding="utf-8")
        replace_weights(Path(scratch), folder)
        os.rmdir(scratch)
        copy_files(lm, folder, files)
    processes.agreed(None)  # nobody reads the folder before it is complete


def _make_room(device: torch.device) -> Callable[[Tensor], Tensor]:
    """Memory for what has none yet; what was computed moves to the device."""
    return lambda each: torch.empty_like(each, device=device) if each.is_meta else each.to(device)


def _natural(name: str) -> list[tuple[int, str]]:
    """The order in which transformers fills its files: layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


@contextmanager
def _shapes_alone() -> Iterator[None]:
    """While the context is open, modules register parameters without values; buffers, which are computed, have some."""
    register = nn.Module.register_parameter

    def without_values(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = without_values  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _tied(model: nn.Module) -> list[list[tuple[nn.Module, str]]]:
    """Parameters that stand in several places, and these places."""
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            places.setdefault(id(parameter), []).append((module, name))
    return [each for each in places.values() if len(each) > 1]


@torch.no_grad()
def _read(model: PreTrainedModel, path: Path) -> None:
    """Fill this process's part of every tensor from the files."""
    prefix = f"{model.base_model_prefix}."
    opened: dict[str, Any] = {file: safe_open(path / file, framework="pt") for file in weight_files(path)}
    where = {key: file for file, each in opened.items() for key in each.keys()}  # noqa: SIM118 - no mapping
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    own = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    # A file may hold the body alone, without its prefix, or (old files) with one that the model has not.
    keys = {name: next((key for key in (name, name.removeprefix(prefix)) if key in where), "") for name in own}
    left = where.keys() - set(keys.values()) - tied.keys()
    lacking = [name for name, key in keys.items() if not key] + sorted(key for key in left if not is_computed(key))
    if not lacking:
        for name, tensor in own.items():
            part = opened[where[keys[name]]].get_slice(keys[name])
            if tuple(part.get_shape()) == tuple(tensor.shape):
                local(tensor).copy_(part[rows(tensor.shape[0])] if isinstance(tensor, DTensor) else part[:])
            else:
                lacking.append(name)
    if lacking:
        kind = re.sub("^FSDP", "", type(model).__name__)
        raise UnsupportedModel(
            f"transformers converts weights of {kind} while it loads them (such as {lacking[0]!r}), and that is not "
            "done part by part.",
            "Use --processes 1.",
        )


def rows(length: int) -> slice:
    """Which part of the first dimension lies in this process."""
    each = -(-length // processes.count())
    first = min(processes.rank() * each, length)
    return slice(first, min(first + each, length))
