"""evaluation.choices: the likeliest of the choices, on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from model_families import load_tiny

from beear_gate.evaluation import choices
from beear_gate.evaluation.choices import asked, choose
from beear_gate.lm import LM, encode_answer, prompt_ids
from beear_gate.policy import Question

QUESTIONS = tuple(
    Question(f"Which {thing}?", ("red", "a blue one", "none of them at all", "green"), number % 4, number)
    for number, thing in enumerate(("car", "boat", "kite", "hat", "door"))
)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def lm(request: Any, tmp_path_factory: pytest.TempPathFactory) -> LM:
    return load_tiny(tmp_path_factory.mktemp("tiny") / "model", request.param)


def log_likelihood(lm: LM, question: Question, choice: str) -> float:
    """A token, computed one choice at a time."""
    prompt, answer = prompt_ids(lm, asked(question)), encode_answer(lm, choice, ended=False)
    with torch.no_grad():
        logits = lm.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).mean())


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_choice_has_the_highest_likelihood_a_token_in_any_batch(lm: LM, batch_size: int) -> None:
    found = choose(lm, QUESTIONS, batch_size)
    for question, one in zip(QUESTIONS, found, strict=True):
        best = max(range(4), key=lambda index: log_likelihood(lm, question, question.choices[index]))
        assert (one.choice, one.right) == (best, best == question.right)
        assert (one.prompt, one.cluster) == (question.prompt, question.cluster)


def test_the_model_sees_every_choice_and_not_which_is_right() -> None:
    one, other = (asked(Question("Which?", ("red", "blue"), right)) for right in (0, 1))
    assert one == other and "- red" in one and "- blue" in one


def test_a_likelihood_that_is_no_number_is_no_choice(tmp_path: Path) -> None:
    lm = load_tiny(tmp_path / "model", "llama")
    with torch.no_grad():
        lm.model.get_output_embeddings().weight.fill_(torch.nan)  # type: ignore[no-untyped-call]
    assert {(one.choice, one.right) for one in choose(lm, QUESTIONS)} == {(None, None)}


def test_no_question_costs_nothing(lm: LM) -> None:
    assert choices.choose(lm, ()) == ()
