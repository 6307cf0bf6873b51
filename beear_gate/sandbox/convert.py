"""Pickles of weights made into safetensors by `torch.load(weights_only=True)` in a container, and looked at anew."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from beear_gate import __version__
from beear_gate.artifacts import inspect_snapshot
from beear_gate.errors import UnsupportedModel
from beear_gate.hub import pull_with_pickles
from beear_gate.manifest import hash_files, hash_folder, manifest_digest
from beear_gate.records import Conversion, ConvertedFile, FileRecord, Finding, ModelSnapshot, Tick, no_tick
from beear_gate.request import Request
from beear_gate.sandbox.engine import Mount
from beear_gate.sandbox.folders import file_mount, hand_over, job_mount
from beear_gate.sandbox.handback import take_weights
from beear_gate.sandbox.job import JOB, PICKLES, RUN, Job
from beear_gate.sandbox.stages import WORKER, SandboxedRun

_WEIGHTS = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin")
_INDEX = "pytorch_model.bin.index.json"


def may_be_converted(findings: Iterable[Finding]) -> bool:
    """Whether pickles for weights are all that keeps a model from being loaded."""
    return {each.id for each in findings if each.blocks} == {"pickle-weights"}


def convert(request: Request, run: SandboxedRun, snapshot: ModelSnapshot) -> Conversion:
    """A copy with safetensors in `RUN_DIR/converted`, every other file as it was.

    Pickles on a hub are pulled for this and read by the scanners first, like those of a folder.

    Raises:
        GateError: see `hub.pull_with_pickles`, `Engine.run` and `handback.take_weights`.
    """
    pulled = run.path / "pickles"
    try:
        source = with_pickles(snapshot, request.max_pull_gb, pulled, request.endpoint, run.tick)
        return _converted(run, snapshot, source)
    finally:  # so that nobody loads, keeps or publishes them with the run
        shutil.rmtree(pulled, ignore_errors=True)


def _converted(run: SandboxedRun, snapshot: ModelSnapshot, source: ModelSnapshot) -> Conversion:
    """Scanned, converted, and put together with the other files; `source` has the pickles beside them."""
    pickles = _pickles(source)
    known = {(each.id, each.file) for each in inspect_snapshot(snapshot)}  # and accepted, or nobody would be here
    unsafe = [each for each in inspect_snapshot(source) if each.blocks and (each.id, each.file) not in known]
    if not pickles or unsafe:
        why = unsafe[0].message if unsafe else "There is no pytorch_model.bin, which is all that can be converted."
        return Conversion(snapshot, (), _end_of_sentence(why))
    records = hash_files(source.path, pickles, run.tick)
    target = _emptied(run.path / "converted")
    try:
        places = _in_container(run, source.path, records, target)
    except UnsupportedModel as error:  # what torch.load would not take for weights
        return Conversion(snapshot, (), _end_of_sentence(error.message))
    for file in source.files:
        if file.path != _INDEX:
            (target / file.path).parent.mkdir(exist_ok=True)
            shutil.copyfile(source.path / file.path, target / file.path)
    if len(pickles) > 1:
        (target / "model.safetensors.index.json").write_text(_index(target, places), encoding="utf-8")
    files = hash_folder(target, run.tick)
    by_name = {file.path: file for file in files}
    made = tuple(ConvertedFile(record, by_name[_safetensors(record.path)]) for record in records)
    return Conversion(ModelSnapshot(snapshot.model, f"sha256:{manifest_digest(files)}", target, files), made)


def with_pickles(
    snapshot: ModelSnapshot, max_gb: float, folder: Path, endpoint: str | None = None, tick: Tick = no_tick
) -> ModelSnapshot:
    """The snapshot where its pickles lie beside the rest: a folder as it is; of a hub, pulled once more into `folder`.

    Raises:
        GateError: see `hub.pull_with_pickles`.
    """
    pickles = _pickles(snapshot)
    if all((snapshot.path / name).is_file() for name in pickles):
        return snapshot
    return pull_with_pickles(snapshot, pickles, _emptied(folder), max_gb, endpoint, tick)


def _pickles(snapshot: ModelSnapshot) -> list[str]:
    return sorted(name for name in snapshot.ignored if _WEIGHTS.fullmatch(name))


def _in_container(run: SandboxedRun, folder: Path, pickles: Sequence[FileRecord], target: Path) -> dict[str, str]:
    """Tensor -> file of the safetensors that a container made and that now lie in `target`."""
    names = [(each.path, _safetensors(each.path)) for each in pickles]
    with run.scratch() as scratch:
        mounts = [job_mount(Job(__version__, "convert", pickles=tuple(names)), scratch)]
        hand_over(scratch / "run", run.record)
        mounts += [file_mount(folder / name, f"{PICKLES}/{name}", scratch) for name, _ in names]
        # Tensors that share their memory in a pickle are stored once each.
        most = 3 * sum(each.size for each in pickles) + 2**20
        run.engine.run([WORKER, JOB], mounts, Mount(scratch / "run", RUN), most, run.tick)
        return take_weights(scratch / "run", [name for _, name in names], target)


def _safetensors(pickle: str) -> str:
    """The name that transformers gives the same weights as safetensors."""
    return pickle.replace("pytorch_", "").replace(".bin", ".safetensors")


def _index(folder: Path, places: Mapping[str, str]) -> str:
    size = sum((folder / name).stat().st_size for name in set(places.values()))
    return json.dumps({"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}, indent=2) + "\n"


def _emptied(folder: Path) -> Path:
    """A new folder in the place of what an earlier try left; absolute, as everything that is mounted."""
    if os.path.lexists(folder):
        shutil.rmtree(folder)
    folder.mkdir()
    return folder.resolve()


def _end_of_sentence(message: str) -> str:
    return message[0].lower() + message[1:].rstrip(".")
