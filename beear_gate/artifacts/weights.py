"""Checks of the weights: their format, their shards, and what lies beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TypeGuard

from beear_gate.artifacts.contents import Contents
from beear_gate.artifacts.rules import finding
from beear_gate.artifacts.safetensors_header import Tensor
from beear_gate.manifest import quoted
from beear_gate.records import Finding

PICKLE_KINDS = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".h5", ".keras", ".msgpack",
                ".dill", ".npy", ".npz", ".pt2", ".nemo", ".mar")  # fmt: skip
"""Formats that run code when they are loaded, or that nothing here can check."""

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")  # what `from_pretrained` looks for
_SHARD = re.compile(r"(?P<start>.*)-(?P<number>\d{5})-of-(?P<total>\d{5})\.safetensors")
_TO_SAFETENSORS = "Scan with --sandbox docker --convert, which makes safetensors of pytorch_model.bin in a container."


def check_safetensors(contents: Contents) -> Iterator[Finding]:
    """Every safetensors file follows its format, and the model's own holds tensors."""
    again = "Write the file again with the safetensors library, or pull it again."
    for file, problem in contents.broken.items():
        yield finding("safetensors-header", file, f"{quoted(file)} {problem}.", again)
    if contents.headers.get(_WEIGHTS[0]) == {}:
        yield finding("safetensors-header", _WEIGHTS[0], f"{_WEIGHTS[0]} holds no tensor.", again)


def check_formats(contents: Contents) -> Iterator[Finding]:
    """There are safetensors weights, and pickles only beside them."""
    pickles = [name for name in contents.snapshot.ignored if name.lower().endswith(PICKLE_KINDS)]
    first = pickles[0] if pickles else ""
    if any(name in contents.opened for name in _WEIGHTS):
        if pickles:
            unread = sorted(set(pickles) - set(contents.loose))
            more = f", and could not look at {several(unread)}" if unread else ""
            yield finding(
                "pickle-ignored",
                first,
                f"{several(pickles)} can run code when loaded; the gate loads only the safetensors weights{more}.",
                "Drop these files, so that no other tool loads them either.",
            )
    elif pickles:
        yield finding(
            "pickle-weights",
            first,
            f"There are no safetensors weights, only files that can run code when loaded: {several(pickles)}.",
            _TO_SAFETENSORS,
        )
    else:
        others = [name for name in contents.opened if name.endswith(".safetensors")]
        yield finding(
            "no-weights",
            "",
            f"There is neither {_WEIGHTS[0]} nor {_WEIGHTS[1]}" + (f", only {several(others)}." if others else "."),
            "Add the weights as `save_pretrained` writes them.",
        )


def check_index(contents: Contents) -> Iterator[Finding]:
    """The shard index and the shards agree."""
    for file, document in contents.documents.items():
        if not file.endswith(".safetensors.index.json"):
            continue
        remedy = "Write the shards and their index again with `save_pretrained`, or pull them again."
        weight_map = document.get("weight_map") if isinstance(document, dict) else None
        if not _is_weight_map(weight_map):
            yield finding("index-shards", file, f"{quoted(file)} has no weight_map from tensors to shards.", remedy)
            continue
        folder = file.rpartition("/")[0]
        shards = {name: f"{folder}/{name}" if folder else name for name in set(weight_map.values())}
        yield from _missing(contents, file, weight_map, shards, remedy)
        unlisted = sorted(
            tensor for path in shards.values() for tensor in contents.headers.get(path, {}) if tensor not in weight_map
        )
        if unlisted:
            message = f"{quoted(file)} does not list {several(unlisted)}, which its shards hold."
            yield finding("index-unlisted", file, message, remedy)


def check_shards(contents: Contents) -> Iterator[Finding]:
    """Every shard beside an index is in it, and there are as many as their names say."""
    indices = {
        file: document for file, document in contents.documents.items() if file.endswith(".safetensors.index.json")
    }
    listed: set[str] = set()
    for file, document in indices.items():
        weight_map = document.get("weight_map") if isinstance(document, dict) else None
        folder = file.rpartition("/")[0]
        if _is_weight_map(weight_map):
            listed |= {f"{folder}/{shard}" if folder else shard for shard in weight_map.values()}
    files = [file for file in contents.opened if file.endswith(".safetensors")]
    parts = {file: match for file in files if (match := _SHARD.fullmatch(file))}
    for start, total in sorted({(match["start"], int(match["total"])) for match in parts.values()}):
        there = {
            int(match["number"]) for match in parts.values() if (match["start"], int(match["total"])) == (start, total)
        }
        gone = total - len(there & set(range(1, total + 1)))
        if gone:
            message = f"{gone} of the {total} shards of {quoted(start)} are not there."
            yield finding("index-shards", next(iter(parts)), message, "Pull or save the model again.")
    extra = [file for file in files if indices and file not in listed and (file in parts or file in _WEIGHTS)]
    if extra:
        message = f"{several(extra)} hold weights that no index lists; loaders differ in what they take."
        yield finding("index-unlisted", extra[0], message, "Drop what is not meant, or write the index again.")


def check_quantized(contents: Contents) -> Iterator[Finding]:
    """Whether the weights are quantised, so that a loader can say early what it does not support."""
    config = contents.documents.get("config.json")
    declared = config.get("quantization_config") if isinstance(config, dict) else None
    remedy = "Expect the gate to stop at loading if this version does not take it; scan the unquantised model instead."
    if declared:
        method = declared.get("quant_method") if isinstance(declared, dict) else declared
        message = f"config.json declares quantisation {quoted(method)}."
        yield finding("quantized-weights", "config.json", message, remedy)
        return
    for file, tensors in contents.headers.items():
        packed = [name for name, tensor in tensors.items() if _is_packed(name, tensor)]
        if packed:
            dtype = tensors[packed[0]].dtype
            message = f"{quoted(file)} stores {several(packed)} as {dtype}, but config.json declares no quantisation."
            yield finding("quantized-weights", file, message, remedy)
            return


def several(names: list[str]) -> str:
    """Up to three names, quoted, and how many more."""
    shown = ", ".join(quoted(name) for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _is_weight_map(value: object) -> TypeGuard[dict[str, str]]:
    return isinstance(value, dict) and bool(value) and all(isinstance(shard, str) for shard in value.values())


def _missing(
    contents: Contents, file: str, weight_map: Mapping[str, str], shards: Mapping[str, str], remedy: str
) -> Iterator[Finding]:
    """Shards that are not there, then tensors that their shard does not hold (broken shards have their own finding)."""
    readable = {name: contents.headers[path] for name, path in shards.items() if path in contents.headers}
    gone = sorted(name for name, path in shards.items() if path not in contents.opened or name not in readable)
    gone = [name for name in gone if shards[name] not in contents.broken]
    if gone:
        yield finding("index-shards", file, f"{quoted(file)} names {several(gone)}, no shard in its folder.", remedy)
    lost = sorted(name for name, shard in weight_map.items() if shard in readable and name not in readable[shard])
    if lost:
        message = f"{quoted(file)} places {several(lost)} in a shard that does not hold it."
        yield finding("index-shards", file, message, remedy)


def _is_packed(name: str, tensor: Tensor) -> bool:
    """Whether a tensor holds quantised weights: not masks or counters, which are integers in many honest models."""
    if tensor.dtype.startswith(("F4", "F6", "F8")):
        return True
    if tensor.dtype in ("I8", "U8"):
        return name.endswith("weight") and len(tensor.shape) > 0
    return tensor.dtype == "I32" and name.endswith(("qweight", "weight_packed"))
