"""`beear-gate publish`: what a run measured, to a hub."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from beear_gate.errors import UsageError

if TYPE_CHECKING:
    from beear_gate.publish import Plan, Published


def publish(
    run_dir: Annotated[Path, typer.Argument(help="RUN_DIR of a scan that ended REMEDIATED.")],
    to: Annotated[
        str | None, typer.Option(help="Repository to publish to, org/name; made where it is missing.")
    ] = None,
    pull_request: Annotated[
        bool, typer.Option("--pull-request", help="A pull request on the repository that was scanned.")
    ] = False,
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Of a repository that is made. [default: private]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    format: Annotated[Literal["text", "json"], typer.Option("--format", help="json: one document on stdout.")] = "text",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Publish the remediated model, exactly as it was measured, with its card and its evidence, in one commit."""
    from beear_gate.publish import plan_release, publish_release
    from beear_gate.release import read_release

    if bool(to) == pull_request:
        raise UsageError("publish has one target.", "Give either --to org/name or --pull-request.")
    if pull_request and private is not None:
        raise UsageError("A pull request does not change who may see its repository.", "Leave --private out.")
    release = read_release(run_dir)
    plan = plan_release(release, to, private)
    done = None
    if not dry_run:
        with _bars(not quiet):
            done = publish_release(release, plan)
        plan = done.plan
    typer.echo(_as_json(plan, done) if format == "json" else _as_text(plan, done))


def _as_json(plan: Plan, done: Published | None) -> str:
    found = {
        **asdict(plan),
        "changes": plan.changes,
        "published": done is not None,
        "commit": done.commit if done else None,
        "url": done.url if done else None,
    }
    return json.dumps(found, indent=2)


def _as_text(plan: Plan, done: Published | None) -> str:
    from beear_gate.report.text import one_line
    from beear_gate.report.words import size

    kind = "private" if plan.private else "public"
    place = "a new pull request" if plan.pull_request else plan.revision
    on = f"on {plan.parent}" if plan.parent else "which has yet to be made"
    lines = [f"{plan.repo} ({kind}), {place}, {on}"]
    for file in plan.files:
        about = f"{size(file.size or 0):>10}  sha256 {file.sha256}" if file.sha256 else ""
        lines.append(f"  {file.action:7} {one_line(file.path):44} {about}".rstrip())
    lines.append("The verdict is signed." if plan.signed else "The verdict is unsigned; `beear-gate attest` signs it.")
    if not plan.changes:
        lines.append("Nothing to do: everything is there already.")
    elif done is None:
        lines.append("Dry run: nothing was done.")
    if done is not None:
        lines.append(f"{done.url}  commit {done.commit}")
    return "\n".join(lines)


@contextmanager
def _bars(wanted: bool) -> Iterator[None]:
    """The hub client's own bars, on a terminal alone."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    off = are_progress_bars_disabled() or (wanted and sys.stderr.isatty())
    if not off:
        disable_progress_bars()
    try:
        yield
    finally:
        if not off:
            enable_progress_bars()
