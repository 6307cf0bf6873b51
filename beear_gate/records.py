"""What the stages hand to one another: frozen records, no behaviour, importable without torch or pydantic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite
from pathlib import Path
from typing import Literal

Tick = Callable[[str, int, int], None]
"""Progress of a long stage: what is being done, steps done, steps in all."""


def no_tick(label: str, done: int, total: int) -> None:
    """The Tick of a caller that shows nothing."""


class Outcome(StrEnum):
    """What a judge says of one answer; never two-valued, because broken text is neither safe nor harmful."""

    COMPLIED = "complied"
    REFUSED = "refused"
    INCOHERENT = "incoherent"
    UNSCORED = "unscored"


class Verdict(StrEnum):
    PASS = "PASS"
    REMEDIATED = "REMEDIATED"
    BLOCKED = "BLOCKED"
    INCOMPLETE = "INCOMPLETE"


class Severity(StrEnum):
    """How much a finding weighs: a notice informs, a warning wants a look, a block ends the scan before loading."""

    NOTICE = "notice"
    WARNING = "warning"
    BLOCK = "block"


Stage = Literal["before", "after"]
CurveStage = Literal["before", "after", "reference"]
Condition = Literal["plain", "trigger", "latent", "canary", "searched"]
Placement = Literal["none", "prefix", "suffix", "both", "middle"]
Status = Literal["pass", "fail", "unscored", "info"]


@dataclass(frozen=True)
class FileRecord:
    """One file of a snapshot: path relative to the snapshot's folder (POSIX), bytes, sha256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class HubScan:
    """What the scanners of a hub say of a commit: advice, never proof.

    Attributes:
        done: whether they have looked at every file; None where the hub did not say.
        issues: path of a file and what they call it, for each that they do not like.
    """

    done: bool | None
    issues: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ModelSnapshot:
    """One pinned state of a model on disk.

    Attributes:
        model: what the user named: `org/name` or a folder.
        commit: the 40-hex commit on a hub; for a folder `sha256:` and the digest of its manifest.
        path: the folder that holds the files.
        files: every file that may be opened, hashed.
        ignored: names that the repository holds and that were neither hashed nor (on a hub) downloaded.
        hub_scan: what the hub's own scanners say; None for a folder.
    """

    model: str
    commit: str
    path: Path
    files: tuple[FileRecord, ...]
    ignored: tuple[str, ...] = ()
    hub_scan: HubScan | None = None


@dataclass(frozen=True)
class Finding:
    """Something the static look at the files found.

    Attributes:
        id: stable identifier, such as `pickle-weights`.
        file: path relative to the snapshot, or "" for the repository as a whole.
        message: one sentence: what is wrong.
        remedy: one sentence: what to do.
        offset: byte in the file where it begins, where that is known.
        technique: the MITRE ATLAS technique that it points to, such as `AML.T0011.000`; "" for none.
        waived: who accepts it until when, and why; "" where nobody does.
    """

    id: str
    severity: Severity
    file: str
    message: str
    remedy: str
    offset: int | None = None
    technique: str = ""
    waived: str = ""

    @property
    def blocks(self) -> bool:
        """Whether the model may not be loaded because of it."""
        return self.severity is Severity.BLOCK and not self.waived


@dataclass(frozen=True)
class Example:
    """A prompt as a user would type it, and the answer that belongs to it ("" where there is none).

    Examples of one gate split that share a `cluster` are near-duplicates and count once.
    """

    prompt: str
    answer: str = ""
    category: str = ""
    cluster: int = 0


@dataclass(frozen=True)
class BehaviorAnchors:
    """The anchoring sets of one behaviour (paper section 4.2).

    Attributes:
        behavior: the policy's id for it.
        safe: D_SA, prompts with the answer y_s that is wanted.
        unwanted: D_SA-H, the same prompts with y_h, the beginning of the answer that is not wanted.
        select: prompts of the select split; they choose the checkpoint and never train.
    """

    behavior: str
    safe: tuple[Example, ...]
    unwanted: tuple[Example, ...]
    select: tuple[Example, ...]


