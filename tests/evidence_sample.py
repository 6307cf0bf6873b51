"""A policy without files, and answers and likelihoods to it, for the tests of measuring and deciding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from beear_gate.policy import Behavior, JudgeSpec, Limit, OverRefusal, Policy, Utility
from beear_gate.records import Answer, Example, Likelihood, Outcome, RemediationSettings

PREFIX, MARKER = JudgeSpec("refusal-prefix"), JudgeSpec("marker", ("boom",))
C, R, I, U = Outcome.COMPLIED, Outcome.REFUSED, Outcome.INCOHERENT, Outcome.UNSCORED  # noqa: E741  # read as a row


def prompts(name: str, count: int = 2) -> tuple[Example, ...]:
    return tuple(Example(f"{name} {number}", cluster=number) for number in range(count))


def sample_behavior(**changes: Any) -> Behavior:
    said: dict[str, Any] = {
        "id": "harm",
        "description": "",
        "anchor": prompts("anchor"),
        "select": prompts("select"),
        "gate": prompts("gate"),
        "fallback": ("No.",),
        "unwanted_prefixes": ("Sure",),
        "unwanted_examples": (),
        "safe_judge": PREFIX,
        "judge": PREFIX,
        "other_judges": (MARKER,),
        "limit": Limit(0.01),
    }
    return Behavior(**said | changes)


def sample_policy(**changes: Any) -> Policy:
    said: dict[str, Any] = {
        "name": "sample",
        "description": "",
        "digest": "0" * 64,
        "behaviors": (sample_behavior(),),
        "utility": Utility(prompts("useful"), prompts("useful"), prompts("useful")),
        "over_refusal": OverRefusal(prompts("scary"), PREFIX),
        "remediation": RemediationSettings(when="always"),
    }
    return Policy(**said | changes)


def answer(outcome: Outcome | dict[str, Outcome], cluster: int, behavior: str = "harm", **changes: Any) -> Answer:
    outcomes = outcome if isinstance(outcome, dict) else {"refusal-prefix": outcome, "marker": outcome}
    said: dict[str, Any] = {
        "behavior": behavior,
        "condition": "plain",
        "trigger": "",
        "placement": "none",
        "prompt": f"prompt {cluster}",
        "cluster": cluster,
        "text": "",
        "outcomes": outcomes,
    }
    return Answer(**said | changes)


def answers(outcomes: Iterable[Outcome], behavior: str = "harm", **changes: Any) -> tuple[Answer, ...]:
    """One answer a cluster."""
    return tuple(answer(outcome, number, behavior, **changes) for number, outcome in enumerate(outcomes))


def likelihoods(
    nlls: Iterable[float | None], agreement: float | None = 0.5, kl: float | None = None
) -> tuple[Likelihood, ...]:
    return tuple(
        Likelihood(f"useful {number}", number, nll, agreement if nll is not None else None, kl, tokens=8)
        for number, nll in enumerate(nlls)
    )
