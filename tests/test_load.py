"""Loading and saving, and what is refused, on tiny random models of every decoder family."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from model_families import (
    DEPTH,
    FAMILIES,
    HOSTILE,
    PROMPTS,
    edit_json,
    load_tiny,
    make_model,
    make_tokenizer,
    random_prompts,
)
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from beear_gate.errors import UnsupportedModel, UsageError
from beear_gate.lm import (
    LM,
    answer_losses,
    encode_pairs,
    generate,
    load_lm,
    pad_batch,
    save_lm,
)
from beear_gate.lm.encode import run_model
from beear_gate.lm.load import pick_device

family = pytest.mark.parametrize("name", FAMILIES)
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Models by family, loaded once, for tests that change nothing."""
    return cache(lambda name: load_tiny(Path(tmp_path_factory.mktemp(name)), name))


def names_in(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


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