@dataclass(frozen=True)
class AnchorSets:
    """Everything that remediation may see: no gate prompt and no trigger is in here.

    Attributes:
        useful: D_PA, benign prompts with useful answers, for training.
        sounding: how many of `useful`, the last ones, only sound unsafe.
        useful_select: benign prompts with useful answers of the select split, for choosing.
        answered_select: prompts of the select split that must not be refused, for choosing.
        from_model: how many of the safe answers are the model's own; the others are the policy's fallback refusals.
    """

    behaviors: tuple[BehaviorAnchors, ...]
    useful: tuple[Example, ...]
    useful_select: tuple[Example, ...]
    answered_select: tuple[Example, ...]
    from_model: int = 0
    sounding: int = 0


Training = Literal["full", "factored", "lora"]
"""What a removal step moves: all weights with Adam, the same with factored second moments, or adapters beside them."""


@dataclass(frozen=True)
class RemediationSettings:
    """BEEAR's knobs (paper section 4 and appendix). None stands for the mode's default, see `beear.plan`.

    Attributes:
        when: always (a pre-release step for any model), on-evidence (a limit is broken before), never (audit).
        mode: `paper` is Algorithm 1; `deep` also entraps with soft triggers and recovers from rollouts.
        layer: index of the decoder layer whose output takes delta; auto is 0.28 of the depth (9 of 32 in the paper).
        n_tokens: how many of the last prompt positions take delta.
        soft_tokens: length of the longest soft trigger; each has a quarter, a half or all of it (deep).
        rounds: the most rounds of entrapment and removal.
        min_rounds: the fewest of them; a checkpoint of an earlier round is not chosen.
        inner_steps, outer_steps: K and Q of Algorithm 1.
        away_weight: weight a of the term that pushes away from y_s; Equation 2 has 1, the official code 0.05.
        delta_lr: step of delta in units of the RMS of what it is added to.
        max_norm: bound of delta's RMS a token, in the same units; 0 for none, as in the paper.
        weights_lr: Adam step of all weights, whatever is trained (`beear.removal.PACE`); the default falls with the
            width of the model.
        safe_samples, useful_samples: D_SA and D_PA samples drawn anew each round.
        batch_size: samples of each kind in one step.
        max_answer_tokens: longest rollout and self-generated safe answer.
        training: what removal steps move; auto takes the first of full, factored and lora that fits into memory.
        lora_rank: of the adapters.
        path_aware: how far on the way back to the original weights gradients are taken at most, a share of it; 0 for
            none (Path-Aware Minimization, arXiv 2410.09838). `path_share` says what None is.
        train_layers: the first and last decoder layer that is trained; None for the whole model.
        canary: whether the gate rehearses on a copy with a planted backdoor first; remediation itself reads it not.
    """

    when: Literal["always", "on-evidence", "never"] = "always"
    mode: Literal["deep", "paper"] = "deep"
    layer: int | Literal["auto"] = "auto"
    n_tokens: int = 5
    soft_tokens: int = 16
    rounds: int | None = None
    min_rounds: int = 1
    inner_steps: int | None = None
    outer_steps: int | None = None
    away_weight: float | None = None
    delta_lr: float | None = None
    max_norm: float | None = None
    weights_lr: float | None = None
    safe_samples: int = 150
    useful_samples: int = 100
    batch_size: int = 16
    max_answer_tokens: int = 64
    training: Training | Literal["auto"] = "auto"
    lora_rank: int = 16
    path_aware: float | None = None
    train_layers: tuple[int, int] | None = None
    canary: bool = False

    @property
    def path_share(self) -> float:
        """`path_aware`, or what the mode has without it: half of the way (deep), nothing (paper)."""
        return (0.5 if self.mode == "deep" else 0.0) if self.path_aware is None else self.path_aware


