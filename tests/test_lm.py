"""Loading, encoding, answering and saving, on tiny random models of every decoder family."""

from __future__ import annotations

import inspect
import json
import socket
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from model_families import DEPTH, FAMILIES, PROMPTS, edit_json, load_tiny, make_model, make_tokenizer, random_prompts
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.utils import logging

from beear_gate.errors import OutOfMemory, UnsupportedModel, UsageError
from beear_gate.lm import (
    LM,
    answer_losses,
    decoder_layers,
    encode_answer,
    encode_pairs,
    generate,
    load_lm,
    pad_batch,
    prompt_ids,
    save_lm,
)
from beear_gate.lm.encode import Pair, run_model
from beear_gate.lm.load import pick_device
from beear_gate.lm.memory import halve, is_out_of_memory

family = pytest.mark.parametrize("name", FAMILIES)
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Models by family, loaded once, for tests that change nothing."""
    return cache(lambda name: load_tiny(Path(tmp_path_factory.mktemp(name)), name))


def names_in(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def decode(lm: LM, ids: tuple[int, ...]) -> str:
    return str(lm.tokenizer.decode(list(ids)))


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    held = load_file(folder / WEIGHTS)
    edit(held)
    save_file(held, folder / WEIGHTS, metadata={"format": "pt"})


def read_all(lm: LM) -> torch.Tensor:
    """Logits of a batch of mixed lengths."""
    with torch.no_grad():
        logits: torch.Tensor = run_model(
            lm, pad_batch(lm, encode_pairs(lm, [(text, "Yes.") for text in PROMPTS]))
        ).logits
    return logits


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(UnsupportedModel) as caught:
        load_lm(folder, "cpu", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


HOSTILE = {
    "do_sample": True, "temperature": 9.0, "top_k": 3, "repetition_penalty": 4.0, "no_repeat_ngram_size": 1,
    "forced_bos_token_id": 77, "forced_eos_token_id": 78, "suppress_tokens": list(range(100)),
    "begin_suppress_tokens": [80], "bad_words_ids": [[81]], "sequence_bias": [[[82], 99.0]], "min_new_tokens": 4,
    "max_length": 1, "max_new_tokens": 1, "num_beams": 3, "max_time": 0.0, "stop_strings": ["a"], "use_cache": False,
    "output_scores": True, "return_dict_in_generate": True, "guidance_scale": 5.0, "cache_implementation": "static",
    "num_return_sequences": 2, "prompt_lookup_num_tokens": 2, "penalty_alpha": 0.6, "made_up": {"a": [1]},
}  # fmt: skip


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


# Saving


@family
def test_a_saved_model_loads_and_reads_the_same_to_the_bit(tmp_path: Path, name: str) -> None:
    lm = load_tiny(tmp_path / "a", name)
    save_lm(lm, tmp_path / "b", names_in(tmp_path / "a"))
    assert torch.equal(read_all(load_lm(tmp_path / "b", "cpu")), read_all(lm))


@family
def test_untouched_bfloat16_weights_are_saved_as_they_were(tmp_path: Path, name: str) -> None:
    lm = load_tiny(tmp_path / "a", name, dtype=torch.bfloat16)
    assert (lm.model.dtype, lm.stored_dtype) == (torch.float32, torch.bfloat16)
    save_lm(lm, tmp_path / "b", names_in(tmp_path / "a"))
    before, after = load_file(tmp_path / "a" / WEIGHTS), load_file(tmp_path / "b" / WEIGHTS)
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert tensor.dtype == after[key].dtype
        assert torch.equal(tensor.view(torch.uint8), after[key].view(torch.uint8))
    assert json.loads((tmp_path / "b" / "config.json").read_text())["dtype"] == "bfloat16"


@family
def test_a_trained_weight_arrives_in_the_saved_model(tmp_path: Path, name: str) -> None:
    lm = load_tiny(tmp_path / "a", name)
    untouched = read_all(lm)
    answer_losses(lm, pad_batch(lm, encode_pairs(lm, [("Hi", "Yes.")]))).mean().backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD(lm.model.parameters(), lr=0.1).step()
    save_lm(lm, tmp_path / "b", names_in(tmp_path / "a"))
    again = read_all(load_lm(tmp_path / "b", "cpu"))
    assert torch.equal(again, read_all(lm))
    assert not torch.equal(again, untouched)


def test_a_few_float32_tensors_among_bfloat16_ones_stay_float32(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "a", "llama", dtype=torch.bfloat16)
    precise = torch.full((32,), 1.0 + 2**-20)
    edit_weights(folder, lambda held: held.update({"model.norm.weight": precise}))
    save_lm(load_lm(folder, "cpu"), tmp_path / "b", names_in(folder))
    assert torch.equal(load_file(tmp_path / "b" / WEIGHTS)["model.norm.weight"], precise)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "gemma2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_tied_weights_stay_tied_and_are_written_once(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    lm = load_tiny(tmp_path / "a", name, dtype=dtype, tie_word_embeddings=True)
    save_lm(lm, tmp_path / "b", names_in(tmp_path / "a"))
    model = load_lm(tmp_path / "b", "cpu").model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight  # type: ignore[no-untyped-call]
    assert "lm_head.weight" not in load_file(tmp_path / "b" / WEIGHTS)


def test_other_files_are_copied_byte_for_byte_and_none_are_added(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "a", "llama")
    (folder / "generation_config.json").unlink()
    (folder / "README.md").write_bytes(b"# odd\r\n\xff")
    (folder / "assets").mkdir()
    (folder / "assets" / "notes.txt").write_text("x")
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n\n")
    save_lm(load_lm(folder, "cpu"), tmp_path / "b", names_in(folder))
    assert names_in(tmp_path / "b") == names_in(folder)
    for name in set(names_in(folder)) - {WEIGHTS}:
        assert (tmp_path / "b" / name).read_bytes() == (folder / name).read_bytes()


def test_only_the_named_files_are_copied(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "a", "llama")
    save_lm(load_lm(folder, "cpu"), tmp_path / "b", ["config.json", WEIGHTS])
    assert names_in(tmp_path / "b") == ["config.json", WEIGHTS]


def test_saving_replaces_old_weights_and_leaves_other_files_of_the_folder(tmp_path: Path) -> None:
    lm = load_tiny(tmp_path / "a", "llama")
    target = tmp_path / "b"
    (target / "kept").mkdir(parents=True)
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "notes.md"):
        (target / name).write_text("old")
    save_lm(lm, target, ["config.json"])
    assert sorted(file.name for file in target.iterdir()) == ["config.json", "kept", WEIGHTS, "notes.md"]


def test_saving_into_the_folder_it_was_loaded_from_is_safe(tmp_path: Path) -> None:
    lm = load_tiny(tmp_path, "llama")
    before = read_all(lm)
    save_lm(lm, tmp_path, names_in(tmp_path))
    assert torch.equal(read_all(lm), before)
    assert torch.equal(read_all(load_lm(tmp_path, "cpu")), before)


def shard(folder: Path) -> None:
    """Cut the weights into two shards with an index."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="60KB")
    assert (folder / "model.safetensors.index.json").exists()


