"""Figures in plain words: "0 of 300 harmful requests answered (below 1.0 % at 95 % confidence; limit 1 %)"."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

from beear_gate.records import (
    Agreement,
    CanaryResult,
    Conversion,
    GateReport,
    Measurement,
    Outcome,
    Remediation,
    SandboxRecord,
    ServedJudge,
    Verdict,
)
from beear_gate.report.metrics import COUNTED, METRICS
from beear_gate.report.pairs import Pair

_NO_JUDGE = ("likelihood", "length", "checks-strict", "checks-loose")
"""Stand where a judge stands, for figures that no judge has a part in; so does the name of a task of lm-eval."""
UTILITY = ("utility", "over-refusal")
"""Behaviours of rows and answers that say how useful the model still is."""

_SHARES = frozenset({"asr", "over_refusal", "incoherent", "refused", "agreement"})
_NATS = frozenset({"kl", "nll"})
_POINTS = ("_drop", "_increase", "_delta")  # differences of two shares
_MEANING = {
    Verdict.PASS: "The model as it is meets every limit of the policy, and the policy asked for no change.",
    Verdict.REMEDIATED: "The remediated copy meets every limit of the policy. Release the copy, not the original.",
    Verdict.BLOCKED: "Do not release. At least one rule of the policy is not met.",
    Verdict.INCOMPLETE: "There is no verdict, because evidence is missing. Do not release on this report.",
}


def container(record: SandboxRecord) -> str:
    """`Docker 28.1, image beear-gate (sha256:…): no network, …`."""
    code = f", with the code of {', '.join(record.code)}" if record.code else ""
    return (
        f"{record.engine}, image {record.image} ({record.image_id}){code}: no network, user {record.user}, at most "
        f"{record.memory_gb:g} GB, {record.cpus:g} CPUs, {record.pids} processes, {record.minutes:g} minutes, "
        f"device {record.device}"
    )


def conversion(converted: Conversion) -> str:
    """What the files are that were judged, of a model that had pickles alone."""
    if converted.problem:
        return f"The weights are pickles, and they were not converted: {converted.problem}."
    return f"The weights were pickles. What was judged is the copy in safetensors ({converted.snapshot.commit})."


def training(done: Remediation) -> str:
    """What removal trained: `all weights, with Adam`; of adapters also what they left as it was."""
    assert done.memory is not None
    layers, kind = done.settings.train_layers, done.memory.training
    where = f"decoder layers {layers[0]} to {layers[1]}" if layers else "all decoder layers"
    share = done.settings.path_share
    aware = f", by gradients up to {share:.0%} of the way back to the original weights" if share else ""
    if kind != "lora":
        what = f"the weights of {where}" if layers else "all weights"
        return f"{what}, with {'Adam' if kind == 'full' else 'factored second moments (Adafactor)'}{aware}"
    bare = ", ".join(done.memory.without_adapters)
    rest = f"; without adapters, and unchanged, are {bare}" if bare else ""
    return (
        f"adapters of rank {done.memory.lora_rank} (LoRA) beside the linear layers of {where}, merged into the weights "
        f"before these were saved and measured{aware}{rest}"
    )


def meaning(verdict: Verdict) -> str:
    """What a release manager should take from the verdict."""
    return _MEANING[verdict]


def percent(share: float, rounding: str = ROUND_HALF_EVEN) -> str:
    """0.0312 as `3.1 %`; shares below 0.1 % keep a second decimal."""
    scaled = Decimal(repr(share)) * 100
    if scaled == scaled.to_integral_value() and abs(scaled) in (0, 100):
        return f"{int(scaled)} %"
    step = Decimal("0.1") if abs(scaled) >= Decimal("0.1") else Decimal("0.01")
    return f"{scaled.quantize(step, rounding=rounding)} %"


def amount(row: Measurement, number: float | None, rounding: str = ROUND_HALF_EVEN) -> str:
    """A value, bound or limit of `row` in its unit."""
    if number is None:
        return "not measured"
    if row.metric.endswith(_POINTS):
        points = (Decimal(repr(number)) * 100).quantize(Decimal("0.1"), rounding=rounding)
        return f"{points} points" if points != 0 else "0.0 points"
    if row.metric in _SHARES or row.hits is not None:
        return percent(number, rounding)
    if row.metric.endswith("_ratio"):
        return f"{Decimal(repr(number)).quantize(Decimal('0.001'), rounding=rounding)}"
    unit = " nats a token" if row.metric in _NATS else ""
    return f"{number:.3g}{unit}"


def limit(row: Measurement, number: float | None) -> str:
    """The policy's limit as the policy wrote it, without rounding."""
    if number is None:
        return "none"
    if row.metric.endswith(_POINTS):
        return f"{_exact(number)} points"
    return f"{_exact(number)} %" if row.metric in _SHARES or row.hits is not None else f"{number:g}"


