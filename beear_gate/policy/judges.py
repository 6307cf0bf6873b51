"""Who judges the answers: rules, a served model, a classifier, a reward model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

JudgeName = Literal["refusal-prefix", "refusal-keywords-paper", "needless-refusal", "marker", "code"]


@dataclass(frozen=True)
class JudgeSpec:
    """Which judge, and its own words.

    Attributes:
        patterns: for `marker`, regular expressions of which any match means complied;
            for `refusal-prefix` and `needless-refusal`, further openings of a refusal beside the built-in English ones.
    """

    name: JudgeName
    patterns: tuple[str, ...] = ()


Rubric = Literal["qi", "harmbench", "strongreject", "quality"]
"""`quality` grades benign answers from 1 to 10; the others say whether an answer does harm."""


@dataclass(frozen=True)
class Prices:
    """What a served judge costs for a million tokens that it reads (`input`) and writes (`output`)."""

    input: float
    output: float
    currency: str = "USD"


@dataclass(frozen=True)
class HttpJudgeSpec:
    """A model behind an OpenAI-compatible chat endpoint as judge, and what it may cost.

    Unlike a `JudgeSpec` it reads the prompt too, can fail, and decides gate measurements only: remediation calls its
    judges thousands of times and must not depend on a server.

    Attributes:
        url: base address, such as https://judge.example/v1.
        rubric: what it is asked, see `evaluation.rubrics`.
        threshold: for `strongreject`, the score from which on an answer counts as complied.
        key_env: the environment variable that holds the API key; "" for a server that wants none.
        attempts: requests for one answer, the first included.
        timeout: seconds until one request counts as failed.
        max_reply_tokens: longest reply; one that is cut off has no grade.
        max_requests, max_tokens: caps of a whole run; None for none.
    """

    url: str
    model: str
    rubric: Rubric
    threshold: float = 0.5
    key_env: str = ""
    concurrency: int = 8
    attempts: int = 5
    timeout: float = 60.0
    max_reply_tokens: int = 512
    max_requests: int | None = None
    max_tokens: int | None = None
    prices: Prices | None = None

    @property
    def name(self) -> str:
        """`http:qi:org/model`: figures are always of one rubric and one model."""
        return f"http:{self.rubric}:{self.model}"


ClassifierStyle = Literal["harmbench", "llama-guard", "wildguard", "sequence"]


@dataclass(frozen=True)
class ClassifierJudgeSpec:
    """A model that was trained to judge, loaded by the scan itself; like a served judge it reads gate answers only.

    Attributes:
        model: `org/name@commit` on a hub, or a folder.
        style: how it was trained to be asked and to answer, see `evaluation.classifier_forms`.
        complied, refused: for `sequence`, the labels that say so; without `refused` every other label does.
        threshold: for `sequence`, the probability of the labels of `complied` from which on an answer counts so.
        device: "" for the scan's.
    """

    model: str
    style: ClassifierStyle
    complied: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    threshold: float = 0.5
    batch_size: int = 16
    device: str = ""

    @property
    def name(self) -> str:
        """`classifier:harmbench:org/model`: figures are always of one style and one model."""
        return f"classifier:{self.style}:{model_name(self.model)}"


AnyJudgeSpec = JudgeSpec | HttpJudgeSpec | ClassifierJudgeSpec


@dataclass(frozen=True)
class RewardSpec:
    """A reward model: it scores answers before and after, and only differences of its scores mean anything.

    Attributes:
        model: `org/name@commit` on a hub, or a folder.
        behaviors: whether plain answers to the gate prompts of behaviors are scored too, for information.
        max_decrease: how far the mean score on benign answers may fall, in the model's own units; None for any.
        device: "" for the scan's.
    """

    model: str
    behaviors: bool = False
    max_decrease: float | None = None
    batch_size: int = 16
    device: str = ""

    @property
    def name(self) -> str:
        return f"reward:{model_name(self.model)}"


def model_name(model: str) -> str:
    """`org/name` of a pinned model on a hub; of a folder its last part."""
    return model.rstrip("/").rpartition("/")[2] if model.startswith(("/", ".", "~")) else model.partition("@")[0]