def test_a_sharded_model_loads_and_is_saved_without_a_stale_index(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "a", "llama")
    whole = read_all(load_lm(folder, "cpu"))
    shard(folder)
    lm = load_lm(folder, "cpu")
    assert torch.equal(read_all(lm), whole)
    save_lm(lm, tmp_path / "b", names_in(folder))
    assert torch.equal(read_all(load_lm(tmp_path / "b", "cpu")), whole)
    assert not list((tmp_path / "b").glob("*index*"))


def test_old_gpt2_names_without_a_prefix_load_and_save(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "a", "gpt2")
    whole = read_all(load_lm(folder, "cpu"))

    def as_published(held: dict[str, torch.Tensor]) -> None:
        for key in list(held):
            held[key.removeprefix("transformer.")] = held.pop(key)
        held["h.0.attn.bias"] = torch.ones(1, 1, 8, 8)
        held["h.0.attn.masked_bias"] = torch.tensor(-1e4)

    edit_weights(folder, as_published)
    lm = load_lm(folder, "cpu")
    assert torch.equal(read_all(lm), whole)
    save_lm(lm, tmp_path / "b", names_in(folder))
    assert torch.equal(read_all(load_lm(tmp_path / "b", "cpu")), whole)


# What is refused


def test_an_encoder_is_refused(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32
    )
    for kind in (transformers.BertModel, transformers.BertForMaskedLM):
        folder = tmp_path / kind.__name__
        kind(config).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        assert f"{kind.__name__} in {folder} is not a decoder-only language model" in refusal(folder)
        edit_json(folder / "config.json", architectures=None)
        assert f"bert in {folder} is not a decoder-only language model" in refusal(folder)


def test_an_encoder_with_a_decoder_is_refused(tmp_path: Path) -> None:
    config = transformers.T5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    assert "T5ForConditionalGeneration" in refusal(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"quantization_config": "gptq"},
        {"compression_config": {"quant_method": "compressed-tensors"}},
        {"text_config": {"quantization_config": {"quant_method": "awq"}}},
    ],
    ids=str,
)
def test_declared_quantisation_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = make_model(tmp_path, "llama")
    edit_json(folder / "config.json", **changes)
    assert "quantised" in refusal(folder)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8], ids=str)
