"""What a container may hand back: JSON of known stages, judges' verdicts, and one model, each looked at before use.

All of it may be forged by code that broke out into the container. So nothing here trusts a name, a size, a link or a
digest; files become the run's own only when all of them have passed. That the figures are true cannot be checked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from beear_gate.artifacts import inspect_snapshot
from beear_gate.artifacts.safetensors_header import HeaderError, Tensor, read_header
from beear_gate.artifacts.strict_json import parse_json
from beear_gate.errors import IncompleteError
from beear_gate.evaluation.ledger import Entry
from beear_gate.manifest import hash_folder, list_folder, quoted
from beear_gate.records import (
    AnchorSets,
    Answer,
    LatentPoint,
    ModelSnapshot,
    Observations,
    Rehearsal,
    Remediation,
    Severity,
)
from beear_gate.redact import redacted
from beear_gate.report.text import visible
from beear_gate.rundir import TOGETHER, RunDirectory

RESULTS: Mapping[str, Any] = {
    "before": Observations,
    "anchors": AnchorSets,
    "latent-before": tuple[LatentPoint, ...],
    "searched-before": tuple[Answer, ...],
    "canary": Rehearsal,
    "remediation": Remediation,
    "after": Observations,
    "latent-after": tuple[LatentPoint, ...],
    "searched-after": tuple[Answer, ...],
    "latent-reference": tuple[LatentPoint, ...],
    "revealed-before": tuple[Answer, ...],
    "revealed-after": tuple[Answer, ...],
}
"""Stages that need a model, and what they result in."""
CHOICES = "original-choices.safetensors"
_OF_HOST = ("changes.json",)
"""Written inside too, and worked out again here, from the files themselves."""
_LOG = re.compile(r"process-\d{1,3}\.log", re.ASCII)
_MOST_JSON = 2**29  # bytes; a thousand prompts make a few million
_MOST_LOG = 2**16
_CARD = "README.md"


def take(scratch: Path, run: RunDirectory, source: ModelSnapshot, output: Path, ledgers: Collection[str]) -> None:
    """Check everything in the folder of a container that has ended well, and make it the run's own.

    Args:
        source: the model that was scanned.
        output: where the remediated model shall lie.
        ledgers: names of the judges' files that may have grown.

    Raises:
        IncompleteError: something is there that does not belong there, or is not what it says.
    """
    known = {f"{name}.json" for name in RESULTS} | {CHOICES, "judge", "model", *_OF_HOST}
    for name in sorted(os.listdir(scratch)):
        if name not in known and not name.startswith("pull-"):
            raise _refused(f"{quoted(name)}, which no stage writes")
    keep(scratch, run, source, output, ledgers)


def keep(scratch: Path, run: RunDirectory, source: ModelSnapshot, output: Path, ledgers: Collection[str]) -> None:
    """`take`, where the container was stopped: what else lies in the folder does not matter.

    Logs of processes that trained together, which only a stage that failed leaves, come along as text that shows all
    that is invisible.
    """
    found = set(os.listdir(_folder(scratch / "judge"))) if os.path.lexists(scratch / "judge") else set()
    verdicts = {name: _entries(scratch / "judge" / name) for name in found.intersection(ledgers)}
    documents = {
        name: document
        for name, kind in RESULTS.items()
        if os.path.lexists(scratch / f"{name}.json")
        and (document := _document(scratch / f"{name}.json", kind))
        and run.finished(name, document["inputs"], kind) is None  # what the run has already came along for reading
    }
    logs = _logs(scratch / TOGETHER) if os.path.lexists(scratch / TOGETHER) else {}
    has_choices = os.path.lexists(scratch / CHOICES)
    if has_choices:
        _tensors(scratch / CHOICES)
    if remediation := documents.get("remediation"):
        remediation["result"] = _model(scratch / "model", remediation["result"], source, output)
        if output.exists():
            shutil.rmtree(output)
        shutil.move(scratch / "model", output)
    if has_choices:
        os.replace(_own(scratch / CHOICES), run.path / CHOICES)
    for name, entries in verdicts.items():
        (run.path / "judge").mkdir(exist_ok=True)
        run.write(f"judge/{name}", "".join(entries))
    for name, document in documents.items():
        inputs, kind = document["inputs"], RESULTS[name]
        result = TypeAdapter(kind).dump_python(document["result"], mode="json")
        run.write(f"{name}.json", json.dumps({"inputs": inputs, "result": result}))
    for name, text in logs.items():
        (run.path / TOGETHER).mkdir(exist_ok=True)
        run.write(f"{TOGETHER}/{name}", text)


def take_weights(scratch: Path, names: Collection[str], folder: Path) -> dict[str, str]:
    """Move safetensors files of these names, and no others, into a folder.

    Returns:
        For each tensor its file.

    Raises:
        IncompleteError: as `take`.
    """
    found = set(os.listdir(scratch))
    if found != set(names):
        raise _refused(f"{quoted(min(found ^ set(names)))}, which is not what was asked for")
    places: dict[str, str] = {}
    for name in sorted(names):
        tensors = _tensors(scratch / name)
        if twice := sorted(tensors.keys() & places.keys()):
            raise _refused(f"the tensor {quoted(twice[0])} twice")
        places |= dict.fromkeys(tensors, name)
    for name in names:
        shutil.move(_own(scratch / name), folder / name)
    return places


def _logs(folder: Path) -> dict[str, str]:
    """The end of what each of the processes that trained together has written, by the name of its file."""
    found = sorted(name for name in os.listdir(_folder(folder)) if _LOG.fullmatch(name))
    texts: dict[str, str] = {}
    for name in found:
        with _regular(folder / name).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _MOST_LOG))
            texts[name] = visible(redacted(file.read(_MOST_LOG).decode("utf-8", "replace")), _MOST_LOG)
    return texts


def _document(path: Path, kind: Any) -> dict[str, Any]:
    """A stage's file, its result as the record that it must be."""
    try:
        document = parse_json(_regular(path, _MOST_JSON).read_bytes(), allow_nan=True)
        if document.keys() != {"inputs", "result"}:
            raise ValueError
        inputs = TypeAdapter(dict[str, str]).validate_python(document["inputs"], strict=True)
        return {"inputs": inputs, "result": TypeAdapter(kind).validate_python(document["result"])}
    except (ValueError, AttributeError, RecursionError, ValidationError):
        raise _refused(f"{quoted(path.name)}, which is not the result of that stage") from None


