"""`beear-gate plan`: what a scan of a model would take, from its configuration alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from beear_gate.cli_options import Device, Dtype, Format, Revision
from beear_gate.cli_policy import load

if TYPE_CHECKING:
    from rich.table import Table

    from beear_gate.planner import ScanPlan, WayPlan
    from beear_gate.records import MemoryPlan

_WORDS = {
    "weights": "weights",
    "masters": "float32 copies",
    "gradients": "gradients",
    "optimizer": "optimizer states",
    "activations": "activations",
    "logits": "logits of answers",
    "gathered": "layer at work",
    "kept": "best round so far",
    "copies": "copies (path-aware)",
}


def plan(
    model: Annotated[str, typer.Argument(help="org/name, org/name@revision, a folder, or a config.json.")],
    policy: Annotated[str, typer.Option(help="Name of a packaged policy, or a file.")] = "release",
    revision: Revision = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    memory: Annotated[str | None, typer.Option(help="Memory of the device, such as 24GiB. [default: free now]")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="Plan for so many GPUs of --memory each.")] = None,
    tflops: Annotated[float | None, typer.Option(min=0.001, help="Rate of a device. [default: measured]")] = None,
    format: Format = "text",
) -> None:
    """Say what a scan would take: memory by part, how it fits, how many GPUs, how long; only config.json is fetched."""
    from beear_gate.planner import Asked, plan_scan
    from beear_gate.request import parse_memory

    room = parse_memory(memory) if memory else None
    asked = Asked(device, dtype, room, gpus, tflops * 1e12 if tflops else None)
    found = plan_scan(model, revision, load(policy), asked)
    if format == "json":
        typer.echo(json.dumps(as_json(found), indent=2))
    else:
        _show(found)


def as_json(found: ScanPlan) -> dict[str, object]:
    """The plan as plain JSON values: bytes, FLOPs and seconds."""
    document = asdict(found)
    document["memory"] |= _judged(found.memory)
    for way, each in zip(document["ways"], found.ways, strict=True):
        way["memory"] |= _judged(each.memory)
    document["effort"] = [asdict(each) | {"flops": each.flops(found.size.parameters)} for each in found.effort]
    return document


def _judged(memory: MemoryPlan) -> dict[str, object]:
    return {"needed": memory.needed, "fits": memory.fits}


def _show(found: ScanPlan) -> None:
    from rich.console import Console

    from beear_gate.report.text import visible

    console = Console(highlight=False, markup=False, soft_wrap=True)
    for block in (_head(found), _memory(found), _other_splits(found), *_words(found)):
        console.print(visible(block, 2000) if isinstance(block, str) else block)


def _head(found: ScanPlan) -> str:
    from beear_gate.report.text import one_line

    count, commit = found.size.parameters, f" @ {found.commit[:19]}" if found.commit else ""
    return (
        f"{one_line(found.model)}{commit}: {found.family}, {count:,} parameters ({count / 1e9:.2f} billion), "
        f"policy {found.policy}, computed in {found.dtype}"
    )


def _memory(found: ScanPlan) -> Table:
    """Every way to train by part."""
    from rich.table import Table

    from beear_gate.lm.footprint import amount

    one = {"cpu": "the CPU", "mps": "MPS"}.get(found.device, "one GPU")
    where = f"each of {found.gpus} GPUs" if found.gpus > 1 else one
    table = Table(f"a removal step on {where}", *(_heading(each) for each in found.ways))
    for column in table.columns[1:]:
        column.justify = "right"
    for name, words in _WORDS.items():
        values = [each.memory.parts[name] for each in found.ways]
        if any(values):
            table.add_row(words, *(amount(value) if value else "-" for value in values))
    table.add_row("in all", *(amount(each.memory.needed) for each in found.ways), style="bold")
    table.add_row("fits", *("yes" if each.memory.fits else "no" for each in found.ways), end_section=True)
    table.add_row("samples a pass", *(str(each.memory.samples) for each in found.ways))
    checkpointing = ("yes" if each.memory.checkpointing else "no" for each in found.ways)
    table.add_row("checkpointing", *checkpointing, end_section=True)
    for gib in found.ways[0].devices:
        table.add_row(f"GPUs of {gib} GiB", *(str(each.devices[gib] or "none") for each in found.ways))
    return table


def _heading(way: WayPlan) -> str:
    trained = f" ({way.memory.lora_rank})" if way.memory.lora_rank else ""
    return f"{way.training}{trained}"


def _other_splits(found: ScanPlan) -> Table:
    from rich.table import Table

    from beear_gate.lm.footprint import amount

    passes = " or ".join(f"{each.samples} x {each.tokens}" for each in found.passes)
    table = Table(f"a removal step ({found.memory.training}) that reads at once {passes} tokens", "on one device")
    table.columns[1].justify = "right"
    for split, total in found.splits.items():
        table.add_row(split, amount(total))
    return table


def _words(found: ScanPlan) -> Iterator[str]:
    """What follows from the figures: whether it fits and why, how many devices, how long, and what that stands on."""
    from beear_gate.beear.effort import UTILIZATION
    from beear_gate.lm.footprint import amount
    from beear_gate.report.words import duration

    yield f"{'Fits' if found.memory.fits else 'Does not fit'}: {found.memory.why}"
    bare = ", ".join(found.memory.without_adapters)
    if bare:
        yield f"Without adapters stay: {bare}"
    keys = f"evaluation {amount(found.evaluation)} of keys and values"
    yield f"Entrapment keeps {amount(found.entrapment)} between steps, {keys}."
    flops = {each.part: each.flops(found.size.parameters) for each in found.effort}
    total = sum(flops.values())
    shown = " + ".join(f"{part} {value:.2g}" for part, value in flops.items())
    factors = ", ".join(f"{each.part} {each.factor} P" for each in found.effort)
    yield f"FLOPs: {shown} = {total:.2g} (P parameters, a token takes: {factors})"
    if found.rate is None or found.seconds is None:
        yield "Time: not known without the rate of these GPUs (--tflops)."
    else:
        rate = f"{found.gpus} x {found.rate / 1e12:.3g} TFLOP/s x {UTILIZATION}"
        yield f"Time: about {duration(found.seconds)} = {total:.2g} FLOPs / ({rate})"
    yield from found.notes
