"""Checks of pickles: read as bytes by picklescan and, where it is installed, ModelAudit; never loaded.

What a folder holds is looked at. What a hub lists is not downloaded, so it can only be named.
"""

from __future__ import annotations

from collections.abc import Iterator

from beear_gate.artifacts.contents import Contents
from beear_gate.artifacts.kinds import ends, kind_of
from beear_gate.artifacts.limited import LimitExceeded, run_limited
from beear_gate.artifacts.modelaudit import Opinion, audit, is_installed
from beear_gate.artifacts.rules import finding
from beear_gate.artifacts.weights import PICKLE_KINDS
from beear_gate.manifest import quoted
from beear_gate.records import Finding

_SCANNED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".dill", ".pt2", ".p", ".sav")
"""Endings that picklescan is asked about; other files when they begin like a pickle."""

_DROP = "Drop the file; if its weights are needed, convert them to safetensors in a sandbox."
_SECONDS = 60


def check_pickles(contents: Contents) -> Iterator[Finding]:
    """No pickle in the folder imports what weights do not need, by any engine that is there."""
    pickles = [name for name in contents.loose if _is_pickle(contents, name)]
    others = [name for name in contents.loose if name not in pickles and name.lower().endswith(PICKLE_KINDS)]
    opinions = {name: audit(contents.path(name)) for name in (*pickles, *others)} if is_installed() else {}
    for name in pickles:
        mine = list(_picklescan(contents, name))
        yield from mine
        if name in opinions:
            yield from _modelaudit(name, opinions[name])
            yield from _disagreement(name, [each.id for each in mine], opinions[name])
    for name in others:
        if name in opinions:
            yield from _modelaudit(name, opinions[name])


def _is_pickle(contents: Contents, name: str) -> bool:
    head, _, _ = ends(contents.path(name))
    kind = kind_of(head)
    if name.lower().endswith(_SCANNED):
        return kind not in ("gguf", "hdf5")
    return kind == "pickle" or (kind == "zip" and b"data.pkl" in head)


def _picklescan(contents: Contents, name: str) -> Iterator[Finding]:
    path = contents.path(name)
    if not path.stat().st_size:
        return
    try:
        result = run_limited("pickle_worker", str(path), _SECONDS, 2048)
    except LimitExceeded as error:
        result = {"dangerous": [], "problem": str(error)}
    if result["dangerous"]:
        shown = ", ".join(quoted(each) for each in result["dangerous"][:3])
        more = f" and {len(result['dangerous']) - 3} more" if len(result["dangerous"]) > 3 else ""
        message = f"{quoted(name)} imports {shown}{more}, which weights do not need (picklescan)."
        yield finding("pickle-dangerous", name, message, _DROP)
    if result["problem"]:
        message = f"{quoted(name)} was not understood by picklescan: {result['problem']}."
        yield finding("pickle-unreadable", name, message, _DROP)


def _modelaudit(name: str, opinion: Opinion) -> Iterator[Finding]:
    if opinion.verdict == "clean":
        return
    message = f"{quoted(name)}: ModelAudit says {opinion.verdict}: {quoted(opinion.reason)}."
    yield finding(f"modelaudit-{opinion.verdict}", name, message, _DROP)


def _disagreement(name: str, mine: list[str], opinion: Opinion) -> Iterator[Finding]:
    """One engine blocks and the other one does not: neither is right for that."""
    theirs = opinion.verdict in ("critical", "inconclusive")
    if bool(mine) != theirs:
        first, second = ("clean", "not clean") if theirs else ("not clean", opinion.verdict)
        message = f"{quoted(name)} is {first} by picklescan and {second} by ModelAudit."
        yield finding("engines-disagree", name, message, "Take the stricter of both.")
