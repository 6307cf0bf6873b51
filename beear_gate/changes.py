"""What remediation left in the saved folder, held against the original: weights tensor by tensor, every other file byte
for byte.

`save_lm` copies configuration, tokenizer and template, so nothing but weights may differ. Still it is looked at: a lost
rope or end-token setting changes what a model says more than many a remediation, and no figure would tell why.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from beear_gate.lm import TensorComparison, compare_tensors
from beear_gate.manifest import quoted
from beear_gate.records import Changes, FileRecord, Finding, ModelSnapshot, Severity

_WEIGHTS = (".safetensors", ".safetensors.index.json")
_CARD = "README.md"  # describes the original; the copy gets a card of its own
_AGAIN = "Scan again; if that changes nothing, report it to the authors of beear-gate."


def compare_models(source: ModelSnapshot, saved: ModelSnapshot) -> Changes:
    """Everything in which the saved model differs from the one that was scanned.

    Raises:
        UnsupportedModel: a weight file cannot be read.
    """
    found = compare_tensors(source.path, saved.path)
    return Changes(found.changes, found.relative_l2, (*_files(source, saved), *_weights(found)))


def _files(source: ModelSnapshot, saved: ModelSnapshot) -> Iterator[Finding]:
    """Files other than weights that are not the original's."""
    old, new = _others(source), _others(saved)
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) == new.get(name):
            continue
        if name not in new:
            what = "is missing from the saved model"
        elif name not in old:
            what = "is in the saved model, and the original has no such file"
        else:
            what = f"differs from the original{_fields(source.path / name, saved.path / name)}"
        yield Finding("saved-file-differs", Severity.BLOCK, name, f"{quoted(name)} {what}.", _AGAIN)


def _others(snapshot: ModelSnapshot) -> Mapping[str, FileRecord]:
    return {file.path: file for file in snapshot.files if file.path != _CARD and not file.path.endswith(_WEIGHTS)}


def _fields(before: Path, after: Path) -> str:
    """For JSON, up to four settings that differ; else nothing."""
    if before.suffix != ".json":
        return ""
    try:
        old, new = (dict(_flat(json.loads(path.read_text(encoding="utf-8")))) for path in (before, after))
    except (OSError, ValueError, RecursionError):
        return ", and is no readable JSON"
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key, ...) != new.get(key, ...))
    if not keys:
        return " in its layout alone"
    said = [f"{quoted(key)} was {_value(old, key)} and is {_value(new, key)}" for key in keys[:4]]
    more = f" and {len(keys) - 4} more settings" if len(keys) > 4 else ""
    return f": {'; '.join(said)}{more}"


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted name; lists stay whole, because their order means something."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _flat(part, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _value(settings: Mapping[str, Any], key: str) -> str:
    return quoted(settings[key]) if key in settings else "not set"


def _weights(found: TensorComparison) -> Iterator[Finding]:
    """Tensors without counterpart, of another form, or with values that are no numbers."""
    for names, where in ((found.lost, "only the original holds"), (found.added, "only the saved model holds")):
        if names:
            message = f"There are weights that {where}: {_some(names)}."
            yield Finding("saved-tensors-differ", Severity.WARNING, "", message, _AGAIN)
    formed = [each.name for each in found.changes if each.was]
    if formed:
        message = f"The saved model has other shapes or dtypes than the original: {_some(formed)}."
        yield Finding("saved-tensors-differ", Severity.WARNING, "", message, _AGAIN)
    broken = [each.name for each in found.changes if each.max_abs is None and not each.was]
    if broken:
        message = f"The saved model differs from the original by values that are no numbers: {_some(broken)}."
        yield Finding("saved-tensors-not-finite", Severity.BLOCK, "", message, _AGAIN)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(quoted(name) for name in names[:3]) + more
