"""From the options of a command to a finished scan: the request, the run directory, what is printed, the exit code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from beear_gate.cli_policy import load
from beear_gate.progress import progress

if TYPE_CHECKING:
    from beear_gate.pipeline import Options
    from beear_gate.records import GateReport
    from beear_gate.request import Request
    from beear_gate.rundir import RunDirectory


def run(options: Options, format: str, quiet: bool, resume: Path | None = None) -> None:
    """Leave in a run directory what was asked, so that --resume can go on with it, and do it."""
    from beear_gate.rundir import RunDirectory

    if options.vllm and not resume:  # now rather than after the model was pulled; a finished stage needs it no more
        from beear_gate.lm.vllm_answers import check_interpreter

        check_interpreter(options.vllm)
    request = _request(options, quiet)
    folder = RunDirectory.reopen(resume) if resume else RunDirectory.create(Path(options.runs), options.model)
    folder.write("request.json", options.as_json())
    _finish(request, folder, format, quiet)


def _request(options: Options, quiet: bool) -> Request:
    from beear_gate.request import Change, Request, parse_memory

    if options.organism:
        from beear_gate.demo import plant_demo

        with progress(quiet) as tick:
            planted = plant_demo(options.organism, options.seed, options.tracking_uri, tick)
        return replace(planted, sandbox=options.container())
    change: Change = "policy" if options.remediate else "skip"
    if options.command in ("evaluate", "remediate"):
        change = "off" if options.command == "evaluate" else "always"
    return Request(
        model=options.model,
        policy=load(options.policy),
        revision=options.revision,
        change=change,
        device=options.device,
        dtype=options.dtype,
        seed=options.seed,
        batch_size=options.batch_size,
        max_pull_gb=options.max_pull_gb,
        memory=parse_memory(options.memory) if options.memory else None,
        processes=options.processes,
        vllm=options.vllm,
        output=Path(options.output) if options.output else None,
        tracking_uri=options.tracking_uri,
        experiment=options.experiment,
        sandbox=options.container(),
        convert=options.convert,
    )


def _finish(request: Request, run: RunDirectory, format: str, quiet: bool) -> None:
    """Run the gate, print what came of it, and exit with the verdict's code."""
    from beear_gate.gate import run_gate
    from beear_gate.records import Verdict
    from beear_gate.summary import annotate, summarize

    if not quiet and format == "text":
        typer.echo(f"run directory: {run.path}", err=True)
    with progress(quiet) as tick:
        found: GateReport = run_gate(request, run, tick)
    annotate(found)
    if format == "json":
        from beear_gate.report import render

        typer.echo(render.as_json(found), nl=False)
    else:
        typer.echo(summarize(found, run.path, request.tracking_uri))
    raise typer.Exit({Verdict.BLOCKED: 1, Verdict.INCOMPLETE: 3}.get(found.decision.verdict, 0))
