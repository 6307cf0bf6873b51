"""Turns the sections of a policy that name prompts into records: behaviours, utility, over-refusal.

A section that is wrong in one place is still read in the others, so that one run shows every problem.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypedDict

from beear_gate.errors import IncompleteError, Problem, UsageError
from beear_gate.hub_data import fetch
from beear_gate.policy import (
    AnyJudgeSpec,
    Behavior,
    ClassifierJudgeSpec,
    HarnessTask,
    HttpJudgeSpec,
    Instruction,
    JudgeSpec,
    Limit,
    OverRefusal,
    Prices,
    Question,
    RewardSpec,
    Utility,
)
from beear_gate.policy_files.checks import Use, power_problem
from beear_gate.policy_files.judge_schema import (
    AnyJudgePart,
    ClassifierJudgePart,
    HttpJudgePart,
    JudgePart,
    QualityPart,
)
from beear_gate.policy_files.near_duplicates import clusters
from beear_gate.policy_files.prompt_files import RowSet, Source, read_examples, read_refusals
from beear_gate.policy_files.schema import (
    BehaviorPart,
    LimitPart,
    OverRefusalPart,
    OverRefusalPrompts,
    RewardPart,
    SafePart,
    SplitPrompts,
    UnwantedPart,
    UtilityPart,
)
from beear_gate.policy_files.source_schema import HubPart, SourcePart
from beear_gate.policy_files.utility_files import read_instructions, read_questions, read_tasks
from beear_gate.policy_files.validate import probe, validate
from beear_gate.policy_files.yaml_lines import Document, Section
from beear_gate.records import Example

Examples = tuple[Example, ...]

DATA = "BEEAR_GATE_DATA"
"""The environment variable that names the folder with the user's own copies of public data."""


@dataclass
class Reading:
    """What gathers while a policy is read.

    Attributes:
        max_jaccard: above it, prompts of one gate split share a cluster.
        unreachable: why files of data sets could not be had; no fault of the policy.
        uses: every prompt file that could be read, for the comparison of splits.
    """

    max_jaccard: float
    problems: list[Problem] = field(default_factory=list)
    unreachable: list[IncompleteError] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)


def beside(document: Document, file: str) -> Path:
    """A path as written in a document: relative to its folder, or to the user's data where it says so.

    A packaged policy can name data that may not be packaged: the folder of DATA, else `data` in the current folder.
    """
    if file.startswith(f"${DATA}/"):
        return Path(os.path.normpath(Path(os.environ.get(DATA) or "data", file.removeprefix(f"${DATA}/"))))
    return Path(os.path.normpath(document.path.parent / file))


def named_model(document: Document, model: str) -> str:
    """A model as written in a document: one of a hub as it is, a folder by its path, found as `beside` does."""
    if model.startswith(("./", "../", f"${DATA}/")):
        return str(beside(document, model).absolute())
    return os.path.expanduser(model) if model.startswith("~") else model


def read_behavior(section: Section, reading: Reading) -> Behavior | None:
    """One item of `behaviors`; None where the section itself is wrong."""
    part = validate(BehaviorPart, section, reading.problems)
    prompts = part.prompts if part else probe(SplitPrompts, section["prompts"])
    safe = part.safe if part else probe(SafePart, section["safe"])
    unwanted = part.unwanted if part else probe(UnwantedPart, section["unwanted"])
    limit = part.limit if part else probe(LimitPart, section["limit"])
    anchor, select, gate = _splits(prompts, section["prompts"], reading)
    fallback = _fallback(safe, section["safe"], anchor, reading) if safe else ()
    examples = unwanted.examples if unwanted else None
    # Whole unwanted answers train, as the anchor prompts do.
    shown = _read(examples, section["unwanted"]["examples"], "anchor", reading, answers=True)
    gate_examples = _clustered(gate, reading.max_jaccard)
    if limit and gate:
        _check_power(section["limit"], limit, gate_examples, gate.broken, reading.problems)
    if part is None:
        return None
    judge = _any_judge(part.judge, section.document)
    return Behavior(
        id=part.id,
        description=part.description,
        anchor=_examples(anchor),
        select=_examples(select),
        gate=gate_examples,
        fallback=fallback,
        unwanted_prefixes=part.unwanted.prefixes,
        unwanted_examples=_examples(shown),
        safe_judge=_judge(part.safe.judge) if part.safe.judge else _safe_judge(judge),
        judge=judge,
        other_judges=tuple(_any_judge(other, section.document) for other in part.other_judges),
        limit=Limit(part.limit.max_rate, part.limit.confidence, part.limit.max_incoherent),
        safe_from=part.safe.source,
    )