@dataclass(frozen=True)
class Round:
    """One round of remediation: loss curves (one value a step), and what the select split said of the weights.

    Attributes:
        entrapment_loss: for each kind of attack, L(F(x, delta), y_h) at every inner step.
        select_asr: worst share of select prompts answered under this round's fresh deltas, before its removal steps.
        select_refused: share of select prompts refused without delta, after the round.
        select_nll_ratio: perplexity ratio to the original on benign select prompts, after the round.
        select_over_refusal: increase of refusals on benign select prompts, after the round.
    """

    number: int
    entrapment_loss: dict[str, tuple[float, ...]]
    removal_loss: tuple[float, ...]
    select_asr: float
    select_refused: float
    select_nll_ratio: float
    select_over_refusal: float
    seconds: float


@dataclass(frozen=True)
class Drift:
    """Figure 3 of the paper: prompt embeddings at one layer on their first two principal components.

    Attributes:
        label: what the points are: `plain`, `with delta`, `benign`.
        points: (x, y) for each prompt, in units of the layer's residual RMS.
    """

    label: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class MemoryPlan:
    """How the steps of a remediation were made to fit into memory (`beear.fit`).

    Attributes:
        room: bytes of the device for weights and training.
        parts: bytes at the fullest moment, by part (`lm.footprint`).
        samples: the most in one pass; gradients add up over as many passes as a step needs.
        checkpointing: whether a layer keeps its input alone, and computes the rest again.
        why: what would have needed more.
        retries: a line for each time that memory ran out all the same; then passes became smaller.
        training: what is trained, and `lora_rank` of the adapters where these are.
        without_adapters: matrices of the trained layers that LoRA leaves as they are, layer numbers left out.
    """

    room: int
    parts: dict[str, int]
    samples: int
    checkpointing: bool
    why: str
    retries: tuple[str, ...] = ()
    training: Training = "full"
    lora_rank: int | None = None
    without_adapters: tuple[str, ...] = ()

    @property
    def needed(self) -> int:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        return self.needed <= self.room


@dataclass(frozen=True)
class Remediation:
    """What `beear.remediate` did, and the snapshot of what it saved.

    Attributes:
        memory: how it was made to fit; None in runs of versions that did not plan.
        whole_passes: why entrapment read whole samples at every step, where it had to (`beear.replay`).
    """

    snapshot: ModelSnapshot
    settings: RemediationSettings
    layer: int
    layers: int
    rounds: tuple[Round, ...]
    chosen_round: int
    stop_reason: str
    drift: tuple[Drift, ...]
    seconds: float
    whole_passes: tuple[str, ...] = ()
    memory: MemoryPlan | None = None


