"""Everything a reviewer reads, each from one `GateReport`: `html`, `card`, `markdown`, and `as_json` for programs.

Text of models, policies and file names is hostile. HTML is autoescaped; the Markdown templates escape every value that
is not marked as `Markdown`; both show control and bidi characters spelt out (`text.visible`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from math import isfinite
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from beear_gate.records import GateReport, Measurement, Verdict, worst_first
from beear_gate.report import drawing, figures, latent_words, tensors, words
from beear_gate.report.evidence import as_json, evidence
from beear_gate.report.pairs import Exchange, Pair, exchanges, pairs
from beear_gate.report.text import Markdown, code, escaped, one_line, visible

__all__ = ["as_json", "card", "evidence", "html", "markdown", "visible"]

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_ANSWERS = 60
_NOTE_LIMIT = 8000  # MLflow cuts a run's note there
_TONES = {Verdict.PASS: "good", Verdict.REMEDIATED: "good", Verdict.BLOCKED: "bad", Verdict.INCOMPLETE: "open"}
_ICONS = {"good": "M6.5 12.5l3.7 3.7 7.3-8", "bad": "M8 8l8 8M16 8l-8 8", "open": "M12 6.2v7M12 17.4v.1"}


@dataclass(frozen=True)
class AnswerGroup:
    """The answers of one behaviour, at most `_MOST_ANSWERS` of them."""

    name: str
    rows: tuple[Exchange, ...]
    total: int
    changed: int


@dataclass(frozen=True)
class Table:
    """One table of the card."""

    caption: str
    rows: tuple[Pair, ...]


def html(report: GateReport) -> str:
    """One self-contained page: no script, nothing loaded from anywhere, verdict and reasons first."""
    found = pairs(report.measurements)
    given = exchanges(report)
    tone = _TONES[report.decision.verdict]
    template = _pages().get_template("report.html.j2")
    return template.render(
        report=report,
        verdict=report.decision.verdict.value,
        meaning=words.meaning(report.decision.verdict),
        tone=tone,
        icon=_ICONS[tone],
        style=Markup((_TEMPLATES / "report.css.j2").read_text()),
        decisive=_decisive(found),
        because=report.decision.because,
        others=[
            pair for pair in found if not (pair.decides or pair.last.revealed or _is_utility(pair) or _is_canary(pair))
        ],
        rehearsed=[pair for pair in found if _is_canary(pair)],
        useful=[pair for pair in found if _is_utility(pair) and not pair.last.revealed],
        revealed=[pair for pair in found if pair.last.revealed],
        answers=_groups(one for one in given if not one.revealed),
        revealed_answers=_groups(one for one in given if one.revealed),
        figures={name: Markup(drawing.svg(figure)) for name, figure in figures.of_report(report).items()},
        tested=_tested(report.measurements),
        halves=latent_words.halves(report.latent),
        kappas=words.kappas(report),
        command=_command(report),
    )


def card(report: GateReport, signed: bool = False) -> str:
    """README.md for the hub: metadata with `model-index`, before and after, and the limits of the evidence.

    Args:
        signed: whether a signed verdict is published beside it.
    """
    found = pairs(report.measurements)
    tables = (
        Table("Figures that decide:", tuple(pair for pair in found if pair.decides)),
        Table("For information:", tuple(pair for pair in found if not pair.decides and not pair.last.revealed)),
        Table(
            "Revealed after the decision, not part of the verdict:",
            tuple(pair for pair in found if pair.last.revealed),
        ),
    )
    template = _notes().get_template("card.md.j2")
    body = template.render(
        report=report,
        name=_card_name(report),
        verdict=report.decision.verdict.value,
        tables=tables,
        command=_command(report),
        signed=signed,
    )
    return f"---\n{_metadata(report)}\n---\n\n{_tidy(body)}"


def markdown(report: GateReport) -> str:
    """A summary below 8,000 characters, for a CI job or the note of an MLflow run."""
    found = pairs(report.measurements)
    template = _notes().get_template("summary.md.j2")
    # The worst case of every field still has to fit; rows go before the last paragraph, which names the policy, does.
    for most in (24, 12, 6, 3, 0):
        decisive = _decisive(found)
        revealed = [pair for pair in found if pair.last.revealed]
        text = template.render(
            report=report,
            verdict=report.decision.verdict.value,
            meaning=words.meaning(report.decision.verdict),
            reasons=[escaped(reason, 300) for reason in report.decision.reasons[: most // 2]],
            more_reasons=max(0, len(report.decision.reasons) - most // 2),
            rows=decisive[:most],
            more_rows=max(0, len(decisive) - most),
            revealed=revealed[: most // 2],
        )
        if len(_tidy(text)) < _NOTE_LIMIT:
            break
    return _tidy(text)


def _decisive(found: Sequence[Pair]) -> list[Pair]:
    """The policy's rules, worst first."""
    return sorted((pair for pair in found if pair.decides), key=lambda pair: worst_first(pair.last))


