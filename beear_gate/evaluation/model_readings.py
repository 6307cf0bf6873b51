"""What a judge's model says of answers: it is loaded, asked in batches, and let go of when the last answer is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from beear_gate.errors import UnsupportedModel
from beear_gate.evaluation.classifier_forms import (
    ANSWER,
    LONGEST_VERDICT,
    REQUEST,
    Form,
    form_of,
    inert,
    label_grade,
    own_form,
    read_verdict,
)
from beear_gate.evaluation.http_judge import Question
from beear_gate.lm import LM, generate, load_lm
from beear_gate.lm.classifier import Classifier, Encoded, load_classifier, logits, longest_input
from beear_gate.lm.config import first_line
from beear_gate.lm.load import quiet
from beear_gate.policy import ClassifierJudgeSpec, RewardSpec

TOO_LONG = "request and answer are longer than what the model reads"


@dataclass(frozen=True)
class Reading:
    """What came of one question.

    Attributes:
        grade: as `classifier_forms` writes it, or the score of a reward model; None where there is none, and `problem`
            says why.
        reply: what the model wrote.
        read, written: tokens.
    """

    question: Question
    grade: str | None
    problem: str = ""
    reply: str = ""
    read: int = 0
    written: int = 0


def readings(
    spec: ClassifierJudgeSpec | RewardSpec, path: Path, device: str, dtype: str, questions: Sequence[Question]
) -> Iterator[Reading]:
    """One reading for each question, in no order.

    Args:
        path: a folder that has passed inspection.

    Raises:
        UnsupportedModel: the model is not of the kind that the spec says, see also `load_lm` and `load_classifier`.
        OutOfMemory: model or one question do not fit.
        UsageError: the device does not exist.
    """
    if isinstance(spec, RewardSpec) or spec.style == "sequence":
        yield from _scored(spec, load_classifier(path, device, dtype), questions)
    else:
        yield from _generated(spec, load_lm(path, device, dtype), questions)


def _generated(spec: ClassifierJudgeSpec, lm: LM, questions: Sequence[Question]) -> Iterator[Reading]:
    own, longest = own_form(spec.style), LONGEST_VERDICT[spec.style]
    form = own or template_form(lm.tokenizer, lm.path, generates=True)
    writer = Writer(lm.tokenizer, form, outer=own is not None, heads=True)
    limit = longest_input(lm.model, lm.tokenizer)
    asked, left = _encoded(writer, questions, limit and limit - longest)
    yield from left
    for start in range(0, len(asked), spec.batch_size):
        part = asked[start : start + spec.batch_size]
        replies = generate(lm, [tuple(each["input_ids"]) for _, each in part], longest, len(part))
        for (question, encoded), ids in zip(part, replies, strict=True):
            # With its special tokens: a verdict among them is not well-formed.
            reply = str(lm.tokenizer.decode(list(ids), skip_special_tokens=False))
            grade = read_verdict(spec.style, reply)
            problem = "" if grade else "no well-formed verdict in the reply"
            yield Reading(question, grade, problem, reply, len(encoded["input_ids"]), len(ids))


def _scored(
    spec: ClassifierJudgeSpec | RewardSpec, classifier: Classifier, questions: Sequence[Question]
) -> Iterator[Reading]:
    _refuse_other_outputs(spec, classifier)
    has_template = bool(classifier.tokenizer.chat_template)
    form = template_form(classifier.tokenizer, classifier.path, generates=False) if has_template else None
    writer = Writer(classifier.tokenizer, form, outer=False, heads=False)
    asked, left = _encoded(writer, questions, classifier.longest)
    yield from left
    for start in range(0, len(asked), spec.batch_size):
        part = asked[start : start + spec.batch_size]
        rows = logits(classifier, [encoded for _, encoded in part], len(part))
        for (question, encoded), row in zip(part, rows, strict=True):
            read = len(encoded["input_ids"])
            if not all(map(math.isfinite, row)):
                yield Reading(question, None, "a score that is no finite number", read=read)
            elif isinstance(spec, RewardSpec):
                yield Reading(question, repr(row[0]), read=read)
            else:
                grade = label_grade(spec, _shares(classifier, row))
                problem = "" if grade else "a label that the policy gives no meaning"
                yield Reading(question, grade, problem, read=read)


def _encoded(
    writer: Writer, questions: Sequence[Question], limit: int | None
) -> tuple[list[tuple[Question, Encoded]], list[Reading]]:
    """Questions as tokens, the shortest first, and those that cannot be asked."""
    fitting, left = list[tuple[Question, Encoded]](), list[Reading]()
    for question in questions:
        encoded = writer.encode(question)
        if encoded is None:
            left.append(Reading(question, None, "special tokens in the answer that could not be broken"))
        elif limit is not None and len(encoded["input_ids"]) > limit:
            left.append(Reading(question, None, TOO_LONG))
        else:
            fitting.append((question, encoded))
    return sorted(fitting, key=lambda each: len(each[1]["input_ids"])), left


def _refuse_other_outputs(spec: ClassifierJudgeSpec | RewardSpec, classifier: Classifier) -> None:
    known = classifier.labels
    if isinstance(spec, RewardSpec):
        if len(known) != 1:
            raise UnsupportedModel(
                f"{classifier.path} is no reward model: it gives {len(known)} figures to a text instead of one.",
                "Name a model with num_labels 1 under utility.reward.",
            )
    elif unknown := [label for label in (*spec.complied, *spec.refused) if label not in known]:
        raise UnsupportedModel(
            f"{classifier.path} has no label {unknown[0]!r}; its labels are {', '.join(known)[:300]}.",
            "Correct labels in the policy.",
        )


def _shares(classifier: Classifier, row: Sequence[float]) -> dict[str, float]:
    """The probability of each label: by a sigmoid where each has its own, else by a softmax."""
    if classifier.independent:
        shares = [0.5 * (1 + math.tanh(figure / 2)) for figure in row]
    else:
        powers = [math.exp(figure - max(row)) for figure in row]
        shares = [power / sum(powers) for power in powers]
    return dict(zip(classifier.labels, shares, strict=True))


def template_form(tokenizer: PreTrainedTokenizerBase, path: Path, generates: bool) -> Form:
    """The model's own chat template with both fields in it; it never sees what will stand there.

    Args:
        generates: whether the model is to write next.

    Raises:
        UnsupportedModel: there is none, or it fails on a request and an answer.
    """
    turns = [{"role": "user", "content": REQUEST}, {"role": "assistant", "content": ANSWER}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generates))
    except Exception as error:  # a template is the model's own program and may raise anything
        raise UnsupportedModel(
            f"The chat template of {path} fails on a request and its answer: {first_line(error)}.",
            "Name a model with a chat template for two turns, or another style.",
        ) from error
    form = form_of(text)
    if form is None:
        raise UnsupportedModel(
            f"The chat template of {path} does not write request and answer once each.", "Name another judge."
        )
    return form


class Writer:
    """Puts questions into a form as tokens, so that nothing in a field can end it.

    Args:
        form: None for the tokenizer's own way to encode two texts.
        outer: whether the tokenizer adds its tokens around the form; a chat template writes them itself.
        heads: see `inert`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, form: Form | None, outer: bool, heads: bool) -> None:
        self.tokenizer, self.form, self.outer, self.heads = tokenizer, form, outer, heads
        added = tokenizer.added_tokens_decoder
        frame = form.filled("", "") if form else ""
        self._tokens = [token.content for token in added.values() if token.special or token.content in frame]
        self._special = {number for number, token in added.items() if token.special} - {tokenizer.unk_token_id}
        self._frame = self._specials(self._encoded("x", "x"))

    def encode(self, question: Question) -> Encoded | None:
        """The question as tokens; None where a field would bring special tokens of its own all the same."""
        fields = (inert(_sendable(text), self._tokens, self.heads) for text in (question.prompt, question.answer))
        encoded = self._encoded(*fields)
        return encoded if self._specials(encoded) == self._frame else None

    def _encoded(self, request: str, answer: str) -> Encoded:
        texts = [self.form.filled(request, answer)] if self.form else [request, answer]
        with quiet():  # a text that is too long is our own affair
            found = self.tokenizer(*texts, add_special_tokens=self.outer or self.form is None)
        return {key: list(found[key]) for key in ("input_ids", "token_type_ids") if key in found}

    def _specials(self, encoded: Encoded) -> list[int]:
        return [number for number in encoded["input_ids"] if number in self._special]


def _sendable(text: str) -> str:
    """Text as UTF-8 can carry it: half a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