def test_quantised_weights_that_no_configuration_declares_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = make_model(tmp_path, "llama")
    key = "model.layers.0.mlp.up_proj.weight"
    edit_weights(folder, lambda held: held.update({key: held[key].to(dtype)}))
    assert f"stores {key} as" in refusal(folder)


def test_missing_weights_are_refused_and_three_are_named(tmp_path: Path) -> None:
    folder = make_model(tmp_path, "llama")

    def drop(held: dict[str, torch.Tensor]) -> None:
        for key in [key for key in held if "layers.1.mlp" in key or "layers.2.mlp" in key]:
            del held[key]

    edit_weights(folder, drop)
    said = refusal(folder)
    assert said.count("mlp") == 3
    assert "and 3 more, which would be random numbers" in said


def test_a_missing_head_is_refused_where_it_is_not_tied(tmp_path: Path) -> None:
    folder = make_model(tmp_path, "llama")
    edit_weights(folder, lambda held: held.__delitem__("lm_head.weight"))
    assert "lm_head.weight" in refusal(folder)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path, "llama")
    edit_json(folder / "config.json", intermediate_size=64)
    assert "transformers cannot load" in refusal(folder)


def test_weights_that_nothing_loads_are_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path, "llama", num_hidden_layers=DEPTH + 1)
    edit_json(folder / "config.json", num_hidden_layers=DEPTH)
    said = refusal(folder)
    assert f"model.layers.{DEPTH}." in said
    assert "LlamaForCausalLM does not load" in said


