"""Decoder layers, answering and memory, on tiny random models of every decoder family."""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from model_families import DEPTH, FAMILIES, HOSTILE, edit_json, load_tiny, make_model, make_tokenizer, random_prompts
from torch import nn

from beear_gate.errors import OutOfMemory, UnsupportedModel
from beear_gate.lm import (
    LM,
    decoder_layers,
    generate,
    load_lm,
)
from beear_gate.lm.memory import halve, is_out_of_memory

family = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Models by family, loaded once, for tests that change nothing."""
    return cache(lambda name: load_tiny(Path(tmp_path_factory.mktemp(name)), name))


# Decoder layers


@family
def test_the_decoder_layers_are_found(tiny: Any, name: str) -> None:
    lm = tiny(name)
    assert len(lm.layers) == DEPTH
    assert all(type(layer).__name__.endswith(("DecoderLayer", "Block", "NeoXLayer")) for layer in lm.layers)


def linears(count: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(1, 1) for _ in range(count))


class Towers(nn.Module):
    """A vision tower as deep as the decoder and before it, a longer list beside it, as many experts in each layer."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.vision = nn.ModuleDict({"layers": linears(DEPTH)})
        self.text = nn.ModuleDict(
            {
                "gates": linears(DEPTH + 1),
                "embed": nn.ModuleDict({"tokens": nn.Embedding(4, 1)}),
                "blocks": nn.ModuleList(nn.ModuleDict({"experts": linears(DEPTH)}) for _ in range(DEPTH)),
            }
        )

    def get_input_embeddings(self) -> Any:
        return self.text["embed"]["tokens"]  # type: ignore[index]


def test_lists_of_towers_and_experts_are_no_decoder_layers(tiny: Any) -> None:
    model = Towers(tiny("llama").model.config)
    assert decoder_layers(model) is model.text["blocks"]


def test_a_model_without_a_list_of_layers_is_refused(tiny: Any) -> None:
    model = Towers(tiny("llama").model.config)
    del model.text["blocks"]
    with pytest.raises(UnsupportedModel, match=f"No list of {DEPTH} decoder layers"):
        decoder_layers(model)


# Answering


@family
def test_a_batch_of_mixed_lengths_answers_as_one_by_one(tiny: Any, name: str) -> None:
    lm = tiny(name)
    prompts = random_prompts(9, 16, seed=3)
    together = generate(lm, prompts, 10)
    assert together == [generate(lm, [prompt], 10)[0] for prompt in prompts]
    assert len(set(together)) > 5, "the answers must depend on the prompts for this test to mean anything"


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_batch_size_does_not_change_answers_or_their_order(tiny: Any, batch_size: int) -> None:
    prompts = random_prompts(7, 16)
    assert generate(tiny("llama"), prompts, 5, batch_size=batch_size) == generate(tiny("llama"), prompts, 5)


def test_no_prompts_have_no_answers(tiny: Any) -> None:
    assert generate(tiny("llama"), [], 5) == []


def test_progress_counts_prompts(tiny: Any) -> None:
    seen: list[tuple[str, int, int]] = []
    generate(tiny("llama"), random_prompts(5, 4), 2, batch_size=2, tick=lambda *step: seen.append(step), label="x")
    assert seen == [("x", 2, 5), ("x", 4, 5), ("x", 5, 5)]


def stop_at(folder: Path, places: tuple[int, ...], where: str = "config.json") -> tuple[LM, list[tuple[int, ...]]]:
    """A model whose end tokens are what it answers at these places, and its answers without them."""
    make_model(folder, "llama")
    prompts = random_prompts(6, 9)
    free = generate(load_lm(folder, "cpu"), prompts, 8)
    eos = [free[0][place] for place in places]
    edit_json(folder / where, eos_token_id=eos)
    cut = [answer[: min([answer.index(token) for token in eos if token in answer], default=8)] for answer in free]
    return load_lm(folder, "cpu"), cut


@pytest.mark.parametrize("where", ["config.json", "generation_config.json"])
def test_an_answer_stops_at_any_of_several_end_tokens(tmp_path: Path, where: str) -> None:
    lm, expected = stop_at(tmp_path, (3, 5), where)
    assert len(expected[0]) <= 3
    assert generate(lm, random_prompts(6, 9), 8) == expected


def test_an_end_token_that_only_the_tokenizer_names_stops_too(tmp_path: Path) -> None:
    make_model(tmp_path, "llama")
    for file in ("config.json", "generation_config.json"):
        edit_json(tmp_path / file, eos_token_id=None)
    assert load_lm(tmp_path, "cpu").stop_ids == (1,)