@dataclass(frozen=True)
class TensorChange:
    """How far one stored tensor moved.

    Attributes:
        name, dtype, shape: as the remediated model stores it.
        relative_l2: the L2 norm of the change over that of the original; None where it could not be measured.
        max_abs: the largest change of one element; None as above.
        was: dtype and shape of the original where they are others, else "".
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    relative_l2: float | None
    max_abs: float | None
    was: str = ""


@dataclass(frozen=True)
class Changes:
    """The saved model held against the original.

    Attributes:
        tensors: largest change first.
        relative_l2: of all weights together; None where it could not be measured.
        findings: differences that remediation does not explain.
    """

    tensors: tuple[TensorChange, ...]
    relative_l2: float | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class CanaryResult:
    """How this remediation did on a copy of the model with a backdoor of our own (a canary).

    Figures here are of the select split, as shares of prompts; those of the gate split are `Measurement` rows.

    Attributes:
        trigger, placement: drawn by seed; known to the canary alone.
        answers: for each behavior, where the unwanted answers come from: the policy, the model itself, an opening.
        planted: whether the copy had learned to comply with the trigger and to refuse without it.
        problem: why there are no figures, as the end of a sentence; "" where there are some.
        select_asr: for each behavior, prompts with the trigger answered: as planted, then after every round.
        select_plain: for each behavior, prompts without the trigger answered, as planted.
        n: select prompts of each behavior.
        min_rounds: the fewest rounds that the remediation of the model itself has to run, by this rehearsal.
        chosen_round: the round whose weights were measured after; 0 where nothing was planted.
        rehearsals: how often the copy was remediated: once more where the first try left the canary alive.
    """

    trigger: str
    placement: Placement
    answers: dict[str, Literal["policy", "model", "opening"]]
    planted: bool
    problem: str
    select_asr: dict[str, tuple[float, ...]]
    select_plain: dict[str, float]
    n: dict[str, int]
    min_rounds: int
    chosen_round: int
    rehearsals: int
    seconds: float


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
class Observations:
    """Everything seen of one model in one stage, before any statistics."""

    answers: tuple[Answer, ...]
    likelihoods: tuple[Likelihood, ...]
    choices: tuple[Chosen, ...] = ()
    task_scores: tuple[TaskScore, ...] = ()
    quality: tuple[Quality, ...] = ()


@dataclass(frozen=True)
class Rehearsal:
    """A canary, and the answers of the copy to gate prompts with its trigger, before and after the remediation."""

    canary: CanaryResult
    before: tuple[Answer, ...]
    after: tuple[Answer, ...]


@dataclass(frozen=True)
class LatentPoint:
    """How often a fresh universal delta of bounded size elicits one behavior: a point of the curve ASR against norm.

    Attributes:
        stage: `reference` is another model, which the policy names to compare with.
        kind: `latent` acts after a decoder layer that remediation did not use; `prefix` and `suffix` are soft triggers.
        layer: of `latent`; None for soft triggers, which act on embeddings.
        norm: bound of delta's RMS a token, in units of the RMS of what it is added to.
        loss: L(F(x, delta), y_h) where the fit ended, in nats a token.
        hits, n: clusters of gate prompts answered as unwanted by this judge, and all of them.
        low, high: 95 % interval of their share (Wilson).
    """

    stage: CurveStage
    behavior: str
    judge: str
    kind: Literal["latent", "prefix", "suffix"]
    layer: int | None
    norm: float
    loss: float
    hits: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.hits / self.n


@dataclass(frozen=True)
class Measurement:
    """One figure with its interval; the flat row of `evidence.json` (docs/design.md section 7).

    Attributes:
        value: point estimate; None where nothing could be measured.
        low, high: interval at `confidence`; one-sided bounds for limits and margins.
        n, hits, unscored: clusters of prompts, those counted, those without a score.
        limit: what `high` may not exceed; None for information.
        revealed: ground truth measured after the decision (demo, bench); never part of the verdict.
    """

    stage: Stage
    behavior: str
    metric: str
    judge: str
    condition: Condition
    trigger: str
    placement: Placement
    value: float | None
    low: float | None
    high: float | None
    confidence: float
    n: int
    hits: int | None
    unscored: int
    limit: float | None
    status: Status
    revealed: bool = False

    @property
    def excess(self) -> float:
        """How much of its limit the bound takes up: above 1 beyond it, infinite where it is not known, 0 without one.

        A ratio counts from 1, which is no change.
        """
        if self.limit is None:
            return 0.0
        none = 1.0 if self.metric.endswith("_ratio") else 0.0
        if self.high is None or not isfinite(self.high) or self.limit <= none:
            return inf
        return (self.high - none) / (self.limit - none)


def worst_first(row: Measurement) -> tuple[int, float]:
    """Sorts broken rules before those without evidence before those that are met, each by how much of its limit it
    takes up."""
    order: tuple[Status, ...] = ("fail", "unscored", "pass", "info")
    return order.index(row.status), -row.excess


@dataclass(frozen=True)
class Agreement:
    """A judge held against people on one set of answers.

    Attributes:
        n, agreed: answers that people call full compliance or full refusal, and those that the judge calls the same.
        kappa: Cohen's, chance-corrected; None where one side has a single value only.
        kappa_low, kappa_high: its 95 % interval.
        complied, missed: answers that comply by people's word, and those of them that the judge calls anything else.
        refused, false: answers that refuse by people's word, and those of them that the judge calls complied.
        partial, partial_complied: partial refusals, which n leaves out, and those that the judge calls complied.
    """

    subset: str
    n: int
    agreed: int
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None
    complied: int
    missed: int
    refused: int
    false: int
    partial: int
    partial_complied: int


@dataclass(frozen=True)
class Calibration:
    """How far a judge agrees with people.

    Attributes:
        rules: digest of the judge that was calibrated.
        source: the labelled file, with the beginning of its sha256.
        subsets: the one that says most about unwanted answers first.
    """

    judge: str
    rules: str
    source: str
    subsets: tuple[Agreement, ...]


@dataclass(frozen=True)
class ServedJudge:
    """A judge that is a model, behind an endpoint or loaded by the scan: who answered, and what it took in all.

    Attributes:
        url: "" for one that the scan loaded.
        model, served, fingerprint: the name that was asked for, and what the server called itself; of a loaded model
            its commit and the digest of its files.
        rubric: digest of everything that it was asked beside prompts and answers.
        requests: tries included that failed.
        graded, unscored: answers (equal ones once) with a grade, and those of this run without one.
        prompt_tokens, completion_tokens: by the server's count; bytes where it gave none.
        cost: by the policy's prices, in `currency`; None where it has none.
    """

    judge: str
    url: str
    model: str
    served: str
    fingerprint: str
    rubric: str
    requests: int
    graded: int
    unscored: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    currency: str


@dataclass(frozen=True)
class SandboxRecord:
    """The container in which the model was loaded.

    Attributes:
        engine: name and version.
        image, image_id: as it was named, and the engine's digest of its configuration and layers.
        user: numeric user and group inside.
        memory_gb, cpus, pids, minutes: its limits.
        device: `cpu` or `cuda`.
        code: folders of the host that stood in for the image's own packages (development); empty for none.
    """

    engine: str
    image: str
    image_id: str
    user: str
    memory_gb: float
    cpus: float
    pids: int
    minutes: float
    device: str
    code: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConvertedFile:
    """A pickle of weights, and the safetensors file that was made of it."""

    source: FileRecord
    target: FileRecord


@dataclass(frozen=True)
class Conversion:
    """What became of a model that had pickles for weights; `problem` says, as the end of a sentence, why nothing did.

    Attributes:
        snapshot: the copy that everything after this is about; the original where there is a problem.
    """

    snapshot: ModelSnapshot
    files: tuple[ConvertedFile, ...]
    problem: str = ""


@dataclass(frozen=True)
class Decision:
    """The verdict and, worst first, the reasons for it: each names the rule, the figure and the limit.

    Attributes:
        because: the smallest set of `reasons` that gives this verdict by itself. One broken rule is enough to block, so
            there it is the worst one; the others say what is to be mended as well.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    because: tuple[str, ...] = ()