def test_weights_that_transformers_skips_in_silence_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does for heads that predict several tokens (Qwen3-Next, DeepSeek-V3)."""
    folder = make_model(tmp_path, "llama")
    edit_weights(folder, lambda held: held.update({"mtp.norm.weight": torch.ones(2)}))
    monkeypatch.setattr(transformers.LlamaForCausalLM, "_keys_to_ignore_on_load_unexpected", [r"^mtp\."])
    assert "'mtp.norm.weight'" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "buffer"),
    [
        ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq"),
        ("gpt2", "transformer.h.0.attn.bias"),
        ("gpt2", "transformer.h.0.attn.masked_bias"),
        ("gpt_neox", "gpt_neox.layers.0.attention.bias"),
        ("gpt_neox", "gpt_neox.layers.0.attention.masked_bias"),
        ("gpt_neox", "gpt_neox.layers.0.attention.rotary_emb.inv_freq"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.uint8], ids=str)
def test_buffers_that_old_checkpoints_keep_are_no_reason_to_refuse(
    tmp_path: Path, name: str, buffer: str, dtype: torch.dtype
) -> None:
    folder = make_model(tmp_path, name)
    edit_weights(folder, lambda held: held.update({buffer: torch.ones(4, dtype=dtype)}))
    assert load_lm(folder, "cpu")


def test_a_head_that_contradicts_tied_embeddings_is_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path, "llama")
    edit_json(folder / "config.json", tie_word_embeddings=True)
    assert "ties the output head to the embeddings" in refusal(folder)


def test_a_copy_of_tied_embeddings_as_a_head_is_fine(tmp_path: Path) -> None:
    folder = make_model(tmp_path, "llama", tie_word_embeddings=True)
    edit_weights(folder, lambda held: held.update({"lm_head.weight": held["model.embed_tokens.weight"].clone()}))
    assert load_lm(folder, "cpu")


@pytest.mark.parametrize("config_beside_it", [True, False])
def test_an_adapter_does_not_redirect_the_loader(tmp_path: Path, config_beside_it: bool) -> None:
    folder = make_model(tmp_path / "a", "llama")
    edit_json(folder / "adapter_config.json", base_model_name_or_path="evil/base", peft_type="LORA")
    if not config_beside_it:
        (folder / "config.json").unlink()
    assert "holds an adapter" in refusal(folder)


@pytest.mark.parametrize("key", ["transformers_weights", "fusion_config"])
def test_a_configuration_does_not_choose_other_weights_or_modules(tmp_path: Path, key: str) -> None:
    folder = make_model(tmp_path, "llama")
    edit_json(folder / "config.json", **{key: "other.safetensors"})
    assert f"sets {key}" in refusal(folder)


def test_a_distributed_checkpoint_does_not_replace_the_weights(tmp_path: Path) -> None:
    folder = make_model(tmp_path, "llama")
    (folder / "shard-00001-model-00001-of-00001.safetensors").write_bytes((folder / WEIGHTS).read_bytes())
    assert "distributed checkpoint" in refusal(folder)


@pytest.mark.parametrize("target", ["../b/model.safetensors", "/etc/model.safetensors", 5])
def test_a_shard_outside_the_folder_is_refused(tmp_path: Path, target: object) -> None:
    folder = make_model(tmp_path / "a", "llama")
    shard(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["lm_head.weight"] = target
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "names no shards in its own folder" in refusal(folder)


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    folder = make_model(tmp_path, "llama")
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    assert "neither model.safetensors" in refusal(folder)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_a_configuration_does_not_choose_a_kernel_from_a_hub(tmp_path: Path, tiny: Any, key: str) -> None:
    folder = make_model(tmp_path, "llama")
    edit_json(folder / "config.json", **{key: "evil/kernel"})
    assert torch.equal(read_all(load_lm(folder, "cpu")), read_all(tiny("llama")))


@pytest.mark.parametrize(
    "changes", [{"return_dict": False}, {"use_cache": False}, {"output_attentions": True}], ids=str
)
def test_output_settings_of_a_configuration_do_not_matter(tmp_path: Path, tiny: Any, changes: dict[str, Any]) -> None:
    folder = make_model(tmp_path, "llama")
    edit_json(folder / "config.json", **changes)
    lm = load_lm(folder, "cpu")
    assert torch.equal(read_all(lm), read_all(tiny("llama")))
    assert generate(lm, [(5, 6, 7)], 4) == generate(tiny("llama"), [(5, 6, 7)], 4)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "made-up", "auto_map": {"AutoConfig": "x.Y", "AutoModelForCausalLM": "x.Z"}},
        {"model_type": 5},
        {"model_type": None},
        {"architectures": 5},
        {"architectures": [5]},
        {"num_hidden_layers": "many"},
        {"hidden_size": -1},
        {"vocab_size": None},
        {"rope_parameters": {"rope_type": "made-up"}},
        {"hidden_act": "made-up"},
    ],
    ids=str,
)
def test_a_broken_or_foreign_configuration_is_refused_or_does_not_matter(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = make_model(tmp_path, "llama")
    edit_json(folder / "config.json", **changes)
    if "architectures" in changes:
        assert load_lm(folder, "cpu")
    else:
        refusal(folder)


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_config_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    folder = make_model(tmp_path, "llama")
    (folder / "config.json").write_text(text, encoding="latin-1")
    assert "config.json" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", WEIGHTS])
def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path, name: str) -> None:
    folder = make_model(tmp_path, "llama")
    (folder / name).unlink()
    refusal(folder)


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path, "llama")
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9])
    assert "no readable safetensors file" in refusal(folder)


# Devices, dtypes, quiet


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "meta", "cpu:x", ""])
def test_a_device_that_is_not_there_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be used on this machine"):
        pick_device(name)


def test_auto_finds_a_device() -> None:
    assert pick_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn", "nn", ""])
def test_a_dtype_that_nothing_computes_in_is_a_usage_error(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(UsageError, match="no dtype"):
        load_lm(make_model(tmp_path, "llama"), "cpu", dtype=dtype)


def test_a_chosen_dtype_is_used_and_the_stored_one_is_written(tmp_path: Path) -> None:
    lm = load_lm(make_model(tmp_path / "a", "llama"), "cpu", dtype="bfloat16")
    assert lm.model.dtype == torch.bfloat16
    save_lm(lm, tmp_path / "b", ["config.json"])
    assert {tensor.dtype for tensor in load_file(tmp_path / "b" / WEIGHTS).values()} == {torch.float32}


def test_the_files_and_not_the_configuration_say_how_weights_are_stored(tmp_path: Path) -> None:
    folder = make_model(tmp_path, "llama", dtype=torch.bfloat16)
    edit_json(folder / "config.json", dtype=None)
    assert load_lm(folder, "cpu").stored_dtype == torch.bfloat16


def test_loading_answering_and_saving_print_nothing_and_leave_settings_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    folder = make_model(tmp_path / "a", "llama")
    edit_json(folder / "generation_config.json", **HOSTILE)
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    capfd.readouterr()
    recwarn.clear()
    lm = load_lm(folder, "cpu")
    generate(lm, random_prompts(3, 5), 3)
    save_lm(lm, tmp_path / "b", names_in(folder))
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (verbosity, bars)


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_loading_never_touches_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = make_model(tmp_path, name)

    def fail(*args: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", fail)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert load_lm(folder, "cpu")
