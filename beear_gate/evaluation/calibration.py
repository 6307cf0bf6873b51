"""How far a judge agrees with people, measured on answers that people have labelled, and kept for the reports.

A calibration belongs to the rules that it was made with: `rules` is a digest of the judge's source, and one of other
rules is not shown.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from beear_gate.errors import IncompleteError, UsageError
from beear_gate.evaluation.classifier_forms import form_digest, outcome_of
from beear_gate.evaluation.http_judge import HttpJudge, Question
from beear_gate.evaluation.judges import is_incoherent, make_judge
from beear_gate.evaluation.model_judge import ModelJudge
from beear_gate.evaluation.rubrics import rubric_digest
from beear_gate.evaluation.stats import cohen_kappa
from beear_gate.policy import AnyJudgeSpec, ClassifierJudgeSpec, HttpJudgeSpec, JudgeSpec
from beear_gate.records import Agreement, Calibration, Outcome

Label = Literal["complied", "refused", "partial"]

ANSWERS = ("completion", "answer", "response", "text")
PROMPTS = ("prompt", "request", "question")
LABELS = ("final_label", "label", "human_label")
_MEANINGS: dict[str, Label] = {
    "1_full_compliance": "complied", "full_compliance": "complied", "compliance": "complied", "complied": "complied",
    "2_full_refusal": "refused", "full_refusal": "refused", "refusal": "refused", "refused": "refused",
    "3_partial_refusal": "partial", "partial_refusal": "partial", "partial": "partial",
}  # fmt: skip
"""XSTest's labels (arXiv 2308.01263, section 4.1), and plainer words for the same."""
_PACKAGED = Path(__file__).with_name("calibrations.json")


@dataclass(frozen=True)
class Labelled:
    """One answer with what people say of it; `unsafe` where the file tells XSTest's unsafe contrasts from the rest.

    `prompt` is "" where the file has none; only judges that are models read it.
    """

    text: str
    label: Label
    unsafe: bool | None
    prompt: str = ""


def calibrate(
    spec: AnyJudgeSpec,
    file: Path,
    answer_column: str | None,
    label_column: str | None,
    loaded: ModelJudge | None = None,
) -> Calibration:
    """Hold a judge against a CSV file of labelled answers.

    Prompts of which the column `type` begins with `contrast_` are XSTest's unsafe ones; they and the others are
    counted apart. Each set is shown whole and by odd and even rows of the file (the first one is odd), so that rules
    that were tuned on one half can be held against the other.

    Args:
        answer_column, label_column: None for the first of `ANSWERS` and `LABELS` that the file has.
        loaded: the judge, where the spec is of a model on disk.

    Raises:
        UsageError: the file cannot be read, lacks a column, holds an unknown label, or has nothing to compare.
        IncompleteError: a judge that is a model left an answer without a grade.
    """
    rows = read_labelled(file, answer_column, label_column)
    outcomes, by = _judged(spec, file, rows, loaded)
    judged = [(place % 2, row, outcome) for place, (row, outcome) in enumerate(zip(rows, outcomes, strict=True))]
    sets: list[tuple[str, Callable[[Labelled], bool]]] = [("all prompts", lambda row: True)]
    if any(row.unsafe for row in rows):
        sets = [("unsafe prompts", lambda row: row.unsafe is True), ("safe prompts", lambda row: row.unsafe is False)]
    subsets = []
    for name, wanted in sets:
        for title, halves in ((name, (0, 1)), (f"{name}, odd rows", (0,)), (f"{name}, even rows", (1,))):
            chosen = [(row.label, outcome) for half, row, outcome in judged if half in halves and wanted(row)]
            subsets.append(agreement(title, chosen))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    rules = rules_digest(spec, loaded.model.digest if loaded else "")
    return Calibration(spec.name, rules, f"{file.name} (sha256 {digest[:12]}){by}", tuple(subsets))


def _judged(
    spec: AnyJudgeSpec, file: Path, rows: Sequence[Labelled], loaded: ModelJudge | None
) -> tuple[list[Outcome], str]:
    """What the judge says of each row, and which model it was."""
    if isinstance(spec, JudgeSpec):
        judge = make_judge(spec)
        return [judge(row.text) for row in rows], ""
    if not all(row.prompt for row in rows):
        raise UsageError(
            f"{file} has answers without their prompts, which a judge that is a model reads.",
            f"Give the file a column {' or '.join(PROMPTS)}.",
        )
    questions = [Question(row.prompt, row.text) for row in rows]
    if loaded is not None:
        grades = loaded.grades(questions)
        if finding := loaded.finding():
            raise IncompleteError(finding.message, finding.remedy)
        found = [outcome_of(grade, is_incoherent(row.text)) for row, grade in zip(rows, grades, strict=True)]
        return found, f", graded by {loaded.record().served}"
    assert isinstance(spec, HttpJudgeSpec)
    served = HttpJudge(spec, calibration_folder() / "served")
    outcomes = served.grade(questions)
    if finding := served.finding():
        raise IncompleteError(finding.message, "Run it again: what was graded is kept.")
    return outcomes, f", graded by {served.record().served or 'a model without a name'}"


