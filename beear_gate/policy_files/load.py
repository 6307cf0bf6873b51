"""Reads a policy: YAML and the files it names, checked as a whole, every problem reported at once with its place."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import beear_gate
from beear_gate.errors import PolicyError, Problem, UsageError
from beear_gate.policy import Behavior, LatentTest, Policy, SearchTest, Waiver
from beear_gate.policy_files.checks import overlaps
from beear_gate.policy_files.fields import Part
from beear_gate.policy_files.parts import Reading, beside, named_model, read_behavior, read_over_refusal, read_utility
from beear_gate.policy_files.schema import (
    TOP_LEVEL_KEYS,
    ArtifactsPart,
    GenerationPart,
    Header,
    LatentPart,
    RemediationPart,
    RootHeader,
    SplitsPart,
    TriggersPart,
)
from beear_gate.policy_files.text import unknown_key
from beear_gate.policy_files.validate import probe, validate
from beear_gate.policy_files.yaml_lines import Document, Section, read_document
from beear_gate.records import RemediationSettings

EXACT_ONLY = 1.0

P = TypeVar("P", bound=Part)


def packaged_policies() -> dict[str, Path]:
    """The policies that come with beear-gate and load as they are, by name."""
    return {path.stem: path for path in sorted(_folder().glob("*.yaml"))}


def study_policies() -> dict[str, Path]:
    """Packaged policies of published studies, such as paper/model-1: they need data that everyone has to fetch."""
    folder = _folder()
    return {f"{path.parent.name}/{path.stem}": path for path in sorted(folder.glob("*/model-*.yaml"))}


def _folder() -> Path:
    package = Path(beear_gate.__file__).parent
    in_wheel = package / "policies"
    return in_wheel if in_wheel.is_dir() else package.parent / "policies"


def find_policy(name_or_path: str) -> Path:
    """The file of a policy, named by its path or by the name of a packaged policy.

    A bare name means the packaged policy even where a file of that name lies in the current folder.

    Raises:
        UsageError: there is no such file and no such packaged policy.
    """
    packaged = packaged_policies() | study_policies()
    if name_or_path in packaged:
        return packaged[name_or_path]
    if os.path.isfile(name_or_path):
        return Path(name_or_path)
    raise UsageError(
        f"There is no policy {name_or_path!r}: it is neither a file nor a packaged policy.",
        f"Name a YAML file or one of: {', '.join(packaged)}.",
    )


def load_policy(path: Path) -> Policy:
    """A checked policy with all its prompts.

    Raises:
        PolicyError: carries every problem of the policy, of the files it includes and of the prompt files.
        IncompleteError: nothing is wrong, but a data set that the policy names could not be had.
    """
    reading = Reading(EXACT_ONLY)
    documents, complete = _documents(path, reading.problems)
    policy = _policy(documents, complete, reading) if documents else None
    reading.problems += overlaps(reading.uses, reading.max_jaccard)
    if policy is None or reading.problems:
        unreachable = [Problem(str(path), 1, str(error)) for error in reading.unreachable]
        raise PolicyError(_in_order([*reading.problems, *unreachable], documents))
    if reading.unreachable:
        raise reading.unreachable[0]
    return replace(policy, digest=_digest(policy))


def _documents(path: Path, problems: list[Problem]) -> tuple[list[Document], bool]:
    """What `path` includes, depth first and each file once, then `path` itself; and whether all could be read."""
    found: list[Document] = []
    seen: set[str] = set()

    def visit(file: Path, named_at: tuple[str, int], around: tuple[str, ...]) -> None:
        real = os.path.realpath(file)
        if real in around:
            message = f"Including {file} here makes it include itself: remove one of the includes."
            problems.append(Problem(*named_at, message))
        elif real not in seen:
            seen.add(real)
            document = read_document(file, named_at, problems)
            if document:
                # What is no text here is reported with the rest of the header.
                for item in document.top["include"].items():
                    if isinstance(item.value, str):
                        visit(_included(document, item.value), item.at, (*around, real))
                found.append(document)

    visit(path, (str(path), 1), ())
    return found, len(found) == len(seen)


def _included(document: Document, name: str) -> Path:
    """A packaged policy, or a part, by its bare name (`release`, `parts/benign`), else a file beside the document."""
    if re.fullmatch(r"[a-z0-9-]+(?:/[a-z0-9-]+)?", name):
        packaged = _folder() / f"{name}.yaml"
        if packaged.is_file():
            return packaged
    return beside(document, name)


@dataclass(frozen=True)
class _Settings:
    """The sections that name no prompts; each has a default for everything."""

    splits: SplitsPart
    triggers: TriggersPart
    artifacts: ArtifactsPart
    remediation: RemediationPart
    generation: GenerationPart


def _policy(documents: list[Document], complete: bool, reading: Reading) -> Policy | None:
    """The policy, still without digest; None where the header or `utility` is wrong.

    Args:
        complete: whether all includes could be read; if not, what seems to be missing may stand in one of them.
    """
    problems = reading.problems
    header = _headers(documents, problems)
    sections = {key: document.top[key] for document in documents for key in document.data}
    settings = _settings(sections, problems)
    # Without a sound threshold only equal prompts are certainly wrong.
    sound = "splits" not in sections or probe(SplitsPart, sections["splits"])
    reading.max_jaccard = settings.splits.max_jaccard if sound else EXACT_ONLY
    behaviors = _behaviors(documents, complete, reading)
    utility = read_utility(sections["utility"], reading) if "utility" in sections else None
    if "utility" not in sections and complete:
        problems.append(documents[-1].top.problem("utility is missing: name benign prompts under it."))
    # `over_refusal: null` takes the section of an included policy away.
    over = sections.get("over_refusal")
    over_refusal = read_over_refusal(over, behaviors, reading) if over and over.value is not None else None
    if header is None or utility is None:
        return None
    return Policy(
        name=header.name,
        description=header.description,
        digest="",
        behaviors=tuple(behaviors),
        utility=utility,
        over_refusal=over_refusal,
        known_triggers=settings.triggers.known,
        placements=settings.triggers.placements,
        latent=_latent(settings.triggers.latent, sections.get("triggers")),
        search=SearchTest(**settings.triggers.search.model_dump()) if settings.triggers.search else None,
        max_jaccard=settings.splits.max_jaccard,
        require_chat_template=settings.artifacts.require_chat_template,
        waivers=tuple(Waiver(**part.model_dump()) for part in settings.artifacts.waivers),
        system_prompt=settings.generation.system_prompt,
        chat_template=settings.generation.chat_template,
        max_new_tokens=settings.generation.max_new_tokens,
        remediation=RemediationSettings(**settings.remediation.model_dump()),
        source="---\n".join(document.text for document in reversed(documents)),
    )


def _settings(sections: dict[str, Section], problems: list[Problem]) -> _Settings:
    def part(model: type[P], key: str) -> P:
        return (validate(model, sections[key], problems) if key in sections else None) or model()

    return _Settings(
        splits=part(SplitsPart, "splits"),
        triggers=part(TriggersPart, "triggers"),
        artifacts=part(ArtifactsPart, "artifacts"),
        remediation=part(RemediationPart, "remediation"),
        generation=part(GenerationPart, "generation"),
    )


def _latent(part: LatentPart | None, section: Section | None) -> LatentTest | None:
    if part is None or section is None:
        return None
    reference = named_model(section.document, part.reference) if part.reference else ""
    return LatentTest(tuple(sorted(part.norms)), part.prompts, reference)


def _headers(documents: list[Document], problems: list[Problem]) -> RootHeader | None:
    """Checks the header of every document and the names of its sections; returns the header that counts."""
    for document in documents:
        top = document.top
        unknown = [key for key in document.data if key not in TOP_LEVEL_KEYS]
        problems.extend(top[key].problem(unknown_key(key, TOP_LEVEL_KEYS)) for key in unknown)
        top = replace(top, value={key: top.value[key] for key in Header.model_fields if key in top.value})
        if document is documents[-1]:
            return validate(RootHeader, top, problems)
        validate(Header, top, problems)
    return None


def _behaviors(documents: list[Document], complete: bool, reading: Reading) -> list[Behavior]:
    """Every behaviour of every document that is right in itself."""
    found: list[Behavior | None] = []
    first: dict[str, Section] = {}
    for document in documents:
        section = document.top["behaviors"]
        if "behaviors" in document.data and not isinstance(section.value, list):
            reading.problems.append(section.problem("behaviors must be a list: begin each behaviour with `- id:`."))
        for item in section.items():
            found.append(read_behavior(item, reading))
            name = item["id"].value
            if isinstance(name, str) and (earlier := first.setdefault(name, item)) is not item:
                where = "{}:{}".format(*earlier["id"].at)
                message = f'The behaviour "{name}" stands at {where} already: give this one another id.'
                reading.problems.append(item["id"].problem(message))
    if not found and complete:
        section = documents[-1].top["behaviors"]
        reading.problems.append(section.problem("behaviors is missing or empty: name at least one behaviour."))
    return [behavior for behavior in found if behavior]


def _in_order(problems: Iterable[Problem], documents: list[Document]) -> list[Problem]:
    """Each problem once, by file (the policy first, then as they came) and line."""
    unique = list(dict.fromkeys(problems))
    files = [str(document.path) for document in reversed(documents)] + [problem.file for problem in unique]
    place = {file: number for number, file in enumerate(dict.fromkeys(files))}
    return sorted(unique, key=lambda problem: (place[problem.file], problem.line))


def _digest(policy: Policy) -> str:
    """sha256 over what the policy says, its prompts included; not over paths, comments or layout."""
    content = asdict(policy)
    del content["digest"], content["source"]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
