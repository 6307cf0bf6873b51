"""A process of its own for picklescan: a path on stdin, what it found on stdout; see `limited`. Nothing is loaded."""

from __future__ import annotations

import io
import json
import logging
import pickletools
import sys
from pathlib import Path

from picklescan.scanner import scan_bytes

from beear_gate.artifacts.kinds import kind_of
from beear_gate.artifacts.limited import limited_input

# What transformers' and accelerate's own trainers write into training_args.bin and optimizer states: plain classes and
# enumerations that run nothing when they are made. picklescan's strict mode knows weights only.
_OF_TRAINERS = {
    ("torch", name) for name in ("device", "Size", "dtype", "float16", "bfloat16", "float32", "float64", "int64")
} | {
    ("torch._utils", "_rebuild_parameter"), ("collections", "defaultdict"), ("builtins", "set"), ("builtins", "dict"),
    ("__builtin__", "set"), ("transformers.training_args", "TrainingArguments"),
    ("transformers.training_args", "OptimizerNames"),
    ("transformers.training_args_seq2seq", "Seq2SeqTrainingArguments"),
    ("transformers.trainer_utils", "IntervalStrategy"), ("transformers.trainer_utils", "SaveStrategy"),
    ("transformers.trainer_utils", "HubStrategy"), ("transformers.trainer_utils", "SchedulerType"),
    ("transformers.trainer_utils", "FSDPOption"), ("transformers.trainer_pt_utils", "AcceleratorConfig"),
    ("accelerate.state", "PartialState"), ("accelerate.utils.dataclasses", "DistributedType"),
    ("accelerate.utils.dataclasses", "DeepSpeedPlugin"), ("trl.trainer.sft_config", "SFTConfig"),
    ("trl.trainer.dpo_config", "DPOConfig"), ("numpy", "dtype"), ("numpy", "ndarray"), ("_codecs", "encode"),
    ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"),
}  # fmt: skip


_MOST_CHECKED = 32 * 2**20  # bytes


def scan(path: str) -> dict[str, object]:
    """Which globals the pickles of a file import that weights do not need, and whether all of it could be read."""
    logging.getLogger("picklescan").disabled = True
    try:
        with open(path, "rb") as file:
            result = scan_bytes(file, path, Path(path).suffix.lower(), strict=True)
    except Exception as error:
        return {"dangerous": [], "problem": f"its reader failed ({type(error).__name__})"}
    found = {(each.module, each.name) for each in result.globals if each.safety.value == "dangerous"} - _OF_TRAINERS
    problem = "it could not be read to its end" if result.scan_err else ""
    if not result.scanned_files and not problem:
        problem = "no pickle was found in it"
    if not problem and not _is_whole(path):
        problem = "its first pickle is cut short or makes no sense"
    return {"dangerous": sorted(f"{module}.{name}" for module, name in found), "problem": problem}


def _is_whole(path: str) -> bool:
    """Whether the first pickle of a file ends, with a stack that fits: picklescan takes what it could read for all."""
    with open(path, "rb") as file:
        head = file.read(4096)
        if kind_of(head) != "pickle" or file.seek(0, 2) > _MOST_CHECKED:
            return True
        file.seek(0)
        try:
            pickletools.dis(file, out=io.StringIO())
        except Exception:  # whatever stops the reader, the pickle was not read to its end
            return False
    return True


if __name__ == "__main__":
    json.dump(scan(limited_input()), sys.stdout)
