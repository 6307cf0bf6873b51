"""`beear-gate judge`: what the judges know, held against people."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from beear_gate.cli_options import Format
from beear_gate.errors import UsageError

if TYPE_CHECKING:
    from beear_gate.evaluation.model_judge import ModelJudge
    from beear_gate.policy import AnyJudgeSpec
    from beear_gate.records import Agreement, Calibration

Name = Literal["refusal-prefix", "refusal-keywords-paper", "needless-refusal", "code", "http", "classifier"]
judges = typer.Typer(help="Hold judges against people.", no_args_is_help=True)


@judges.command("calibrate")
def calibrate(
    file: Annotated[Path, typer.Argument(help="CSV of answers that people have labelled, such as XSTest's.")],
    judge: Annotated[Name, typer.Option(help="Which judge; http and classifier need --policy.")] = "refusal-prefix",
    policy: Annotated[str | None, typer.Option(help="Take the judge as this policy has it, patterns included.")] = None,
    answer_column: Annotated[str | None, typer.Option(help="[default: completion, answer, response or text]")] = None,
    label_column: Annotated[str | None, typer.Option(help="[default: final_label, label or human_label]")] = None,
    output: Annotated[Path | None, typer.Option(help="File to keep it in. [default: in your data folder]")] = None,
    format: Format = "text",
) -> None:
    """Agreement, kappa, missed and false compliance of a judge; reports show it beside the judge's figures."""
    from beear_gate.evaluation.calibration import calibrate as compare
    from beear_gate.evaluation.calibration import calibration_folder, store

    spec = _spec(judge, policy)
    found = compare(spec, file, answer_column, label_column, _loaded(spec))
    path = output or calibration_folder() / f"{judge}.json"
    store(found, path)
    typer.echo(json.dumps(asdict(found)) if format == "json" else _table(found))
    typer.echo(f"kept in {path}", err=True)


def _spec(name: Name, policy: str | None) -> AnyJudgeSpec:
    from beear_gate.cli_policy import load
    from beear_gate.policy import JudgeSpec

    if policy is None:
        if name == "http" or name == "classifier":
            raise UsageError(f"A policy says which model the judge {name} is.", "Name one with --policy.")
        return JudgeSpec(name)
    for behavior in load(policy).behaviors:
        for spec in (*behavior.judges, behavior.safe_judge):
            if spec.name.partition(":")[0] == name:
                return spec
    raise UsageError(f"The policy {policy} has no judge {name}.", "Name another one with --judge.")


def _loaded(spec: AnyJudgeSpec) -> ModelJudge | None:
    """The judge itself, where it is a model that has to be pulled and inspected first."""
    from beear_gate.evaluation.calibration import calibration_folder
    from beear_gate.judge_models import judge_for_calibration
    from beear_gate.policy import ClassifierJudgeSpec

    if not isinstance(spec, ClassifierJudgeSpec):
        return None
    return judge_for_calibration(spec, calibration_folder() / "loaded")


def _table(found: Calibration) -> str:
    head = f"{'':24}{'n':>6}{'agree':>9}  {'kappa (95 %)':22}{'missed compliance':24}{'false compliance':24}"
    return "\n".join([f"{found.judge} on {found.source}", f"{head}partial refusals", *map(_row, found.subsets)])


def _row(each: Agreement) -> str:
    from beear_gate.evaluation.stats import upper_bound

    def share(hits: int, n: int) -> str:
        return f"{hits} of {n} (below {upper_bound(hits, n, 0.95):.1%})" if n else "none to miss"

    kappa = "not defined" if each.kappa is None else f"{each.kappa:.2f} ({each.kappa_low:.2f} to {each.kappa_high:.2f})"
    agreed = f"{each.agreed / each.n:.1%}" if each.n else "-"
    return (
        f"{each.subset:24}{each.n:>6}{agreed:>9}  {kappa:22}{share(each.missed, each.complied):24}"
        f"{share(each.false, each.refused):24}{each.partial_complied} of {each.partial} called complied"
    )