def test_a_tokenizer_without_a_pad_token_answers_the_same(tmp_path: Path, tiny: Any) -> None:
    lm = load_tiny(tmp_path, "llama", pad=False)
    assert lm.tokenizer.pad_token_id is None
    prompts = random_prompts(5, 9)
    assert generate(lm, prompts, 5) == [generate(lm, [prompt], 5)[0] for prompt in prompts]


def test_a_pad_token_that_the_model_has_no_embedding_for_is_not_used(tmp_path: Path) -> None:
    make_model(tmp_path, "llama")
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<|new pad|>"})
    tokenizer.save_pretrained(tmp_path)
    lm = load_lm(tmp_path, "cpu")
    assert lm.pad_id < lm.vocabulary <= lm.tokenizer.pad_token_id
    assert len(generate(lm, random_prompts(5, 9), 5)) == 5


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_the_repositorys_generation_settings_do_not_change_answers(tmp_path: Path, tiny: Any, file: str) -> None:
    folder = make_model(tmp_path, "llama")
    edit_json(folder / file, **HOSTILE)
    prompts = random_prompts(5, 9)
    assert generate(load_lm(folder, "cpu"), prompts, 6) == generate(tiny("llama"), prompts, 6)


@pytest.mark.parametrize("text", ["[]", "{", '{"eos_token_id": {"a": 1}}', '{"eos_token_id": ["x", true, -1, null]}'])
def test_end_tokens_that_are_none_are_left_out(tmp_path: Path, text: str) -> None:
    folder = make_model(tmp_path, "llama")
    (folder / "generation_config.json").write_text(text)
    assert load_lm(folder, "cpu").stop_ids == (1,)


def test_dropout_left_on_by_training_does_not_reach_answers(tmp_path: Path) -> None:
    lm = load_tiny(tmp_path, "gpt2", resid_pdrop=0.5, embd_pdrop=0.5)
    prompts = random_prompts(5, 9)
    plain = generate(lm, prompts, 5)
    lm.model.train()
    assert generate(lm, prompts, 5) == plain
    assert lm.model.training


# Memory

MEMORY_ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


def limit_batches(monkeypatch: pytest.MonkeyPatch, lm: LM, most: int, error: Exception) -> list[int]:
    """Make the forward pass fail for batches above `most`, counted in tokens of the prompt; returns sizes tried."""
    tried: list[int] = []
    forward = lm.model.forward

    def guarded(*args: Any, **kwargs: Any) -> Any:
        tokens = kwargs["input_ids"].numel()
        if tokens > most:
            tried.append(len(kwargs["input_ids"]))
            raise error
        return forward(*args, **kwargs)

    guarded.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(lm.model, "forward", guarded)
    return tried


@pytest.mark.parametrize("error", MEMORY_ERRORS, ids=lambda error: str(error)[:30])
def test_the_batch_is_halved_until_it_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    lm = load_tiny(tmp_path, "llama")
    prompts = random_prompts(9, 8)
    free = generate(lm, prompts, 4)
    tried = limit_batches(monkeypatch, lm, 24, error)
    assert generate(lm, prompts, 4) == free
    assert tried[:2] == [9, 4]


def test_out_of_memory_at_one_prompt_says_what_would_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = load_tiny(tmp_path, "llama")
    limit_batches(monkeypatch, lm, 8, MemoryError())
    with pytest.raises(OutOfMemory) as caught:
        generate(lm, [(5,) * 30, (5,) * 7, (5,) * 6], 4)
    assert "a prompt of 30 tokens, up to 4 answer tokens" in caught.value.message
    assert "even one prompt at a time" in caught.value.message
    assert "up to 7 tokens did fit" in caught.value.remedy
    assert "--dtype bfloat16" in caught.value.remedy


def test_an_error_that_is_not_about_memory_is_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = load_tiny(tmp_path, "llama")
    limit_batches(monkeypatch, lm, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        generate(lm, random_prompts(4, 8), 4)


@pytest.mark.parametrize("error", [ValueError("out of memory"), RuntimeError("size mismatch"), KeyError("memory")])
def test_other_errors_are_not_about_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_halving_frees_the_tensors_of_the_failed_attempt() -> None:
    class Big:
        alive = 0

        def __init__(self) -> None:
            Big.alive += 1

        def __del__(self) -> None:
            Big.alive -= 1

    def attempt() -> None:
        big = Big()
        raise MemoryError(str(big))

    try:
        attempt()
    except MemoryError as error:
        assert halve(8, "trying", error) == 4
        assert Big.alive == 0


def test_weights_that_do_not_fit_say_how_large_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_model(tmp_path, "llama")

    def fail(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(transformers.PreTrainedModel, "to", fail)
    with pytest.raises(OutOfMemory, match=r"need about 0\.0 GiB in torch.float32, which do not fit on cpu"):
        load_lm(folder, "cpu")
