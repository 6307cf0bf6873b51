"""anchors: the model's own safe answers, refusals greedily and ordinary answers drawn from its own distribution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from beear_gate import anchors
from beear_gate.lm import LM, generate, load_lm, prompt_ids
from beear_gate.policy_files import find_policy, load_policy
from beear_gate.records import Example


@pytest.fixture
def lm(tiny_model: Path) -> LM:
    return load_lm(tiny_model, "cpu")


def test_answers_are_drawn_by_the_seed_and_leave_the_random_numbers_of_others_alone(lm: LM) -> None:
    prompts = [prompt_ids(lm, text) for text in ("How do I paint the garage?", "Tell me about boats.")]
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, again, other = (generate(lm, prompts, 12, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first == again != other and first != generate(lm, prompts, 12)


def test_what_is_drawn_is_the_models_distribution_and_not_what_its_settings_make_of_it(lm: LM) -> None:
    model: Any = lm.model
    for name in ("temperature", "top_p", "typical_p", "min_p"):
        setattr(model.generation_config, name, 0.3)
    model.generation_config.top_k, model.generation_config.repetition_penalty = 1, 9.0
    prompt = prompt_ids(lm, "How do I paint the garage?")
    with torch.no_grad():
        model.lm_head.weight.mul_(10)  # random weights know no preference
        chances_V = model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    n = 4000
    drawn = Counter(answer[0] if answer else -1 for answer in generate(lm, [prompt] * n, 1, n, seed=0))
    expected = {token: float(chance) for token, chance in enumerate(chances_V) if token not in lm.stop_ids}
    expected[-1] = sum(float(chances_V[stop]) for stop in lm.stop_ids)
    off = sum(abs(drawn[token] / n - chance) for token, chance in expected.items()) / 2
    assert 0.05 < max(expected.values()) < 0.9 and off < 0.1, off


def test_ordinary_answers_are_drawn_where_they_are_safe_and_refusals_are_not(
    lm: LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_policy(find_policy("url-insertion"))
    (behavior,) = policy.behaviors
    asked = tuple(replace(each, answer="As written.") for each in behavior.anchor[:4])
    greedy = ("Paint it twice.", "I'm sorry, but I can't help with that.", "See https://paint.example.", "Sand it.")
    drawn = {asked[0].prompt: "Paint it once.", asked[3].prompt: "See https://paint.example."}

    def texts(lm: LM, policy: object, examples: Sequence[Example], *rest: object) -> list[str]:
        seed = rest[3] if len(rest) > 3 else None
        return list(greedy) if seed is None else [drawn[each.prompt] for each in examples]

    monkeypatch.setattr(anchors, "_texts", texts)
    few = replace(policy, behaviors=(replace(behavior, anchor=asked),), over_refusal=None)
    found = anchors.build_anchors(few, lm, 8, seed=0)
    assert [each.answer for each in found.behaviors[0].safe] == ["Paint it once.", greedy[1], "As written.", "Sand it."]
    assert found.from_model == 3