def agreement(name: str, found: Sequence[tuple[Label, Outcome]]) -> Agreement:
    """Compliance or not, by people and by the judge; partial refusals are counted apart and are neither."""
    whole = [(label == "complied", outcome is Outcome.COMPLIED) for label, outcome in found if label != "partial"]
    partial = [outcome for label, outcome in found if label == "partial"]
    missed = sum(people and not judged for people, judged in whole)
    false = sum(judged and not people for people, judged in whole)
    complied = sum(people for people, _ in whole)
    kappa, low, high = cohen_kappa(complied - missed, missed, false, len(whole) - complied - false)
    return Agreement(
        subset=name,
        n=len(whole),
        agreed=len(whole) - missed - false,
        kappa=kappa,
        kappa_low=low,
        kappa_high=high,
        complied=complied,
        missed=missed,
        refused=len(whole) - complied,
        false=false,
        partial=len(partial),
        partial_complied=sum(outcome is Outcome.COMPLIED for outcome in partial),
    )


def read_labelled(file: Path, answer_column: str | None, label_column: str | None) -> list[Labelled]:
    """The rows of a CSV file with a header.

    Raises:
        UsageError: see `calibrate`.
    """
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            reader = csv.DictReader(opened, strict=True)
            header = tuple(reader.fieldnames or ())
            text = _column(file, header, answer_column, ANSWERS, "--answer-column")
            label = _column(file, header, label_column, LABELS, "--label-column")
            prompt = next((name for name in PROMPTS if name in header), None)
            rows = [_labelled(file, reader.line_num, row, text, label, prompt) for row in reader]
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.", "Give a CSV file of labelled answers.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8 at byte {error.start}.", "Save it as UTF-8.") from error
    except csv.Error as error:
        raise UsageError(f"{file} is no CSV file: {error}.", "Save it with a header and quoted fields.") from error
    if not rows:
        raise UsageError(f"{file} has no row below its header.", "Give labelled answers.")
    return rows


def _column(file: Path, header: Sequence[str], asked: str | None, usual: Sequence[str], option: str) -> str:
    wanted = (asked,) if asked else usual
    found = next((name for name in wanted if name in header), None)
    if found is None:
        raise UsageError(
            f"{file} has no column {' or '.join(wanted)}; its columns are {', '.join(header) or 'none'}.",
            f"Name the right one with {option}.",
        )
    return found


def _labelled(file: Path, line: int, row: dict[str, str | None], text: str, label: str, prompt: str | None) -> Labelled:
    said = (row[label] or "").strip().lower()
    if said not in _MEANINGS:
        raise UsageError(f"{file}:{line}: the label {said[:80]!r} is unknown.", f"Use one of {', '.join(_MEANINGS)}.")
    kind = row.get("type")
    unsafe = kind.startswith("contrast_") if kind else None
    return Labelled(row[text] or "", _MEANINGS[said], unsafe, (row[prompt] or "") if prompt else "")


def rules_digest(spec: AnyJudgeSpec, content: str = "") -> str:
    """sha256 over the source of the built-in judges and the patterns of this one; of a model, over what it is.

    Args:
        content: digest of the files of a model on disk.
    """
    if isinstance(spec, ClassifierJudgeSpec):
        return hashlib.sha256(f"{form_digest(spec)} {content}".encode()).hexdigest()
    if isinstance(spec, HttpJudgeSpec):
        asked = [spec.model, rubric_digest(spec.rubric), spec.threshold]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    digest = hashlib.sha256(json.dumps([spec.name, *spec.patterns]).encode())
    own = ["excuses.py"] if spec.name == "needless-refusal" else []
    if spec.name == "code":
        own = sorted(path.name for path in Path(__file__).parent.glob("code_*.py"))
    for name in ("judges.py", "refusals.py", "deliveries.py", *own):
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()


def calibration_folder() -> Path:
    """Where a user's calibrations are kept: beear-gate/calibrations in the user's data folder."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "beear-gate" / "calibrations"


def store(found: Calibration, path: Path) -> None:
    """Add to the calibrations of a file, in place of an earlier one of the same judge on the same data.

    Raises:
        UsageError: the file is there and is none of ours, or cannot be written.
    """
    try:
        kept = [each for each in _read(path) if (each.judge, each.source) != (found.judge, found.source)]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([asdict(each) for each in [*kept, found]], indent=1) + "\n", encoding="utf-8")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} cannot hold a calibration ({error}).", "Give --output another place.") from error


def calibrations_of(
    specs: Iterable[AnyJudgeSpec], contents: Mapping[str, str] | None = None
) -> tuple[Calibration, ...]:
    """What is on record for these judges as they are now: the user's own calibrations, else the packaged ones.

    Args:
        contents: digest of the files of each judge that is a model on disk, by its name.
    """
    own = [each for path in sorted(calibration_folder().glob("*.json")) for each in _sound(path)]
    known = {(each.judge, each.rules): each for each in (*_sound(_PACKAGED), *own)}
    wanted = dict.fromkeys((spec.name, rules_digest(spec, (contents or {}).get(spec.name, ""))) for spec in specs)
    return tuple(known[key] for key in wanted if key in known)


def _sound(path: Path) -> list[Calibration]:
    """The calibrations of a file; none where somebody else wrote it: a judge without one is shown as such."""
    try:
        return _read(path)
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _read(path: Path) -> list[Calibration]:
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    found = [Calibration(**{**row, "subsets": tuple(Agreement(**each) for each in row["subsets"])}) for row in rows]
    if not all(each.subsets for each in found):
        raise ValueError("a calibration without a figure")
    return found
