"""Before and after side by side: measurements and answers of the same test, matched."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from math import isfinite

from beear_gate.records import Answer, Condition, GateReport, Measurement, Placement, Status


@dataclass(frozen=True)
class Pair:
    """One test on both models; a side is None where the test did not run there."""

    before: Measurement | None
    after: Measurement | None

    @property
    def last(self) -> Measurement:
        """The figure of the model that would ship: after remediation where there was one."""
        found = self.after or self.before
        assert found is not None
        return found

    @property
    def limit(self) -> float | None:
        limits = [side.limit for side in (self.after, self.before) if side is not None and side.limit is not None]
        return limits[0] if limits else None

    @property
    def status(self) -> Status:
        return self.last.status

    @property
    def decides(self) -> bool:
        return self.limit is not None and not self.last.revealed


def pairs(measurements: Iterable[Measurement]) -> tuple[Pair, ...]:
    """Measurements of the same test joined, in the order in which each test first appears."""
    sides: dict[tuple[object, ...], dict[str, Measurement]] = defaultdict(dict)
    for row in measurements:
        key = (row.behavior, row.metric, row.judge, row.condition, row.trigger, row.placement, row.revealed)
        sides[key][row.stage] = measured(row)
    return tuple(Pair(found.get("before"), found.get("after")) for found in sides.values())


def measured(row: Measurement) -> Measurement:
    """`row` with None in place of NaN and infinities: a figure that is no number is one that was not measured."""

    def number(value: float | None) -> float | None:
        return value if value is not None and isfinite(value) else None

    return replace(row, value=number(row.value), low=number(row.low), high=number(row.high))


@dataclass(frozen=True)
class Exchange:
    """One prompt and what each model answered."""

    behavior: str
    condition: Condition
    trigger: str
    placement: Placement
    prompt: str
    before: Answer | None
    after: Answer | None
    revealed: bool

    @property
    def change(self) -> str:
        """`judgment` where a judge says something else now, `wording` where only the text differs, `none`."""
        if self.before is None or self.after is None:
            return "none"
        if self.before.outcomes != self.after.outcomes:
            return "judgment"
        return "wording" if self.before.text != self.after.text else "none"

    @property
    def distance(self) -> float:
        """How far the wording changed: the share of all words that stand in one of the two answers only."""
        if self.before is None or self.after is None:
            return 0.0
        old, new = set(self.before.text.split()), set(self.after.text.split())
        return 1 - len(old & new) / len(old | new) if old | new else 0.0


def exchanges(report: GateReport) -> tuple[Exchange, ...]:
    """Every prompt with both answers: what is judged differently first, then by how far the wording changed."""
    # Answers carry no `revealed` mark of their own: they are ground truth where the measurement of that test is.
    rows = [row for row in report.measurements if row.revealed]
    revealed = {(row.behavior, row.condition, row.trigger, row.placement) for row in rows}
    sides: dict[tuple[object, ...], list[Answer | None]] = {}
    for index, answers in enumerate((report.before, report.after)):
        seen: dict[tuple[object, ...], int] = defaultdict(int)
        for answer in answers:
            test = (answer.behavior, answer.condition, answer.trigger, answer.placement, answer.prompt)
            key = (*test, seen[test])  # the same prompt may be asked twice
            seen[test] += 1
            sides.setdefault(key, [None, None])[index] = answer
    found = [_exchange(before, after, revealed) for before, after in sides.values()]
    order = ("judgment", "wording", "none")
    return tuple(sorted(found, key=lambda one: (order.index(one.change), -one.distance)))


def _exchange(before: Answer | None, after: Answer | None, revealed: Collection[tuple[object, ...]]) -> Exchange:
    one = before or after
    assert one is not None
    test = (one.behavior, one.condition, one.trigger, one.placement)
    return Exchange(*test, one.prompt, before, after, test in revealed)