def _is_utility(pair: Pair) -> bool:
    return pair.last.behavior in words.UTILITY


def _is_canary(pair: Pair) -> bool:
    return pair.last.condition == "canary"


def _groups(given: Iterable[Exchange]) -> list[AnswerGroup]:
    by_behavior = groupby(sorted(given, key=lambda one: one.behavior), key=lambda one: one.behavior)
    groups = []
    for name, found in by_behavior:
        rows = tuple(found)  # `sorted` is stable: what changed is still first
        changed = sum(row.change == "judgment" for row in rows)
        groups.append(AnswerGroup(name, rows[:_MOST_ANSWERS], len(rows), changed))
    return groups


def _tested(measurements: tuple[Measurement, ...]) -> list[str]:
    """One sentence for each behaviour: how many prompts, put how, judged by what."""
    rows = sorted((row for row in measurements if not row.revealed), key=lambda row: row.behavior)
    lines = []
    for behavior, group in groupby(rows, key=lambda row: row.behavior):
        found = list(group)
        judges = ", ".join(dict.fromkeys(row.judge for row in found if row.judge))
        ways = "; ".join(dict.fromkeys(words.condition(row) for row in found))
        judged = f", judged by {judges}" if judges else ""
        lines.append(f"{behavior}: {max(row.n for row in found)} prompts{judged}; {ways}")
    return lines


def _command(report: GateReport) -> str:
    on_hub = not report.commit.startswith("sha256:")
    model = f"{report.model}@{report.commit}" if on_hub else report.model
    return f"beear-gate scan {shlex.quote(model)} --policy {shlex.quote(report.policy)} --seed {report.seed}"


def _card_name(report: GateReport) -> str:
    name = re.split(r"[/\\]", report.model.rstrip("/\\"))[-1]
    return f"{name}-beear" if report.remediation is not None else name


def _metadata(report: GateReport) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", report.model) and not report.commit.startswith("sha256:")
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=one_line(row.behavior),
            dataset_name=one_line(f"beear-gate policy {report.policy}: {row.behavior}, gate split"),
            dataset_config=row.condition,
            dataset_revision=one_line(report.policy_digest),
            metric_type=one_line(row.metric),
            metric_name=one_line(words.sentence(row)),
            metric_config=one_line(row.judge) or None,
            metric_value=row.value,
        )
        for pair in pairs(report.measurements)
        # The canary was measured in a copy that nobody gets.
        if (row := pair.last).value is not None and not row.revealed and row.condition != "canary"
    ]
    data = ModelCardData(
        base_model=report.model if on_hub else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["beear-gate", "beear", "safety", f"beear-gate-{report.decision.verdict.value.lower()}"],
        model_name=one_line(_card_name(report)),
        eval_results=results or None,
    )
    return data.to_yaml()


def _tidy(text: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _side(row: Measurement | None) -> Markdown:
    if row is None:
        return Markdown("—")
    interval = words.bound(row)
    return escaped(f"{words.count(row)} ({interval})" if interval else words.count(row))


def _share(value: float) -> str:
    return words.percent(value) if isfinite(value) else "not measured"


@cache
def _pages() -> Environment:
    environment = _environment(autoescape=True)
    environment.filters |= {"visible": visible, "one_line": one_line}
    return environment


@cache
def _notes() -> Environment:
    def finalize(value: object) -> object:
        return value if isinstance(value, Markdown) else escaped(str(value))

    environment = _environment(autoescape=False, finalize=finalize)
    environment.filters |= {"code": code, "escaped": escaped, "side": _side}
    return environment


def _environment(*, autoescape: bool, finalize: Callable[[object], object] | None = None) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=autoescape,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    about_rows = (
        words.sentence,
        words.count,
        words.rate,
        words.bound,
        words.condition,
        words.limit,
        words.title,
        words.test,
    )
    others = (words.outcomes, words.canary_answers, words.canary_rounds, words.duration, words.size, words.short)
    agreements = (
        words.kappa,
        words.missed,
        words.served,
        words.container,
        words.conversion,
        words.training,
        tensors.changes,
        tensors.figure,
    )
    environment.filters |= {function.__name__: function for function in (*about_rows, *others, *agreements)}
    environment.filters["share"] = _share
    return environment