def _entries(path: Path) -> list[str]:
    """Lines of a judge's ledger."""
    lines = _regular(path, _MOST_JSON).read_bytes().split(b"\n")
    try:
        adapter = TypeAdapter(Entry)
        found = [adapter.validate_python(parse_json(line)) for line in lines if line]
    except (ValueError, ValidationError):
        raise _refused(f"{quoted(path.name)}, which is no list of verdicts") from None
    return [json.dumps(adapter.dump_python(each, mode="json")) + "\n" for each in found]


def _model(folder: Path, remediation: Remediation, source: ModelSnapshot, output: Path) -> Remediation:
    """The remediated model: the files that it says, weights of the same form, and everything else byte for byte."""
    for parent, _, names in os.walk(_folder(folder)):
        _own(_folder(Path(parent)))
        for name in names:
            _own(_regular(Path(parent, name)))
    _, others = list_folder(folder)
    if others:
        raise _refused(f"{quoted(others[0])}, which is no file of a model")
    files = hash_folder(folder)
    if files != remediation.snapshot.files:
        raise _refused("a model that is not the one that its digests name")
    old = {file.path: file for file in source.files if not _is_weights(file.path) and file.path != _CARD}
    new = {file.path: file for file in files if not _is_weights(file.path)}
    if old != new:
        name = min(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        raise _refused(f"a model of which {quoted(name)} is not the original's")
    _same_form(source, folder)
    snapshot = replace(remediation.snapshot, model=source.model, path=folder)
    blocks = [each for each in inspect_snapshot(snapshot) if each.severity is Severity.BLOCK]
    known = {each.id for each in inspect_snapshot(source) if each.severity is Severity.BLOCK} if blocks else set()
    for each in blocks:
        if each.id not in known:  # what the original had too was waived, or it would not have been loaded
            raise _refused(f"a model with unsafe files: {each.message.rstrip('.')}")
    return replace(remediation, snapshot=replace(snapshot, path=output))


def _same_form(source: ModelSnapshot, folder: Path) -> None:
    """Each tensor has its counterpart in the original, with the same dtype and shape.

    Old files lack the prefix of the model's body. Second copies of tied tensors may go; `changes` looks at what went.
    """
    old, new = _forms(source.path), _forms(folder)
    for name, form in new.items():
        near = [other for other in old if other == name or name.endswith(f".{other}") or other.endswith(f".{name}")]
        if form not in [old[other] for other in near]:
            raise _refused(f"weights of which {quoted(name)} has no counterpart in the original")


def _forms(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name in list_folder(folder)[0]:
        if name.endswith(".safetensors"):
            found |= {key: (each.dtype, each.shape) for key, each in _tensors(folder / name).items()}
    return found


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return read_header(_regular(path)).tensors
    except HeaderError as error:
        raise _refused(f"{quoted(path.name)}, which {error}") from None


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".safetensors.index.json"))


def _regular(path: Path, most: int | None = None) -> Path:
    """The path, which is a file of its own: no link to or from anywhere, nothing special, and not too large."""
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise _refused(f"{quoted(path.name)}, which is a link or no ordinary file")
    if most is not None and found.st_size > most:
        raise _refused(f"{quoted(path.name)} of {found.st_size} bytes, and at most {most} are read")
    return path


def _folder(path: Path) -> Path:
    """The path, which is a folder and no link to one."""
    try:
        is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        is_folder = False
    if not is_folder:
        raise _refused(f"{quoted(path.name)}, which is no folder or not there")
    return path


def _own(path: Path) -> Path:
    """A file or folder, made this user's and readable for all, as those of a run are."""
    if os.getuid() == 0:
        os.chown(path, 0, 0, follow_symlinks=False)
    path.chmod(0o755 if path.is_dir() else 0o644)
    return path


def _refused(what: str) -> IncompleteError:
    return IncompleteError(
        f"The sandbox handed back {what}, so nothing of it was taken.",
        "Treat the model as hostile, unless an image of another version of beear-gate explains it.",
    )