def _fallback(safe: SafePart, section: Section, anchor: RowSet | None, reading: Reading) -> tuple[str, ...]:
    """Safe answers for anchor prompts that bring none; a file may be left out where every one brings its own."""
    if safe.fallback:
        source = _source(safe.fallback, section["fallback"], reading)
        return read_refusals(source, reading.problems) if source else ()
    without = [row.line for row in anchor.rows if not row.example.answer] if anchor else []
    if anchor and without:
        where = f"the first in line {without[0]} of {anchor.source.path}"
        wrong = f"{section.name}.fallback is missing, but {len(without)} anchor prompts have no answer, {where}"
        reading.problems.append(section.problem(f"{wrong}: name a file or write the answers."))
    return ()


def read_utility(section: Section, reading: Reading) -> Utility | None:
    """The section `utility`; None where the section itself is wrong."""
    part = validate(UtilityPart, section, reading.problems)
    prompts = part.prompts if part else probe(SplitPrompts, section["prompts"])
    anchor, select, gate = _splits(prompts, section["prompts"], reading, answers=True)
    if part is None:
        return None
    return Utility(
        anchor=_examples(anchor),
        select=_examples(select),
        gate=_clustered(gate, reading.max_jaccard),
        nll_ratio=part.margins.nll_ratio,
        agreement=part.margins.agreement,
        confidence=part.margins.confidence,
        max_degenerate=part.margins.degenerate,
        max_choices=part.margins.choices,
        max_instructions=part.margins.instructions,
        max_tasks=part.margins.tasks,
        quality=_served(part.quality) if part.quality else None,
        max_quality=part.margins.quality,
        **_utility_tests(part, section, reading),
        reward=_reward(part.reward, section.document) if part.reward else None,
    )


class _UtilityTests(TypedDict):
    questions: tuple[Question, ...]
    instructions: tuple[Instruction, ...]
    tasks: tuple[HarnessTask, ...]


def _utility_tests(part: UtilityPart, section: Section, reading: Reading) -> _UtilityTests:
    """What a utility section names beside its prompts; near-duplicate questions and instructions share a cluster."""

    def source(key: Literal["choices", "instructions"], file: str) -> Source:
        return Source(beside(section.document, file), section[key].name, section[key].at)

    def numbered(found: RowSet) -> list[int]:
        reading.uses.append(Use("gate", found))
        return clusters([example.prompt for example in found.examples], reading.max_jaccard)

    found: _UtilityTests = {"questions": (), "instructions": (), "tasks": ()}
    if part.choices:
        questions, rows = read_questions(source("choices", part.choices), reading.problems)
        pairs = zip(questions, numbered(rows), strict=True)
        found["questions"] = tuple(replace(each, cluster=number) for each, number in pairs)
    if part.instructions:
        instructions, rows = read_instructions(source("instructions", part.instructions), reading.problems)
        asked = zip(instructions, numbered(rows), strict=True)
        found["instructions"] = tuple(replace(each, cluster=number) for each, number in asked)
    if part.tasks:
        found["tasks"] = read_tasks(beside(section.document, part.tasks), section["tasks"].at, reading.problems)
    return found


def read_over_refusal(section: Section, behaviors: Sequence[Behavior], reading: Reading) -> OverRefusal | None:
    """The section `over_refusal`; None where the section itself is wrong.

    Args:
        behaviors: the first one's own openings of a refusal are recognised here as well.
    """
    part = validate(OverRefusalPart, section, reading.problems)
    prompts = part.prompts if part else probe(OverRefusalPrompts, section["prompts"])
    anchor, select, gate = _splits(prompts, section["prompts"], reading)
    if part is None:
        return None
    first = [judge for behavior in behaviors[:1] for judge in (behavior.judge, behavior.safe_judge)]
    return OverRefusal(
        gate=_clustered(gate, reading.max_jaccard),
        judge=_judge(part.judge) if part.judge else _refusal_judge(*first),
        select=_examples(select),
        anchor=_examples(anchor),
        max_increase=part.max_increase,
        confidence=part.confidence,
    )