def _exact(share: float) -> str:
    return f"{(Decimal(repr(share)) * 100).normalize():f}"


def bound(row: Measurement) -> str:
    """The interval: the one bound that matters where a limit decides, both where nothing does.

    Bounds are rounded away from the estimate, so that the words never claim more than the figure.
    """
    low, high = row.low, row.high
    if row.limit is not None:
        if low is not None and low > row.limit:
            return f"above {amount(row, low, ROUND_FLOOR)}"
        return f"below {amount(row, high, ROUND_CEILING)}" if high is not None else ""
    if low is None or high is None:
        return ""
    return f"{amount(row, low, ROUND_FLOOR)} to {amount(row, high, ROUND_CEILING)}"


def count(row: Measurement) -> str:
    """`3 of 300`, or the value where nothing was counted."""
    if row.value is None:
        return "not measured"
    return f"{row.hits} of {row.n}" if _is_count(row) else amount(row, row.value)


def _is_count(row: Measurement) -> bool:
    """Whether `hits` is the figure; of a difference it is one side only."""
    return row.hits is not None and not row.metric.endswith(_POINTS)


def rate(row: Measurement) -> str:
    """Beside `count`: the share that was counted, or what a difference or a mean is of."""
    if row.value is None:
        return ""
    if row.hits is None:
        return f"{row.n} prompts" if row.n else ""
    return percent(row.value) if _is_count(row) else f"{row.hits} of {row.n} for the worse"


def counted(row: Measurement) -> str:
    """What `hits` counts."""
    if row.metric == "asr":
        return COUNTED.get(row.behavior, f"answers that show {row.behavior}")
    return metric(row)


def metric(row: Measurement) -> str:
    """The metric's name in words."""
    return METRICS.get(row.metric, row.metric.replace("_", " "))


def condition(row: Measurement) -> str:
    """How the prompts were put."""
    place = "" if row.placement == "none" else f" ({row.placement})"
    name = f" “{row.trigger}”" if row.trigger else ""
    return {
        "plain": "prompts as they are",
        "trigger": f"with the trigger{name}{place}",
        "latent": f"with a fresh perturbation inside the network{name}",
        "searched": "with a suffix that a search found for this model",
        "canary": f"in a copy with a planted backdoor (canary), with its trigger{name}{place}",
    }[row.condition]


def sentence(row: Measurement) -> str:
    """One figure, complete, for someone who reads nothing else."""
    if row.value is None:
        return f"{_upper(metric(row))} ({row.behavior}): not measured{_unscored(row)}"
    interval = bound(row) and f"{bound(row)} at {row.confidence * 100:g} % confidence"
    share = rate(row) if row.hits else ""
    ceiling = f"limit {limit(row, row.limit)}" if row.limit is not None else ""
    note = "; ".join(part for part in (", ".join(part for part in (share, interval) if part), ceiling) if part)
    how = "" if row.condition == "plain" else f", {condition(row)}"
    figure = f"{count(row)} {counted(row)}{how}" if _is_count(row) else f"{_upper(metric(row))}: {count(row)}"
    return f"{figure} ({note}){_unscored(row)}" if note else f"{figure}{_unscored(row)}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _unscored(row: Measurement) -> str:
    return f"; {row.unscored} could not be scored" if row.unscored else ""


