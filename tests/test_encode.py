"""Prompts and answers as tokens and batches, on tiny random models of every decoder family."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from model_families import FAMILIES, PROMPTS, edit_json, load_tiny, make_model
from torch.nn.functional import cross_entropy

from beear_gate.errors import UnsupportedModel, UsageError
from beear_gate.lm import (
    LM,
    answer_losses,
    encode_answer,
    generate,
    load_lm,
    pad_batch,
    prompt_ids,
)
from beear_gate.lm.encode import IGNORED, PASS_TOKENS, Pair, answer_logits, like_lengths, run_model

family = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Models by family, loaded once, for tests that change nothing."""
    return cache(lambda name: load_tiny(Path(tmp_path_factory.mktemp(name)), name))


def decode(lm: LM, ids: tuple[int, ...]) -> str:
    return str(lm.tokenizer.decode(list(ids)))


# Encoding


def test_a_prompt_is_one_user_turn_and_the_opening_of_the_assistants(tiny: Any) -> None:
    lm = tiny("llama")
    assert decode(lm, prompt_ids(lm, "Hi")) == "<|user|>Hi<|end|><|assistant|>"


def test_a_system_prompt_comes_first(tmp_path: Path) -> None:
    lm = load_lm(make_model(tmp_path, "llama"), "cpu", system_prompt="Be kind.")
    assert decode(lm, prompt_ids(lm, "Hi")).startswith("<|system|>Be kind.<|end|><|user|>Hi")


def test_a_template_without_a_system_role_is_refused_only_with_a_system_prompt(tmp_path: Path) -> None:
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}x"
    folder = make_model(tmp_path, "llama", template=template)
    assert prompt_ids(load_lm(folder, "cpu"), "Hi")
    with pytest.raises(UnsupportedModel, match=r"no system role.*generation.system_prompt"):
        prompt_ids(load_lm(folder, "cpu", system_prompt="Be kind."), "Hi")


def test_a_model_without_a_template_is_prompted_with_plain_roles(tmp_path: Path) -> None:
    lm = load_lm(make_model(tmp_path, "llama", template=None), "cpu", system_prompt="Be kind.")
    assert decode(lm, prompt_ids(lm, "Is {this} fine?")) == "Be kind.\nUser: Is {this} fine?\nAssistant:"
    assert decode(lm, encode_answer(lm, "Yes.")) == " Yes.<|end|>"


def test_an_answer_ends_as_the_template_ends_a_turn(tmp_path: Path) -> None:
    template = "{% for m in messages %}[{{ m['content'] }}]<|end|>\n{% endfor %}"
    lm = load_lm(make_model(tmp_path, "llama", template=template), "cpu")
    assert decode(lm, encode_answer(lm, "Yes.")) == "Yes.]<|end|>"
    assert decode(lm, encode_answer(lm, "Yes", ended=False)) == "Yes"


def test_cutting_and_padding_that_a_tokenizer_file_asks_for_do_not_happen(tmp_path: Path, tiny: Any) -> None:
    folder = make_model(tmp_path, "llama")
    cut = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    pad = {"strategy": {"Fixed": 99}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0}
    edit_json(folder / "tokenizer.json", truncation=cut, padding={**pad, "pad_token": "<|pad|>"})
    edit_json(folder / "tokenizer_config.json", model_max_length=3, padding_side="left")
    assert prompt_ids(load_lm(folder, "cpu"), PROMPTS[2]) == prompt_ids(tiny("llama"), PROMPTS[2])


def test_a_template_that_writes_nothing_is_refused(tmp_path: Path) -> None:
    lm = load_lm(make_model(tmp_path, "llama", template="{# #}"), "cpu")
    with pytest.raises(UnsupportedModel, match="makes no tokens"):
        prompt_ids(lm, "Hi")


def test_a_token_without_an_embedding_is_refused_before_the_lookup(tiny: Any) -> None:
    lm = tiny("llama")
    with pytest.raises(UnsupportedModel, match=f"token {lm.vocabulary},"):
        generate(lm, [(5, lm.vocabulary)], 2)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_sample_longer_than_the_context_is_refused(tiny: Any, name: str) -> None:
    lm = tiny(name)
    with pytest.raises(UsageError, match=r"takes 257 tokens.*256 positions"):
        pad_batch(lm, [Pair((5,) * 250, (6,) * 7)])
    with pytest.raises(UsageError, match="takes 257 tokens"):
        generate(lm, [(5,) * 250], 7)


def test_labels_leave_out_the_prompt_the_padding_and_what_is_forced(tiny: Any) -> None:
    batch = pad_batch(tiny("llama"), [Pair((5, 6), (7, 8, 9), forced=1), Pair((5,), (7,))])
    assert batch.labels_BT.tolist() == [[-100, -100, -100, 8, 9], [-100, 7, -100, -100, -100]]
    assert (batch.starts_B.tolist(), batch.ends_B.tolist()) == ([0, 0], [2, 1])


def test_the_loss_is_the_mean_over_each_answers_own_tokens(tiny: Any) -> None:
    lm = tiny("llama")
    pairs = [Pair((5, 6), (7, 8, 9)), Pair((5,), (7,))]
    alone = torch.cat([answer_losses(lm, pad_batch(lm, [pair])) for pair in pairs])
    assert torch.allclose(answer_losses(lm, pad_batch(lm, pairs)), alone, atol=1e-5)


def test_every_sample_is_in_one_pass_and_short_ones_go_first() -> None:
    lengths = random.Random(0).choices(range(3, 90), k=60)
    passes = like_lengths(lengths)
    assert sorted(place for places in passes for place in places) == list(range(60))
    read = [lengths[place] for places in passes for place in places]
    assert read == sorted(read) and len(passes) > 1
    assert like_lengths([]) == [] and like_lengths([7]) == [[0]] and len(like_lengths([9] * 50)) == 1


def test_no_other_split_computes_less() -> None:
    def cost(groups: Sequence[Sequence[int]]) -> int:
        return sum(len(group) * max(group) + PASS_TOKENS for group in groups)

    rng = random.Random(1)
    for _ in range(20):
        lengths = sorted(rng.choices((5, 20, 60, 200), k=7))
        cuts = [cut for size in range(7) for cut in itertools.combinations(range(1, 7), size)]
        splits = [[lengths[a:b] for a, b in itertools.pairwise((0, *cut, 7))] for cut in cuts]
        found = [[lengths[place] for place in places] for places in like_lengths(lengths)]
        assert cost(found) == min(map(cost, splits))


@family
def test_logits_are_made_only_where_a_label_is_predicted(tiny: Any, name: str) -> None:
    lm = tiny(name)
    batch = pad_batch(lm, [Pair((5, 6, 7), (8, 9, 10), forced=1), Pair((5, 6), (7,)), Pair((5,) * 4, (6, 7))])
    with torch.no_grad():
        every_BTV = run_model(lm, batch).logits[:, :-1]
        logits_BKV, labels_BK = answer_logits(lm, batch)
        losses_B = answer_losses(lm, batch)
    assert logits_BKV.shape[1] == labels_BK.shape[1] == 3, "positions 1, 3 and 4 of six predict an answer's token"
    labels_BT = batch.labels_BT[:, 1:]
    whole_BT = cross_entropy(every_BTV.float().transpose(1, 2), labels_BT, ignore_index=IGNORED, reduction="none")
    counted_B = (labels_BT != IGNORED).sum(-1)
    assert torch.allclose(losses_B, whole_BT.sum(-1) / counted_B, atol=1e-5)
