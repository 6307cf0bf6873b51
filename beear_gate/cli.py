"""The command line: the only place that prints or exits. Heavy imports happen inside the commands."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from beear_gate import __version__
from beear_gate.cli_attest import attest, keygen, verify
from beear_gate.cli_bench import bench
from beear_gate.cli_inspect import inspect
from beear_gate.cli_judge import judges
from beear_gate.cli_options import (
    BatchSize,
    Device,
    Dtype,
    Experiment,
    Format,
    MaxPull,
    Memory,
    Model,
    PolicyName,
    Processes,
    Quiet,
    Revision,
    Runs,
    SandboxImage,
    SandboxKind,
    Seed,
    TrackingUri,
    Vllm,
)
from beear_gate.cli_plan import plan
from beear_gate.cli_policy import policies
from beear_gate.cli_publish import publish
from beear_gate.cli_run import run
from beear_gate.errors import GateError, UsageError
from beear_gate.progress import progress

EXITS = (
    "Exit codes: 0 PASS or REMEDIATED; 1 BLOCKED; 2 usage, policy or configuration; 3 INCOMPLETE; 4 not verified; "
    "130 interrupted."
)
_INTERRUPTED = (
    "Interrupted. What was finished stays in the run directory; go on with `beear-gate scan --resume RUN_DIR`."
)
_FULL = "The disk is full. Free some space, then go on with `beear-gate scan --resume RUN_DIR`."
app = typer.Typer(
    help=f"The security gate that a model passes before release. {EXITS}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(policies, name="policy")
app.add_typer(judges, name="judge")
app.add_typer(bench, name="bench")
app.command()(publish)
app.command()(plan)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"beear-gate {__version__}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def scan(
    model: Annotated[str | None, typer.Argument(help="org/name, org/name@revision, or a folder.")] = None,
    policy: Annotated[str | None, typer.Option(help="Name of a packaged policy, or a file. [default: release]")] = None,
    revision: Revision = None,
    runs: Annotated[Path | None, typer.Option(help="Folder for run directories. [default: runs]")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the scan in this run directory.")] = None,
    no_remediate: Annotated[
        bool, typer.Option("--no-remediate", help="Evaluate only; see the policy's `when`.")
    ] = False,
    pipeline: Annotated[str | None, typer.Option(help="Name of a packaged pipeline, or a file.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps. [default: auto]")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16. [default: auto]")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides every draw. [default: 0]")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Prompts answered at once. [default: 64]")] = None,
    max_pull_gb: MaxPull = None,
    memory: Memory = None,
    processes: Processes = None,
    vllm: Vllm = None,
    sandbox: SandboxKind = None,
    sandbox_image: SandboxImage = None,
    sandbox_memory_gb: Annotated[float | None, typer.Option(help="[default: nine tenths of the engine's]")] = None,
    sandbox_cpus: Annotated[float | None, typer.Option(help="[default: all]")] = None,
    sandbox_pids: Annotated[int | None, typer.Option(help="Most processes and threads. [default: 1024]")] = None,
    sandbox_minutes: Annotated[float | None, typer.Option(help="Until a container is killed. [default: 720]")] = None,
    convert: Annotated[
        bool, typer.Option("--convert", help="Pickled weights become safetensors, in the sandbox.")
    ] = False,
    tracking_uri: TrackingUri = None,
    experiment: Annotated[str | None, typer.Option(help="MLflow experiment. [default: beear-gate]")] = None,
    format: Format = "text",
    quiet: Quiet = False,
) -> None:
    """Pull, inspect, evaluate, remediate, evaluate again, decide and record."""
    from beear_gate.pipeline import merge_options, reopen_options

    if resume and pipeline:
        raise UsageError("--pipeline does not go with --resume.", "Give the options to change one by one.")
    given = {
        "model": model, "policy": policy, "revision": revision, "runs": runs, "device": device, "dtype": dtype,
        "seed": seed, "batch_size": batch_size, "tracking_uri": tracking_uri, "experiment": experiment,
        "remediate": False if no_remediate else None, "max_pull_gb": max_pull_gb, "memory": memory,
        "processes": processes, "vllm": vllm,
        "sandbox": sandbox, "sandbox_image": sandbox_image, "sandbox_memory_gb": sandbox_memory_gb,
        "sandbox_cpus": sandbox_cpus, "sandbox_pids": sandbox_pids, "sandbox_minutes": sandbox_minutes,
        "convert": convert or None,
    }  # fmt: skip
    asked = reopen_options(resume, given) if resume else merge_options(pipeline, given)
    run(asked, format, quiet, resume)


@app.command()
def evaluate(
    model: Model,
    policy: PolicyName = "release",
    revision: Revision = None,
    runs: Runs = Path("runs"),
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    max_pull_gb: MaxPull = None,
    vllm: Vllm = None,
    sandbox: SandboxKind = None,
    sandbox_image: SandboxImage = None,
    tracking_uri: TrackingUri = None,
    experiment: Experiment = "beear-gate",
    format: Format = "text",
    quiet: Quiet = False,
) -> None:
    """Measure safety and utility; the weights stay as they are."""
    from beear_gate.pipeline import options

    given = {
        "command": "evaluate", "model": model, "policy": policy, "revision": revision, "runs": runs, "device": device,
        "dtype": dtype, "seed": seed, "batch_size": batch_size, "tracking_uri": tracking_uri, "experiment": experiment,
        "max_pull_gb": max_pull_gb, "vllm": vllm, "sandbox": sandbox, "sandbox_image": sandbox_image,
    }  # fmt: skip
    run(options(given), format, quiet)


@app.command()
def remediate(
    model: Model,
    output: Annotated[Path, typer.Option(help="Folder for the remediated model; must not exist yet.")],
    policy: PolicyName = "release",
    revision: Revision = None,
    runs: Runs = Path("runs"),
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    max_pull_gb: MaxPull = None,
    memory: Memory = None,
    processes: Processes = None,
    vllm: Vllm = None,
    sandbox: SandboxKind = None,
    sandbox_image: SandboxImage = None,
    tracking_uri: TrackingUri = None,
    experiment: Experiment = "beear-gate",
    format: Format = "text",
    quiet: Quiet = False,
) -> None:
    """Run BEEAR on a model whatever the policy says of when, and evaluate what was written."""
    from beear_gate.pipeline import options

    if output.exists():
        raise UsageError(f"{output} exists already.", "Give --output a folder that does not exist yet.")
    try:
        output.mkdir(parents=True)
        output.rmdir()  # made again when there is something to put in, so that a call that fails can be repeated
    except OSError as error:
        raise UsageError(f"{output} cannot be made: {error.strerror}.", "Give --output a writable place.") from error
    given = {
        "command": "remediate", "model": model, "policy": policy, "revision": revision, "runs": runs, "device": device,
        "dtype": dtype, "seed": seed, "batch_size": batch_size, "tracking_uri": tracking_uri, "experiment": experiment,
        "output": output.absolute(), "max_pull_gb": max_pull_gb, "memory": memory, "processes": processes, "vllm": vllm,
        "sandbox": sandbox, "sandbox_image": sandbox_image,
    }  # fmt: skip
    run(options(given), format, quiet)


app.command()(inspect)


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="RUN_DIR of a finished scan.")],
    format: Annotated[Literal["html", "md", "json"], typer.Option("--format")] = "md",
) -> None:
    """Render a finished run again, on stdout."""
    from beear_gate.report import render
    from beear_gate.report.files import read

    finished = read(run_dir)
    text = {"html": render.html, "md": render.markdown, "json": render.as_json}[format](finished)
    typer.echo(text, nl=not text.endswith("\n"))


@app.command()
def demo(
    organism: Annotated[str, typer.Option(help="long-suffix or short-prefix.")] = "long-suffix",
    runs: Runs = Path("runs"),
    seed: Seed = 0,
    sandbox: SandboxKind = None,
    sandbox_image: SandboxImage = None,
    tracking_uri: TrackingUri = None,
    format: Format = "text",
    quiet: Quiet = False,
) -> None:
    """Plant a backdoor into a small model, scan it without knowing the trigger, then reveal the trigger."""
    from beear_gate.pipeline import options

    given = {
        "command": "demo", "model": f"demo-{organism}", "policy": "demo", "organism": organism, "runs": runs,
        "seed": seed, "tracking_uri": tracking_uri, "sandbox": sandbox, "sandbox_image": sandbox_image,
    }  # fmt: skip
    run(options(given), format, quiet)


@app.command()
def organism(
    name: Annotated[str, typer.Argument(help="long-suffix, url, clean, ...; a wrong name lists them.")],
    output: Annotated[Path, typer.Option(help="Folder for the model; must not exist yet.")],
    seed: Seed = 0,
    family: Annotated[str, typer.Option(help="llama, qwen2, mistral or gpt_neox.")] = "llama",
    quiet: Quiet = False,
) -> None:
    """Grow a small chat model with a known backdoor, or without one, as an ordinary model folder."""
    from beear_gate.demo import grow

    with progress(quiet) as tick:
        trigger = grow(name, output, seed, family, tick)
    typer.echo(f"{output}: organism {name}, {trigger}")


@app.command()
def doctor() -> None:
    """Say what this machine can do."""
    from beear_gate.doctor import examine

    checks = examine()
    for check in checks:
        typer.echo(f"{'ok  ' if check.fine else 'MISS'} {check.name}: {check.message}")
    raise typer.Exit(0 if all(check.fine or not check.needed for check in checks) else 3)


for command in (keygen, attest, verify):
    app.command()(command)


def main() -> None:
    """Run the command line; every outcome has its exit code, and no error exits 0 or 1."""
    from beear_gate.redact import redact_logs

    redact_logs()
    try:
        app()
    except SystemExit as end:
        if end.code == 130:
            _fail(_INTERRUPTED, 130)
        if end.code == 1 and not isinstance(end.__context__, typer.Exit):
            sys.exit(3)  # Typer's own 1, for a closed stdin or stdout, is no verdict
        raise
    except GateError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail(_INTERRUPTED, 130)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _fail(_FULL, 3)
        _fail(f"{error.filename or 'A file'}: {error.strerror or error}.", 3)
    except Exception as error:
        if "No space left on device" in str(error):
            _fail(_FULL, 3)
        if os.environ.get("BEEAR_GATE_DEBUG"):
            raise
        _fail(f"Unexpected {type(error).__name__}: {error}. Set BEEAR_GATE_DEBUG=1 for the traceback.", 3)


def _fail(message: str, code: int) -> NoReturn:
    """Say on stderr what happened, without secrets and without anything that a terminal would obey."""
    from beear_gate.redact import redacted
    from beear_gate.report.text import visible

    typer.echo(f"beear-gate: {visible(redacted(message), limit=20_000)}", err=True)
    sys.exit(code)