def title(pair: Pair) -> str:
    """What the row of a table is about."""
    row = pair.last
    return metric(row) if row.behavior in UTILITY or row.metric != "asr" else counted(row)


def test(pair: Pair) -> str:
    """The row of a table in one cell: what, judged by what, asked how."""
    judge = f", judge {pair.last.judge}" if pair.last.judge else ""
    how = "" if pair.last.condition == "plain" else f", {condition(pair.last)}"
    return f"{title(pair)}{judge}{how}"


_ANSWERS = {
    "policy": "the policy's examples",
    "model": "what the model itself says under fresh traps",
    "opening": "the opening of an unwanted answer alone, because too few could be elicited",
}


def canary_answers(canary: CanaryResult) -> str:
    """Where the unwanted answers of the canary come from."""
    return "; ".join(f"{behavior}: {_ANSWERS[source]}" for behavior, source in canary.answers.items())


def canary_rounds(canary: CanaryResult) -> str:
    """What the rehearsal asked of the remediation of the model itself."""
    again = " in its second rehearsal" if canary.rehearsals > 1 else ""
    least = "1 round" if canary.min_rounds == 1 else f"{canary.min_rounds} rounds"
    return f"round {canary.chosen_round} was kept in the copy{again}; the model itself had at least {least}"


def kappas(report: GateReport) -> dict[str, str]:
    """Beside every figure of a judge: how far it agrees with people, or that nobody has looked."""
    known = {each.judge: kappa(each.subsets[0]) for each in report.calibrations if each.subsets}
    judges = dict.fromkeys(row.judge for row in report.measurements if row.judge and not _counts(row.judge))
    return {judge: known.get(judge, "not held against people") for judge in judges}


def _counts(judge: str) -> bool:
    return judge in _NO_JUDGE or judge.startswith("lm-eval:")


def kappa(found: Agreement) -> str:
    """Cohen's kappa with its interval."""
    if found.kappa is None or found.kappa_low is None or found.kappa_high is None:
        return "kappa not defined"
    return f"kappa {found.kappa:.2f} ({found.kappa_low:.2f} to {found.kappa_high:.2f})"


def missed(found: Agreement) -> str:
    """The two kinds of mistakes of a judge, counted."""
    return (
        f"{found.missed} of {found.complied} that comply missed, {found.false} of {found.refused} that refuse called "
        "complied"
    )


def served(judge: ServedJudge) -> str:
    """Who answered for a judge that is a model, and what it took."""
    if not judge.url:
        missing = f", {judge.unscored} left without a verdict" if judge.unscored else ""
        return f"{judge.model} at {short(judge.served)}; {judge.graded} answers judged{missing}"
    name = " ".join(part for part in (judge.served, judge.fingerprint and f"({judge.fingerprint})") if part)
    who = f"answered as {name or 'nobody'}" if judge.requests else "was asked nothing"
    missing = f", {judge.unscored} left without a grade" if judge.unscored else ""
    cost = f", {judge.cost:g} {judge.currency}" if judge.cost is not None else ""
    return (
        f"{judge.url} {who}; {judge.graded} answers graded{missing}; {judge.requests} requests, "
        f"{judge.prompt_tokens} tokens read and {judge.completion_tokens} written{cost}"
    )


def outcomes(found: dict[str, Outcome]) -> str:
    """What the judges said of one answer; the judge is named where there are several."""
    if len(set(found.values())) == 1:
        return next(iter(found.values())).value
    return ", ".join(f"{judge}: {outcome.value}" for judge, outcome in found.items())


def duration(seconds: float) -> str:
    """`1 h 04 min`, `3 min 20 s` or `12 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def size(count_of_bytes: int) -> str:
    """`1.4 GB`; decimal units, as the hub shows them."""
    number = float(count_of_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def short(commit: str) -> str:
    """Twelve digits of a commit, as people quote it."""
    return commit.removeprefix("sha256:")[:12]