def _splits(
    prompts: SplitPrompts | OverRefusalPrompts | None, section: Section, reading: Reading, answers: bool = False
) -> tuple[RowSet | None, RowSet | None, RowSet | None]:
    """Anchor, select and gate; `answers` are needed in the first two, which train and choose by them."""
    return (
        _read(prompts.anchor if prompts else None, section["anchor"], "anchor", reading, answers),
        _read(prompts.select if prompts else None, section["select"], "select", reading, answers),
        _read(prompts.gate if prompts else None, section["gate"], "gate", reading),
    )


def _read(
    part: SourcePart | None,
    section: Section,
    split: Literal["anchor", "select", "gate"],
    reading: Reading,
    answers: bool = False,
) -> RowSet | None:
    if part is None:
        return None
    source = _source(part, section, reading)
    found = read_examples(source, reading.problems, answers) if source else None
    if found is not None:
        reading.uses.append(Use(split, found))
    return found


def _source(part: SourcePart, section: Section, reading: Reading) -> Source | None:
    path = _fetched(part.hub, section["hub"], reading) if part.hub else beside(section.document, part.file or "")
    return Source(path, section.name, section.at, part.column, part.answer_column, part.rows) if path else None


def _fetched(part: HubPart, section: Section, reading: Reading) -> Path | None:
    """A file of a data set; None, and why, where it cannot be had."""
    try:
        return fetch(part.dataset, part.revision, part.file, part.sha256)
    except UsageError as error:
        reading.problems.append(section.problem(f"{section.name}: {error}"))
    except IncompleteError as error:
        reading.unreachable.append(error)
    return None


def _examples(found: RowSet | None) -> Examples:
    return found.examples if found else ()


def _clustered(found: RowSet | None, max_jaccard: float) -> Examples:
    examples = _examples(found)
    numbers = clusters([example.prompt for example in examples], max_jaccard)
    return tuple(replace(example, cluster=number) for example, number in zip(examples, numbers, strict=True))


def _check_power(section: Section, limit: LimitPart, gate: Examples, broken: int, problems: list[Problem]) -> None:
    # Broken rows are taken to count once mended: they have a problem of their own.
    prompts = len({example.cluster for example in gate}) + broken
    if wrong := power_problem(section.name, prompts, limit.max_rate, limit.confidence):
        problems.append(section["max_rate"].problem(wrong))


def _judge(part: JudgePart) -> JudgeSpec:
    return JudgeSpec(part.name, part.patterns)


def _reward(part: RewardPart, document: Document) -> RewardSpec:
    given = part.model_dump(exclude={"model", "device"})
    return RewardSpec(named_model(document, part.model), device=part.device or "", **given)


def _any_judge(part: AnyJudgePart, document: Document) -> AnyJudgeSpec:
    if isinstance(part, JudgePart):
        return _judge(part)
    if isinstance(part, ClassifierJudgePart):
        labels = part.labels.model_dump() if part.labels else {}
        given = part.model_dump(exclude={"name", "model", "labels", "device"})
        return ClassifierJudgeSpec(named_model(document, part.model), device=part.device or "", **given, **labels)
    return _served(part)


def _served(part: HttpJudgePart | QualityPart) -> HttpJudgeSpec:
    given = part.model_dump(exclude={"name", "prices", "key_env"})
    prices = Prices(**part.prices.model_dump()) if part.prices else None
    return HttpJudgeSpec(**given, prices=prices, key_env=part.key_env or "")


def _safe_judge(judge: AnyJudgeSpec) -> JudgeSpec:
    """What tells safe answers where the policy names nothing; refusals, unless these are what is unwanted."""
    if isinstance(judge, JudgeSpec) and judge.name == "needless-refusal":
        return judge
    # The behaviour's own openings of a refusal serve here too, for policies in other languages.
    return _refusal_judge(judge)


def _refusal_judge(*candidates: AnyJudgeSpec) -> JudgeSpec:
    """The built-in judge of refusals, with the patterns of the first candidate that has some for it."""
    texts = (judge for judge in candidates if isinstance(judge, JudgeSpec))
    own = (judge for judge in texts if judge.name == "refusal-prefix" and judge.patterns)
    return next(own, JudgeSpec("refusal-prefix"))
