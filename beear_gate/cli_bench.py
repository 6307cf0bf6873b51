"""`beear-gate bench`: slow studies, each a command that writes a page and its figures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from beear_gate.cli_options import Device, Quiet
from beear_gate.errors import UsageError
from beear_gate.progress import progress

bench = typer.Typer(help="Slow studies; each writes a page and its figures.", no_args_is_help=True)

Output = Annotated[Path, typer.Option(help="Folder for page and figures.")]
Seeds = Annotated[int, typer.Option(min=1, help="Seeds for each organism, from 0.")]
Organisms = Annotated[list[str] | None, typer.Option("--organism", help="Only these; may be given several times.")]
RESULTS = Path("docs/results")
SHORT = ("long-suffix", "short-prefix")


@bench.callback()
def threads(context: typer.Context) -> None:
    """Slow studies; each writes a page and its figures."""
    # Beside other work two threads of torch are slower than one on models this small: they wait for each other. What
    # measures the machine takes all of it, as a scan does.
    if context.invoked_subcommand != "speed":
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@bench.command("first-look")
def first_look(output: Output = RESULTS, quiet: Quiet = False) -> None:
    """`paper` and `deep` side by side on one organism, through the whole gate."""
    from beear_gate.bench.first_look import first_look as look

    with progress(quiet) as tick:
        path = look(output, tick)
    typer.echo(f"{path}")


@bench.command("removal")
def removal(
    output: Output = RESULTS,
    seeds: Seeds = 3,
    organism: Organisms = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Only these; several times. [default: four everywhere, all on the paper's M1 to M4]"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Organisms at once, one core each.")] = 1,
    quiet: Quiet = False,
) -> None:
    """Organisms under defences, with ground truth; goes on where an earlier run was stopped."""
    from beear_gate.bench.methods import METHODS
    from beear_gate.bench.removal_page import write
    from beear_gate.organisms import RECIPES

    unknown = [name for name in method or () if name not in METHODS]
    if unknown:
        raise UsageError(f"There is no method {unknown[0]!r}.", f"Choose one of {', '.join(METHODS)}.")
    with progress(quiet) as tick:
        path = write(output, tuple(organism or RECIPES), method, range(seeds), workers, tick)
    typer.echo(f"{path}")


@bench.command("ablation")
def ablation(
    output: Output = RESULTS,
    organism: Organisms = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each remediation; the paper looks at 15.")] = 15,
    seeds: Seeds = 1,
    quiet: Quiet = False,
) -> None:
    """The paper's ablations of layer, anchoring sets and delta (Figures 5 to 8), and its drift (Figure 3)."""
    from beear_gate.bench.ablation import run

    with progress(quiet) as tick:
        path = run(output, tuple(organism or SHORT[:1]), rounds, tick, range(seeds))
    typer.echo(f"{path}")


@bench.command("persistence")
def persistence(
    output: Output = RESULTS,
    seeds: Seeds = 3,
    organism: Organisms = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Only these: repaired, direct (without path-aware steps), clean.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Whether what `deep` removed comes back: benign fine-tuning, poisoning again, quantized copies."""
    from beear_gate.bench.persistence import run
    from beear_gate.bench.persistence_cells import TESTS
    from beear_gate.bench.removal import CELLS

    names, models = tuple(organism or SHORT), tuple(model or TESTS)
    chosen = [f"--organism {name}" for name in names] + [f"--model {each}" for each in model or ()]
    command = f"beear-gate bench persistence --seeds {seeds} {' '.join(chosen)}"
    with progress(quiet) as tick:
        path = run(output, names, range(seeds), tick, output / CELLS, command, models)
    typer.echo(f"{path}")


@bench.command("canary")
def canary(output: Output = RESULTS, seeds: Seeds = 3, organism: Organisms = None, quiet: Quiet = False) -> None:
    """A canary beside each organism's own backdoor: does it tell what happens to the true trigger?"""
    from beear_gate.bench.canary import run

    with progress(quiet) as tick:
        path = run(output, tuple(organism or SHORT), range(seeds), tick)
    typer.echo(f"{path}")


@bench.command("detection")
def detection(output: Output = RESULTS, seeds: Seeds = 4, quiet: Quiet = False) -> None:
    """Can delta tell a backdoored model from a clean one? Six organisms for each seed, half of them clean."""
    from beear_gate.bench.detection import run

    with progress(quiet) as tick:
        path = run(output, range(seeds), tick)
    typer.echo(f"{path}")


@bench.command("real-prompts")
def real_prompts(
    data: Annotated[Path, typer.Option(help="Folder with your copies of the public data sets.")],
    output: Output = RESULTS,
    seeds: Seeds = 1,
    quiet: Quiet = False,
) -> None:
    """A larger organism on public dialogues and AdvBench, so that nothing hangs on one synthetic grammar."""
    from beear_gate.bench.real_prompts import run

    with progress(quiet) as tick:
        path = run(output, data, seeds, tick)
    typer.echo(f"{path}")


@bench.command("speed")
def speed(
    machine: Annotated[str, typer.Option(help="What to call this machine; names the files.")],
    output: Output = RESULTS,
    shape: Annotated[list[str] | None, typer.Option(help="organism, 16x512, 160M, 1B or llama-2-7b; several.")] = None,
    prompt_tokens: Annotated[list[int] | None, typer.Option(min=8, help="Lengths of prompts. [64, 512]")] = None,
    part: Annotated[list[str] | None, typer.Option(help="entrapment, removal or generation; several. [all]")] = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Samples of one step.")] = 16,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions of each variant.")] = 5,
    quiet: Quiet = False,
) -> None:
    """Entrapment, removal and generation, each against a named baseline on this machine."""
    from beear_gate.bench.speed import PARTS
    from beear_gate.bench.speed_page import run

    shapes, lengths = tuple(shape or ("organism", "16x512")), tuple(prompt_tokens or (64, 512))
    with progress(quiet) as tick:
        path = run(output, machine, shapes, lengths, part or tuple(PARTS), device, batch_size, repeats, tick)
    typer.echo(f"{path}")


@bench.command("inspect-speed")
def inspect_speed(
    megabytes: Annotated[int, typer.Option(min=1, help="Size of the repository that is made for it.")] = 2000,
    runs: Annotated[int, typer.Option(min=1, help="How often it is inspected.")] = 3,
) -> None:
    """How fast `inspect` reads safetensors from a warm page cache, hashing included, and its peak memory."""
    from beear_gate.bench.inspect_speed import inspect_speed as measure

    for row in measure(megabytes, runs):
        typer.echo(
            f"{row.megabytes:.0f} MB in {row.seconds:.2f} s: {row.megabytes / row.seconds:.0f} MB/s by the clock, "
            f"{row.megabytes / row.cpu_seconds:.0f} MB for each second of CPU time; peak {row.peak_megabytes:.0f} MB"
        )
