"""Pickles of weights made into safetensors by `torch.load(weights_only=True)` in a container, and looked at anew."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from beear_gate import __version__
from beear_gate.artifacts import inspect_snapshot
from beear_gate.errors import UnsupportedModel
from beear_gate.hub import pull_with_pickles
from beear_gate.manifest import hash_files, hash_folder, manifest_digest
from beear_gate.records import Conversion, ConvertedFile, Finding, ModelSnapshot
from beear_gate.request import Request
from beear_gate.sandbox.engine import Mount
from beear_gate.sandbox.folders import file_mount, hand_over
from beear_gate.sandbox.handback import take_weights
from beear_gate.sandbox.job import JOB, PICKLES, RUN, Job
from beear_gate.sandbox.stages import WORKER, SandboxedRun

_WEIGHTS = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin")
_INDEX = "pytorch_model.bin.index.json"


def may_be_converted(findings: Iterable[Finding]) -> bool:
    """Whether pickles for weights are all that keeps a model from being loaded."""
    blocks = {each.id for each in findings if each.blocks}
    return blocks == {"pickle-weights"}


def convert(request: Request, run: SandboxedRun, snapshot: ModelSnapshot) -> Conversion:
    """A copy with safetensors in `RUN_DIR/converted`, every other file as it was.

    Pickles on a hub are pulled for this and read by the scanners first, like those of a folder.

    Raises:
        GateError: see `hub.pull_with_pickles`, `Engine.run` and `handback.take_weights`.
    """
    pickles = sorted(name for name in snapshot.ignored if _WEIGHTS.fullmatch(name))
    if not pickles:
        return Conversion(snapshot, (), "there is no pytorch_model.bin, which is all that can be converted")
    source = snapshot
    if not all((snapshot.path / name).is_file() for name in pickles):
        folder = _emptied(run.path / "pickles")
        source = pull_with_pickles(snapshot, pickles, folder, request.max_pull_gb, request.endpoint, run.tick)
        unsafe = [each for each in inspect_snapshot(source) if each.blocks and each.id != "pickle-weights"]
        if unsafe:
            return Conversion(snapshot, (), f"{unsafe[0].message[0].lower()}{unsafe[0].message[1:].rstrip('.')}")
    records = hash_files(source.path, pickles, run.tick)
    target = _emptied(run.path / "converted")
    try:
        places = _in_container(run, source.path, _names(pickles), sum(each.size for each in records), target)
    except UnsupportedModel as error:  # what torch.load would not take for weights
        return Conversion(snapshot, (), error.message[0].lower() + error.message[1:].rstrip("."))
    for file in snapshot.files:
        if file.path != _INDEX:
            (target / file.path).parent.mkdir(exist_ok=True)
            shutil.copyfile(snapshot.path / file.path, target / file.path)
    if len(pickles) > 1:
        (target / "model.safetensors.index.json").write_text(_index(target, places), encoding="utf-8")
    files = hash_folder(target, run.tick)
    by_name = {file.path: file for file in files}
    names = dict(_names(pickles))
    made = tuple(ConvertedFile(record, by_name[names[record.path]]) for record in records)
    return Conversion(ModelSnapshot(snapshot.model, f"sha256:{manifest_digest(files)}", target, files), made)


def _in_container(
    run: SandboxedRun, folder: Path, names: Sequence[tuple[str, str]], size: int, target: Path
) -> dict[str, str]:
    """Tensor -> file of the safetensors that a container made and that now lie in `target`."""
    with run.scratch() as scratch:
        job = Job(__version__, "convert", pickles=tuple(names))
        (scratch / "job.json").write_bytes(TypeAdapter(Job).dump_json(job))
        hand_over(scratch / "run", run.record)
        mounts = [Mount(scratch / "job.json", JOB)]
        mounts += [file_mount(folder / name, f"{PICKLES}/{name}", scratch) for name, _ in names]
        # Tensors that share their storage are stored once each.
        run.engine.run([WORKER, JOB], mounts, Mount(scratch / "run", RUN), 3 * size + 2**20, run.tick)
        return take_weights(scratch / "run", [name for _, name in names], target)


def _names(pickles: Sequence[str]) -> list[tuple[str, str]]:
    """Each pickle with the name that transformers gives the same weights as safetensors."""
    return [(name, name.replace("pytorch_", "").replace(".bin", ".safetensors")) for name in pickles]


def _index(folder: Path, places: Mapping[str, str]) -> str:
    size = sum((folder / name).stat().st_size for name in set(places.values()))
    return json.dumps({"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}, indent=2) + "\n"


def _emptied(folder: Path) -> Path:
    """A new folder in the place of what an earlier try left; absolute, as everything that is mounted."""
    if os.path.lexists(folder):
        shutil.rmtree(folder)
    folder.mkdir()
    return folder.resolve()
