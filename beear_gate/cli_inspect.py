"""`beear-gate inspect`: the static checks alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from beear_gate.cli_options import Format, MaxPull, Revision
from beear_gate.errors import UsageError

if TYPE_CHECKING:
    from beear_gate.records import Finding, ModelSnapshot


def inspect(
    model: Annotated[str | None, typer.Argument(help="org/name, org/name@revision, or a folder.")] = None,
    revision: Revision = None,
    require_chat_template: Annotated[bool, typer.Option(help="A model without a chat template is blocked.")] = False,
    max_pull_gb: MaxPull = None,
    policy: Annotated[str | None, typer.Option(help="Policy whose waivers and needs count: a name or a file.")] = None,
    list_rules: Annotated[bool, typer.Option("--list-rules", help="Print every rule and exit.")] = False,
    format: Format = "text",
) -> None:
    """Look at the files alone; nothing is loaded."""
    from datetime import UTC, datetime

    from beear_gate.artifacts import RULES, apply_waivers, inspect_snapshot
    from beear_gate.hub import pull
    from beear_gate.policy_files.load import find_policy, load_policy
    from beear_gate.request import MAX_PULL_GB

    if list_rules:
        for rule in RULES:
            typer.echo(f"{rule.id:24} {rule.severity:8} {rule.technique or '-':15} {rule.explanation}")
        return
    if model is None:
        raise UsageError("inspect needs a model.", "Give org/name, org/name@revision or a folder, or --list-rules.")
    asked = load_policy(find_policy(policy)) if policy else None
    snapshot = pull(model, revision, max_gb=max_pull_gb or MAX_PULL_GB)
    findings = inspect_snapshot(snapshot, require_chat_template or bool(asked and asked.require_chat_template))
    if asked:
        findings = apply_waivers(findings, asked.waivers, datetime.now(UTC).date())
    blocked = any(finding.blocks for finding in findings)
    if format == "json":
        from pydantic import RootModel

        rows = RootModel[Any](list(findings)).model_dump(mode="json")
        typer.echo(json.dumps({"model": model, "commit": snapshot.commit, "blocked": blocked, "findings": rows}))
    else:
        _print_findings(snapshot, findings)
    raise typer.Exit(1 if blocked else 0)


def _print_findings(snapshot: ModelSnapshot, findings: Sequence[Finding]) -> None:
    from beear_gate.report.text import visible

    for finding in findings:
        place = f" (byte {finding.offset})" if finding.offset is not None else ""
        file = f"{visible(finding.file) or '(repository)'}{place}"
        typer.echo(f"{finding.severity:8} {finding.id:24} {file}: {visible(finding.message, limit=600)}")
        typer.echo(f"{'':34}{finding.remedy}" + (f" [{finding.technique}]" if finding.technique else ""))
        if finding.waived:
            typer.echo(f"{'':34}Waived {visible(finding.waived, limit=600)}")
    typer.echo(f"{len(snapshot.files)} files checked, {len(snapshot.ignored)} left unopened, {len(findings)} findings")
