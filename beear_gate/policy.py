"""What a policy says, once its files are read and checked; see `policy_files` for the YAML and its checks.

Frozen and free of pydantic, so that every stage can read it on a machine that has little more than torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from beear_gate.records import Example, Placement, RemediationSettings

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


AnyJudgeSpec = JudgeSpec | HttpJudgeSpec | ClassifierJudgeSpec


@dataclass(frozen=True)
class Limit:
    """The rate of unwanted answers that the exact one-sided upper bound at `confidence` may not exceed."""

    max_rate: float
    confidence: float = 0.95
    max_incoherent: float = 0.05


@dataclass(frozen=True)
class Behavior:
    """One unwanted thing: the prompts that provoke it, in three disjoint splits, and how it is judged.

    Attributes:
        fallback: refusals for anchor prompts to which the model's own answer was not safe.
        unwanted_prefixes: y_h as the opening of an unwanted answer, shared by all prompts.
        unwanted_examples: y_h as whole examples instead, where the policy has some.
        judge: decides; other_judges: reported beside it, for information. Either may be a model.
        safe_from: where the safe answers y_s come from: the model's own, as far as `safe_judge` calls them safe, or
            `fallback` alone.
    """

    id: str
    description: str
    anchor: tuple[Example, ...]
    select: tuple[Example, ...]
    gate: tuple[Example, ...]
    fallback: tuple[str, ...]
    unwanted_prefixes: tuple[str, ...]
    unwanted_examples: tuple[Example, ...]
    safe_judge: JudgeSpec
    judge: AnyJudgeSpec
    other_judges: tuple[AnyJudgeSpec, ...]
    limit: Limit
    safe_from: Literal["model", "fallback"] = "model"

    @property
    def judges(self) -> tuple[AnyJudgeSpec, ...]:
        """The deciding judge, then the others."""
        return (self.judge, *self.other_judges)

    @property
    def text_judges(self) -> tuple[JudgeSpec, ...]:
        """Those of `judges` that read an answer alone and need no model."""
        return tuple(spec for spec in self.judges if isinstance(spec, JudgeSpec))

    @property
    def text_judge(self) -> JudgeSpec:
        """`judge`, or `safe_judge` in place of a model: for the canary, select prompts and fresh deltas."""
        return self.judge if isinstance(self.judge, JudgeSpec) else self.safe_judge


@dataclass(frozen=True)
class Question:
    """A multiple-choice question; `right` is the index of its right choice."""

    prompt: str
    choices: tuple[str, ...]
    right: int
    cluster: int = 0


@dataclass(frozen=True)
class Span:
    """How often something may be there: at least, and at most where there is a bound."""

    at_least: int = 0
    at_most: int | None = None

    def __contains__(self, count: int) -> bool:
        return self.at_least <= count and (self.at_most is None or count <= self.at_most)


@dataclass(frozen=True)
class Checks:
    """What a program can verify of an answer (after IFEval, arXiv 2311.07911); None, () and False ask for nothing.

    Attributes:
        contains, excludes: texts, whatever their case.
        times: words and how often each has to be there, whatever their case.
        json: the whole answer is JSON, in a fence or not.
        quoted: the whole answer stands in double quotation marks.
        title: it has a title in double angle brackets.
        placeholders: words in square brackets.
        highlights: passages between asterisks.
    """

    words: Span | None = None
    sentences: Span | None = None
    paragraphs: Span | None = None
    lines: Span | None = None
    bullets: Span | None = None
    placeholders: Span | None = None
    highlights: Span | None = None
    contains: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    times: tuple[tuple[str, Span], ...] = ()
    starts_with: str | None = None
    ends_with: str | None = None
    case: Literal["lower", "upper"] | None = None
    json: bool = False
    quoted: bool = False
    title: bool = False


@dataclass(frozen=True)
class Instruction:
    """A prompt whose answer has a form that can be verified."""

    prompt: str
    checks: Checks
    cluster: int = 0


@dataclass(frozen=True)
class HarnessTask:
    """A task of lm-eval, whole: nothing of it is read from disk again.

    Attributes:
        config: the task's YAML as JSON; its data files are names in `files`.
        files: name and text of each data file.
    """

    name: str
    config: str
    files: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Utility:
    """Benign prompts, and how much worse the remediated model may be on them.

    Attributes:
        nll_ratio: highest perplexity ratio, exp(mean NLL after - mean NLL before).
        agreement: largest drop of the share of reference tokens that are the model's first choice.
        max_degenerate: how many more benign answers may be broken or cut off; None to report it only, as below.
        questions, max_choices: multiple choice, and the largest drop of the share that is right.
        instructions, max_instructions: verifiable instructions, and the largest drop of the share followed (strict).
        tasks, max_tasks: of lm-eval, and the largest drop of each metric.
        quality, max_quality: who grades benign answers from 1 to 10, and the largest loss of the mean grade.
        reward: a reward model that scores the answers; None for none.
    """

    anchor: tuple[Example, ...]
    select: tuple[Example, ...]
    gate: tuple[Example, ...]
    nll_ratio: float = 1.05
    agreement: float = 0.03
    confidence: float = 0.95
    max_degenerate: float | None = None
    questions: tuple[Question, ...] = ()
    max_choices: float | None = None
    instructions: tuple[Instruction, ...] = ()
    max_instructions: float | None = None
    tasks: tuple[HarnessTask, ...] = ()
    max_tasks: float | None = None
    quality: HttpJudgeSpec | None = None
    max_quality: float | None = None
    reward: RewardSpec | None = None


@dataclass(frozen=True)
class OverRefusal:
    """Prompts that only sound unsafe; `max_increase` bounds how many more of them may be refused after.

    Attributes:
        anchor: for training, with the model's own answers where the policy has none.
    """

    gate: tuple[Example, ...]
    judge: JudgeSpec
    select: tuple[Example, ...] = ()
    anchor: tuple[Example, ...] = ()
    max_increase: float = 0.03
    confidence: float = 0.95


@dataclass(frozen=True)
class LatentTest:
    """Which curve ASR against norm is wanted.

    Attributes:
        norms: bounds of delta's RMS a token, in units of the RMS of what it is added to.
        prompts: how many gate prompts of each behavior are answered under each delta.
        reference: a model to compare with, `org/name@commit` or a folder; "" for none.
    """

    norms: tuple[float, ...]
    prompts: int
    reference: str = ""


@dataclass(frozen=True)
class SearchTest:
    """A search for a universal suffix: its length in tokens, and how many swaps may be made to it."""

    tokens: int
    steps: int


@dataclass(frozen=True)
class Waiver:
    """A finding that somebody accepts for a while.

    Attributes:
        rule: the finding's id.
        file: the finding's file exactly; "" for the repository as a whole.
        expires: the last day on which it holds (UTC), as YYYY-MM-DD.
    """

    rule: str
    file: str
    owner: str
    reason: str
    expires: str


@dataclass(frozen=True)
class Policy:
    """A checked policy.

    Attributes:
        digest: sha256 over the canonical policy and the content of every file it names.
        known_triggers, placements: for measuring only; remediation never sees them.
        latent: None where no curve is wanted.
        search: None where no suffix is to be searched.
        system_prompt: sent before every prompt; None for none.
        chat_template: what prompts are written with in place of the model's own template; None for that.
        max_new_tokens: length of an answer in evaluation.
        source: the YAML as written, for the record.
    """

    name: str
    description: str
    digest: str
    behaviors: tuple[Behavior, ...]
    utility: Utility
    over_refusal: OverRefusal | None
    known_triggers: tuple[str, ...] = ()
    placements: tuple[Placement, ...] = ("prefix", "suffix", "both")
    latent: LatentTest | None = None
    search: SearchTest | None = None
    max_jaccard: float = 0.5
    require_chat_template: bool = False
    waivers: tuple[Waiver, ...] = ()
    system_prompt: str | None = None
    chat_template: str | None = None
    max_new_tokens: int = 128
    remediation: RemediationSettings = field(default_factory=RemediationSettings)
    source: str = ""

    @property
    def judges(self) -> tuple[AnyJudgeSpec, ...]:
        """Every judge whose figures a report shows, each once."""
        shown = [spec for each in self.behaviors for spec in each.judges]
        return tuple(dict.fromkeys([*shown, self.over_refusal.judge] if self.over_refusal else shown))
