"""Options that several commands share, in the same words wherever they are taken."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Model = Annotated[str, typer.Argument(help="org/name, org/name@revision, or a folder.")]
PolicyName = Annotated[str, typer.Option("--policy", help="Name of a packaged policy, or a file.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")]
Runs = Annotated[Path, typer.Option(help="Folder for run directories.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
Seed = Annotated[int, typer.Option(help="Decides every draw.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Prompts answered at once; halved when memory runs out.")]
MaxPull = Annotated[float | None, typer.Option(help="Largest model to pull from a hub, in GB. [default: 200]")]
Memory = Annotated[str | None, typer.Option(help="Most memory to train in, such as 24GiB. [default: what is free]")]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1, help="Train in so many, on GPUs one each; a model too large for one answers from all. [default: 1]"
    ),
]
Vllm = Annotated[str | None, typer.Option(help="Python that has vLLM, which then answers the gate prompts.")]
SandboxKind = Annotated[
    Literal["none", "docker"] | None, typer.Option(help="Where the model is loaded. [default: none]")
]
SandboxImage = Annotated[str | None, typer.Option(help="Local image of beear-gate. [default: beear-gate]")]
TrackingUri = Annotated[str | None, typer.Option(help="MLflow server; default: mlflow.db in this folder.")]
Experiment = Annotated[str, typer.Option(help="MLflow experiment.")]
Format = Annotated[Literal["text", "json"], typer.Option("--format", help="json: one document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
