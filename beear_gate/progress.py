"""Progress on stderr: one line with what is being done, how far it is, and how long it may take."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beear_gate.records import Tick


@contextmanager
def progress(quiet: bool) -> Iterator[Tick]:
    """A Tick that draws a bar on a terminal, writes a line for each new task elsewhere, and nothing when quiet."""
    if quiet:
        from beear_gate.records import no_tick  # a file of many dataclasses, which `--help` need not pay for

        yield no_tick
    elif sys.stderr.isatty():
        with _bars() as tick:
            yield tick
    else:
        yield _lines()


@contextmanager
def _bars() -> Iterator[Tick]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("starting", total=None)
        current = ""

        def tick(label: str, done: int, total: int) -> None:
            nonlocal current
            if label != current:
                bars.reset(task, description=escape(label), total=total)
                current = label
            bars.update(task, completed=done, total=total)

        yield tick


def _lines() -> Tick:
    current = ""

    def tick(label: str, done: int, total: int) -> None:
        nonlocal current
        task = label.rstrip("0123456789/ ")
        if task != current:
            current = task
            print(f"  {task}", file=sys.stderr, flush=True)

    return tick
