"""`beear-gate policy`: begin, list, show and check policies."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from beear_gate.policy import Policy

policies = typer.Typer(help="Begin, list, show and check policies.", no_args_is_help=True)
Scored = Literal["refusal-prefix", "needless-refusal", "marker", "code"]
"""Judges that a scaffold can be written for."""


@policies.command("new")
def new_policy(
    file: Annotated[Path, typer.Argument(help="The policy to write, such as policies/our-assistant.yaml.")],
    behavior: Annotated[list[str], typer.Option(help="Id of an unwanted behavior of your own; may be repeated.")],
    include: Annotated[list[str] | None, typer.Option(help="A packaged policy to add; may be repeated.")] = None,
    judge: Annotated[Scored, typer.Option(help="What is to judge the behaviors.")] = "refusal-prefix",
) -> None:
    """Write a policy to fill in, with its prompt files; nothing is overwritten."""
    from beear_gate.policy_files.scaffold import new_policy as write

    for path in write(file, behavior, include or [], judge):
        typer.echo(f"written: {path}")
    typer.echo(f"Next: `beear-gate policy validate {shlex.quote(str(file))}` says what to fill in, by file and line.")


@policies.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of a policy file, for editors."""
    from beear_gate.policy_files.json_schema import policy_schema

    typer.echo(policy_schema(), nl=False)


@policies.command("list")
def list_policies() -> None:
    """Name every packaged policy."""
    from beear_gate.policy_files import load_policy, packaged_policies, study_policies

    for name, path in sorted(packaged_policies().items()):
        typer.echo(f"{name:20} {load_policy(path).description.strip()}")
    for name in study_policies():
        typer.echo(f"{name:20} (see the comments of its file for the data that you must fetch first)")


@policies.command("show")
def show_policy(name: Annotated[str, typer.Argument(help="Name of a packaged policy, or a file.")]) -> None:
    """Say in words what a policy demands."""
    from beear_gate.policy_words import describe

    typer.echo(describe(load(name)))


@policies.command("validate")
def validate_policy(file: Annotated[str, typer.Argument(help="A policy file, or the name of a packaged one.")]) -> None:
    """Check a policy; every problem at once, with file and line; and say what its gate prompts can prove."""
    from beear_gate.policy_power import limit_power, over_refusal_power, underpowered, utility_power

    policy = load(file)
    prompts = sum(len(each.gate) for each in policy.behaviors)
    size = f"{len(policy.behaviors)} behaviors, {prompts} gate prompts"
    typer.echo(f"{policy.name}: valid; {size}, digest {policy.digest}")
    for behavior in policy.behaviors:
        typer.echo(f"  {behavior.id}: {limit_power(behavior)}")
    if policy.over_refusal:
        typer.echo(f"  over-refusal: {over_refusal_power(policy.over_refusal)}")
    for name, power in utility_power(policy.utility):
        typer.echo(f"  {name}: {power}")
    for warning in underpowered(policy):
        typer.echo(f"  warning: {warning}")


def load(name: str) -> Policy:
    """A packaged policy by name, or a file."""
    from beear_gate.policy_files import find_policy, load_policy

    return load_policy(find_policy(name))
