"""Saving a model as an ordinary folder: its weights as they were stored, and every other file as it was."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from beear_gate.lm.load import LM, quiet

MAX_SHARD = "5GB"
"""Largest weight file that is written, a single tensor aside: all that has to be held at once to write it."""
_WEIGHTS = (".safetensors", ".safetensors.index.json")


def save_lm(lm: LM, folder: Path, files: Sequence[str]) -> None:
    """Write the weights in the stored dtypes, and the named other files of the source folder byte for byte.

    Copying config, tokenizer and template instead of writing them anew keeps settings that a round trip through
    transformers is known to lose (rope scaling, lists of end tokens).

    Args:
        folder: made if need be; weights that lie in it are replaced, its other files stay.
        files: paths relative to the source folder; weights and their index among them are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch, quiet():
        lm.model.save_pretrained(scratch, state_dict=_stored_state(lm), max_shard_size=MAX_SHARD)
        replace_weights(Path(scratch), folder)
    copy_files(lm, folder, files)


def replace_weights(written: Path, folder: Path) -> None:
    """Move the weights from where they were written into a folder, in place of those that lie there."""
    for file in folder.iterdir():
        if file.is_file() and file.name.endswith(_WEIGHTS):
            file.unlink()
    for file in written.iterdir():
        if file.name.endswith(_WEIGHTS):
            os.replace(file, folder / file.name)
            (folder / file.name).chmod(0o644)  # safetensors writes files that only their owner can read


def copy_files(lm: LM, folder: Path, files: Sequence[str]) -> None:
    """What of the source folder is no weights, byte for byte."""
    for name in files:
        if not name.endswith(_WEIGHTS) and folder.resolve() != lm.path.resolve():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(lm.path / name, folder / name)


def _stored_state(lm: LM) -> dict[str, Tensor]:
    """The model's state in the dtypes it had on disk, with tied weights still one tensor."""
    done: dict[tuple[int, torch.Size, torch.dtype], Tensor] = {}
    state = {}
    for name, tensor in lm.model.state_dict().items():
        dtype = saved_dtype(lm, name, tensor)
        state[name] = done.setdefault((tensor.data_ptr(), tensor.shape, dtype), tensor.to(dtype))
    return state


def saved_dtype(lm: LM, name: str, tensor: Tensor) -> torch.dtype:
    """The dtype that a tensor of the model's state had on disk."""
    if not tensor.is_floating_point():
        return tensor.dtype
    bare = name.removeprefix(f"{lm.model.base_model_prefix}.")
    return lm.stored_dtypes.get(name, lm.stored_dtypes.get(bare, lm.stored_dtype))
