"""How far remediation moved the weights, in words and in short."""

from __future__ import annotations

from dataclasses import asdict

from beear_gate.records import Changes


def changes(found: Changes) -> str:
    """All of it in one line."""
    others = "other differences are among the findings" if found.findings else "every other file is the original's"
    norm = figure(found.relative_l2)
    return (
        f"{_moved(found)} of {len(found.tensors)} tensors changed (L2 norm of the change over that of the original: "
        f"{norm}); {others}"
    )


def figure(value: float | None) -> str:
    """A plain number, or that there is none."""
    return "not measured" if value is None else f"{value:.2g}"


def summary(found: Changes | None) -> dict[str, object] | None:
    """What `evidence.json` has of it; `tables/tensors.json` has every tensor."""
    if found is None:
        return None
    return {
        "tensors": len(found.tensors),
        "changed": _moved(found),
        "relative_l2": found.relative_l2,
        "largest": [asdict(each) for each in found.tensors[:10]],
    }


def _moved(found: Changes) -> int:
    return sum(each.relative_l2 != 0 for each in found.tensors)
