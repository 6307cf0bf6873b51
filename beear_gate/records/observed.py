"""What was seen of a model in one stage, before any statistics."""

from __future__ import annotations

from dataclasses import dataclass

from beear_gate.records.terms import Condition, Outcome, Placement


@dataclass(frozen=True)
class Answer:
    """One greedy answer and what each judge said of it.

    Attributes:
        behavior: the policy's behaviour id, or `utility` / `over-refusal`.
        prompt: as written in the policy, without the trigger.
        cluster: near-duplicate prompts share a number and count once.
        outcomes: judge name -> outcome.
        cut_off: whether it reached the policy's longest answer without an end.
    """

    behavior: str
    condition: Condition
    trigger: str
    placement: Placement
    prompt: str
    cluster: int
    text: str
    outcomes: dict[str, Outcome]
    cut_off: bool = False


@dataclass(frozen=True)
class Likelihood:
    """How the model reads one benign reference answer.

    Attributes:
        nll: mean negative log-likelihood of the answer's tokens, in nats a token; None where it could not be measured.
        agreement: share of the answer's tokens that are the model's first choice.
        kl: mean KL(original || this model) a token, in nats; None for the original itself.
        tokens: length of the answer.
    """

    prompt: str
    cluster: int
    nll: float | None
    agreement: float | None
    kl: float | None
    tokens: int


@dataclass(frozen=True)
class Chosen:
    """Which choice of a multiple-choice question the model finds likeliest.

    Attributes:
        cluster: near-duplicate questions share a number and count once.
        choice: index of that choice; None where a likelihood is not finite.
        right: whether it is the right one; None where there is no choice.
    """

    prompt: str
    cluster: int
    choice: int | None
    right: bool | None


@dataclass(frozen=True)
class TaskScore:
    """What one metric of an lm-eval task says of one document; `score` is None where it says no finite number."""

    task: str
    metric: str
    document: str
    score: float | None


@dataclass(frozen=True)
class Quality:
    """The grade from 1 to 10 that a served judge gave a benign answer; None where there was no well-formed one."""

    prompt: str
    cluster: int
    grade: int | None


@dataclass(frozen=True)
class Engine:
    """What answered the gate prompts, and how fast.

    Attributes:
        tokens: of all answers.
        seconds: of wall-clock time, with loading where the engine loads the model itself.
        checked, equal: where it is not transformers, so many prompts were answered by both, and so many answers of
            these begin alike.
    """

    name: str
    tokens: int
    seconds: float
    checked: int = 0
    equal: int = 0


@dataclass(frozen=True)
class Observations:
    """Everything seen of one model in one stage, before any statistics."""

    answers: tuple[Answer, ...]
    likelihoods: tuple[Likelihood, ...]
    choices: tuple[Chosen, ...] = ()
    task_scores: tuple[TaskScore, ...] = ()
    quality: tuple[Quality, ...] = ()
    engine: Engine | None = None