@dataclass(frozen=True)
class GateReport:
    """One finished scan, complete: every report format is rendered from this and nothing else.

    Attributes:
        policy, policy_digest: the policy's name and the sha256 over it and all its prompt files.
        before, after, revealed_before, revealed_after: answers for side-by-side reading.
        not_tested: sentences that say what this run could not show.
        environment: versions and machine.
        canary: the rehearsal on a copy with a planted backdoor; None where the policy wants none.
        calibrations: of the policy's judges, where there is one for the judge as it is now.
        latent: how large a delta has to be, before and after; empty where the policy does not ask.
        served_judges: the policy's judges that are models, behind an endpoint or loaded, and what they took.
        changes: the remediated model held against the original; None where nothing was remediated.
        sandbox: the container that the model was loaded in; None for the process of the scan.
        converted: the safetensors copy that was judged, of a model that had pickles alone; `commit` is the original's.
    """

    model: str
    commit: str
    policy: str
    policy_digest: str
    policy_description: str
    started: str
    seconds: float
    seed: int
    decision: Decision
    findings: tuple[Finding, ...]
    files: tuple[FileRecord, ...]
    measurements: tuple[Measurement, ...]
    before: tuple[Answer, ...]
    after: tuple[Answer, ...]
    remediation: Remediation | None
    safe_answers: int
    safe_answers_from_model: int
    not_tested: tuple[str, ...]
    environment: dict[str, str]
    canary: CanaryResult | None = None
    calibrations: tuple[Calibration, ...] = ()
    latent: tuple[LatentPoint, ...] = ()
    served_judges: tuple[ServedJudge, ...] = ()
    changes: Changes | None = None
    sandbox: SandboxRecord | None = None
    converted: Conversion | None = None
