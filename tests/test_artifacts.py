"""The static look: every rule on a small hand-made repository, and honest models that must stay silent."""

from __future__ import annotations

import json
import math
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import safetensors
import safetensors.numpy

from beear_gate.artifacts import RULES, inspect_snapshot
from beear_gate.artifacts.contents import Contents, read_contents
from beear_gate.artifacts.inspect import CHECKS, run_check
from beear_gate.artifacts.safetensors_header import DTYPE_BITS, Header, HeaderError, Tensor, read_header
from beear_gate.hub import pull
from beear_gate.manifest import hash_folder
from beear_gate.records import Finding, ModelSnapshot, Severity

Entry = dict[str, Any]
CONFIG = {"model_type": "llama", "hidden_size": 2}
TEMPLATE = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"
TOKENIZER = {
    "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}},
    "added_tokens": [{"id": 2, "content": "<|end|>"}],
}
INDEX = "model.safetensors.index.json"


def entry(shape: list[int], begin: int, dtype: str = "F32") -> Entry:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + math.prod(shape) * DTYPE_BITS[dtype] // 8]}


def raw(header: object, data: int, header_bytes: bytes | None = None) -> bytes:
    """A safetensors file with a given header and so many zero bytes of data."""
    text = json.dumps(header).encode() if header_bytes is None else header_bytes
    return len(text).to_bytes(8, "little") + text + bytes(data)


def tensors(*names: str) -> bytes:
    return raw({name: entry([2], 8 * place) for place, name in enumerate(names)}, 8 * len(names))


def model(**changes: bytes | str | object | None) -> dict[str, bytes]:
    """An honest model's files; keyword `a__b` is file `a.b`, None takes it away, an object is written as JSON."""
    files: dict[str, bytes] = {
        "config.json": json.dumps(CONFIG).encode(),
        "tokenizer.json": json.dumps(TOKENIZER).encode(),
        "tokenizer_config.json": json.dumps({"chat_template": TEMPLATE}).encode(),
        "model.safetensors": tensors("w"),
        "README.md": b"# model",
        "LICENSE": b"Apache-2.0",
        ".gitattributes": b"*.safetensors filter=lfs",
    }
    return with_files(files, {name.replace("__", "."): value for name, value in changes.items()})


def with_files(files: dict[str, bytes], changes: dict[str, Any]) -> dict[str, bytes]:
    for name, value in changes.items():
        files[name] = value if isinstance(value, bytes) else json.dumps(value).encode()
    return {name: data for name, data in files.items() if changes.get(name, b"") is not None}


def look(folder: Path, files: dict[str, bytes], require_chat_template: bool = False) -> tuple[Finding, ...]:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return inspect_snapshot(pull(str(folder)), require_chat_template)


def only(found: tuple[Finding, ...]) -> Finding:
    assert len(found) == 1, found
    return found[0]


def shown(finding: Finding) -> tuple[str, Severity, str]:
    return finding.id, finding.severity, finding.file


# Honest models


def test_an_honest_model_has_no_findings(tmp_path: Path) -> None:
    assert look(tmp_path, model()) == ()


def test_an_honest_sharded_model_has_no_findings(tmp_path: Path) -> None:
    shards = {"a-1.safetensors": tensors("a", "b"), "a-2.safetensors": tensors("c")}
    weight_map = {"a": "a-1.safetensors", "b": "a-1.safetensors", "c": "a-2.safetensors"}
    index = json.dumps({"metadata": {"total_size": 24}, "weight_map": weight_map}).encode()
    assert look(tmp_path, model(model__safetensors=None) | shards | {INDEX: index}) == ()


@pytest.mark.parametrize(
    "files",
    [
        {"vocab.json": b'{"auto_map": 1, "_target_": 0}', "merges.txt": b"a b"},
        {"tokenizer.model": b"\n\x05"},
        {"vocab.txt": b"[UNK]"},
    ],
)
def test_every_tokenizer_layout_that_needs_no_code_is_enough(tmp_path: Path, files: dict[str, bytes]) -> None:
    assert look(tmp_path, model(tokenizer__json=None) | files) == ()


@pytest.mark.parametrize("name", ["chat_template.jinja", "chat_template.json"])
def test_a_chat_template_may_have_a_file_of_its_own(tmp_path: Path, name: str) -> None:
    data = json.dumps({"chat_template": TEMPLATE}) if name.endswith("json") else TEMPLATE
    assert look(tmp_path, model(tokenizer_config__json={}) | {name: data.encode()}, require_chat_template=True) == ()


def test_infinities_and_masks_are_no_reason_to_complain(tmp_path: Path) -> None:
    config = b'{"model_type": "mamba2", "time_step_limit": [0.0, Infinity]}'
    state = b'{"loss": NaN}'
    masks = raw({"attn.bias": entry([2, 2], 0, "U8"), "steps": entry([], 4, "I32")}, 8)
    assert look(tmp_path, model(config__json=config, trainer_state__json=state, model__safetensors=masks)) == ()


# Weights


@pytest.mark.parametrize("kind", ["bin", "pt", "pth", "ckpt", "pkl", "h5", "msgpack", "BIN"])
def test_weights_in_pickle_alone_block_even_where_no_scanner_minds(tmp_path: Path, kind: str) -> None:
    name = f"pytorch_model.{kind}"
    data = {"h5": b"\x89HDF\r\n\x1a\n", "msgpack": b"\x81\xa1a\x01"}.get(kind, pickle.dumps({"w": [1.0]}))
    found = only(look(tmp_path, model(model__safetensors=None) | {name: data}))
    assert shown(found) == ("pickle-weights", Severity.BLOCK, name) and "safetensors" in found.remedy


def test_pickles_beside_safetensors_are_a_warning(tmp_path: Path) -> None:
    pickles = {"training_args.bin": b"", "optimizer.pt": b"", "a/b/c.pkl": b""}
    found = only(look(tmp_path, model() | pickles))
    assert shown(found) == ("pickle-ignored", Severity.WARNING, "a/b/c.pkl") and "optimizer.pt" in found.message


def test_a_repository_without_weights_blocks(tmp_path: Path) -> None:
    assert shown(only(look(tmp_path, model(model__safetensors=None)))) == ("no-weights", Severity.BLOCK, "")


def test_safetensors_under_a_name_that_no_loader_reads_are_no_weights(tmp_path: Path) -> None:
    found = only(look(tmp_path, model(model__safetensors=None) | {"consolidated.safetensors": tensors("w")}))
    assert found.id == "no-weights" and "consolidated.safetensors" in found.message


def test_weights_without_a_tensor_block(tmp_path: Path) -> None:
    assert only(look(tmp_path, model(model__safetensors=raw({}, 0)))).id == "safetensors-header"


def test_a_broken_header_blocks_and_names_the_file(tmp_path: Path) -> None:
    found = only(look(tmp_path, model() | {"sub/x.safetensors": b"abc"}))
    assert shown(found) == ("safetensors-header", Severity.BLOCK, "sub/x.safetensors")
    assert found.message == "'sub/x.safetensors' is only 3 bytes long, shorter than the length of its header."


GOOD = {"a": entry([2], 0), "b": entry([3], 8)}
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "only 0 bytes"),
    "length beyond the file": ((99).to_bytes(8, "little") + b"{}", "99 bytes, but only 2 follow"),
    "length over the limit": ((25_000_001).to_bytes(8, "little"), "25000000 is the most"),
    "length of 2**64 - 1": (b"\xff" * 8, "is the most"),
    "no brace": (raw(None, 0, b" {}"), "does not start with"),
    "no JSON": (raw(None, 0, b"{a}"), "not plain JSON"),
    "two objects": (raw(None, 0, b"{}{}"), "not plain JSON"),
    "no UTF-8": (raw(None, 0, b'{"\xff": 1}'), "not UTF-8"),
    "bottomless": (raw(None, 0, b'{"a":' * 200_000), "nested too deeply"),
    "huge number": (raw(None, 0, b'{"a": ' + b"9" * 5000 + b"}"), "not plain JSON"),
    "duplicate tensor": (raw(None, 8, b'{"a": {}, "a": {}}'), "'a' stands in it twice"),
    "duplicate key in a tensor": (raw(None, 0, b'{"a": {"dtype": 1, "dtype": 2}}'), "'dtype' stands in it twice"),
    "metadata of numbers": (raw({"__metadata__": {"a": 1}}, 0), "__metadata__"),
    "metadata no object": (raw({"__metadata__": []}, 0), "__metadata__"),
    "entry no object": (raw({"a": []}, 0), "no dtype, shape and data_offsets"),
    "further key": (raw({"a": entry([2], 0) | {"x": 1}}, 8), "and nothing else"),
    "unknown dtype": (raw({"a": entry([2], 0) | {"dtype": "F128"}}, 8), "unknown dtype 'F128'"),
    "dtype no text": (raw({"a": entry([2], 0) | {"dtype": ["F32"]}}, 8), "unknown dtype"),
    "negative shape": (raw({"a": entry([2], 0) | {"shape": [-2]}}, 8), "impossible shape"),
    "boolean shape": (raw({"a": entry([1], 0) | {"shape": [True]}}, 4), "impossible shape"),
    "fractional shape": (raw({"a": entry([2], 0) | {"shape": [2.0]}}, 8), "impossible shape"),
    "too many dimensions": (raw({"a": entry([1] * 65, 0)}, 4), "impossible shape"),
    "reversed offsets": (raw({"a": entry([2], 0) | {"data_offsets": [8, 0]}}, 8), "impossible offsets"),
    "three offsets": (raw({"a": entry([2], 0) | {"data_offsets": [0, 4, 8]}}, 8), "impossible offsets"),
    "size and shape differ": (raw({"a": entry([2], 0) | {"shape": [3]}}, 8), "8 bytes, but F32 of shape [3] needs 12"),
    "half a byte": (raw({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}, 1), "needs 1.5"),
    "overflowing shape": (raw({"a": entry([2], 0) | {"shape": [2**62, 4]}}, 8), "needs"),
    "overlap": (raw({"a": entry([2], 0), "b": entry([3], 4)}, 16), "overlaps"),
    "same place twice": (raw({"a": entry([2], 0), "b": entry([2], 0)}, 8), "overlaps"),
    "hole at the start": (raw({"a": entry([2], 4)}, 12), "leaves a hole"),
    "hole in the middle": (raw({"a": entry([2], 0), "b": entry([3], 12)}, 24), "leaves a hole"),
    "offsets beyond the file": (raw({"a": entry([9], 0)}, 8), "cut short: its tensors need 36 bytes and 8 are there"),
    "cut by one byte": (raw(GOOD, 20)[:-1], "cut short"),
    "one byte more": (raw(GOOD, 21), "holds 1 bytes after its last tensor"),
    "data without tensors": (raw({}, 5), "holds 5 bytes"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_breaks_the_format_says_how(tmp_path: Path, name: str) -> None:
    data, words = BROKEN[name]
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(HeaderError) as caught:
        read_header(tmp_path / "x.safetensors")
    assert words in str(caught.value)


def test_a_header_reads_back_what_the_library_wrote(tmp_path: Path) -> None:
    arrays: dict[str, numpy.ndarray[Any, Any]] = {
        "scalar": numpy.zeros((), numpy.float32),
        "empty": numpy.zeros((0, 3), numpy.float16),
        "matrix": numpy.arange(6, dtype=numpy.int64).reshape(2, 3),
        "mask": numpy.array([True, False, True]),
    }
    safetensors.numpy.save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "np"})
    header = read_header(tmp_path / "x.safetensors").tensors
    assert {name: tensor.shape for name, tensor in header.items()} == {name: a.shape for name, a in arrays.items()}
    assert {name: tensor.dtype for name, tensor in header.items()} == {
        "scalar": "F32", "empty": "F16", "matrix": "I64", "mask": "BOOL"
    }  # fmt: skip


def test_a_padded_header_and_any_order_of_entries_are_fine(tmp_path: Path) -> None:
    header = json.dumps({"b": entry([3], 8), "__metadata__": {"format": "pt"}, "a": entry([2], 0)}).encode() + b"   "
    (tmp_path / "x.safetensors").write_bytes(raw(None, 20, header))
    assert read_header(tmp_path / "x.safetensors") == Header(
        {"b": Tensor("F32", (3,), 8, 20), "a": Tensor("F32", (2,), 0, 8)}, 8 + len(header)
    )


def test_every_dtype_has_the_size_that_the_library_gives_it(tmp_path: Path) -> None:
    for dtype in DTYPE_BITS:
        (tmp_path / "x.safetensors").write_bytes(raw({"a": entry([8], 0, dtype)}, DTYPE_BITS[dtype]))
        with safetensors.safe_open(tmp_path / "x.safetensors", "np") as file:
            assert (
                file.get_slice("a").get_dtype() == dtype == read_header(tmp_path / "x.safetensors").tensors["a"].dtype
            )


def test_whatever_the_library_refuses_is_refused_here_too(tmp_path: Path) -> None:
    generator = numpy.random.default_rng(0)
    good = raw(GOOD, 20)
    accepted = 0
    for _ in range(2000):
        data = bytearray(good)
        for place in generator.integers(0, len(good) - 20, size=generator.integers(1, 3)):
            data[place] = generator.integers(32, 127)
        (tmp_path / "x.safetensors").write_bytes(data)
        try:
            read_header(tmp_path / "x.safetensors")
        except HeaderError:
            continue
        accepted += 1
        with safetensors.safe_open(tmp_path / "x.safetensors", "np"):  # raises where we were too lenient
            pass
    assert accepted > 20


# The shard index


def sharded(weight_map: object, **shards: bytes) -> dict[str, bytes]:
    files = model(model__safetensors=None) | {f"{name}.safetensors": data for name, data in shards.items()}
    return files | {INDEX: json.dumps({"weight_map": weight_map}).encode()}


@pytest.mark.parametrize("shard", ["b.safetensors", "../b.safetensors", "pytorch_model.bin", "/etc/passwd"])
def test_an_index_that_names_a_shard_that_is_not_there_blocks(tmp_path: Path, shard: str) -> None:
    found = only(look(tmp_path, sharded({"x": "a.safetensors", "y": shard}, a=tensors("x"))))
    assert shown(found) == ("index-shards", Severity.BLOCK, INDEX) and shard in found.message


def test_an_index_that_places_a_tensor_in_the_wrong_shard_blocks(tmp_path: Path) -> None:
    weight_map = {"x": "a.safetensors", "y": "b.safetensors", "z": "a.safetensors"}
    found = only(look(tmp_path, sharded(weight_map, a=tensors("x"), b=tensors("y", "z"))))
    assert shown(found) == ("index-shards", Severity.BLOCK, INDEX) and "'z'" in found.message


def test_a_tensor_that_the_index_does_not_list_is_a_warning(tmp_path: Path) -> None:
    found = only(look(tmp_path, sharded({"x": "a.safetensors"}, a=tensors("x", "extra"))))
    assert shown(found) == ("index-unlisted", Severity.WARNING, INDEX) and "'extra'" in found.message


@pytest.mark.parametrize("weight_map", [None, {}, [], {"x": 1}])
def test_an_index_without_a_weight_map_blocks(tmp_path: Path, weight_map: object) -> None:
    assert only(look(tmp_path, sharded(weight_map, a=tensors("x")))).id == "index-shards"


def test_a_broken_shard_is_reported_once(tmp_path: Path) -> None:
    assert only(look(tmp_path, sharded({"x": "a.safetensors"}, a=b"short"))).id == "safetensors-header"


# Quantisation


def test_declared_quantisation_is_a_notice(tmp_path: Path) -> None:
    found = only(look(tmp_path, model(config__json=CONFIG | {"quantization_config": {"quant_method": "gptq"}})))
    assert shown(found) == ("quantized-weights", Severity.NOTICE, "config.json") and "'gptq'" in found.message


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("w.weight", "F8_E4M3"), ("w.weight", "I8"), ("w.weight", "U8"), ("w.qweight", "I32"), ("w", "F4")],
)
def test_quantised_tensors_are_recognised_without_a_declaration(tmp_path: Path, name: str, dtype: str) -> None:
    data = raw({name: entry([2, 4], 0, dtype)}, DTYPE_BITS[dtype])
    found = only(look(tmp_path, model(model__safetensors=data)))
    assert shown(found) == ("quantized-weights", Severity.NOTICE, "model.safetensors") and dtype in found.message


# Configuration


AUTO_MAP = {"AutoModelForCausalLM": "modeling_x.XForCausalLM"}


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer_config.json", "generation_config.json", "preprocessor_config.json", "sub/config.json"],
)
def test_an_auto_map_in_any_configuration_blocks(tmp_path: Path, name: str) -> None:
    files = model(chat_template__jinja=TEMPLATE.encode()) | {name: json.dumps(CONFIG | {"auto_map": AUTO_MAP}).encode()}
    found = only(look(tmp_path, files | {"modeling_x.py": b"import os"}))
    assert shown(found) == ("remote-code", Severity.BLOCK, name) and "'modeling_x.XForCausalLM'" in found.message


@pytest.mark.parametrize(
    "addition",
    [
        {"text_config": {"auto_map": AUTO_MAP}},
        {"auto_map": {"AutoConfig": "other/repo--configuration_x.XConfig"}},
        {"auto_map": {"AutoTokenizer": [None, "tokenization_x.X"]}},
        {"custom_pipelines": {"x": {"impl": "pipeline.X"}}},
        {"layers": [{"_target_": "builtins.eval"}]},
    ],
)
def test_code_named_at_any_depth_blocks(tmp_path: Path, addition: Entry) -> None:
    assert only(look(tmp_path, model(config__json=CONFIG | addition))).id == "remote-code"


def test_an_empty_auto_map_names_no_code(tmp_path: Path) -> None:
    assert look(tmp_path, model(config__json=CONFIG | {"auto_map": {}, "custom_pipelines": None})) == ()


def test_python_files_that_nothing_names_are_a_warning(tmp_path: Path) -> None:
    found = only(look(tmp_path, model() | {"train.py": b"", "a/b/c.py": b""}))
    assert shown(found) == ("python-files", Severity.WARNING, "a/b/c.py") and "'train.py'" in found.message


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (b"{", "not plain JSON"),
        (b"", "not plain JSON"),
        (b"[]", "no JSON object"),
        (b"{}", "no model_type"),
        (b'{"model_type": 1}', "no model_type"),
        (b'{"model_type": "llama", "rms_norm_eps": NaN}', "NaN"),
        (b'{"model_type": "llama", "model_type": "qwen2"}', "'model_type' stands in it twice"),
        (b'\xef\xbb\xbf{"model_type": "llama"}', "not plain JSON"),
    ],
)
def test_a_config_that_no_loader_should_take_blocks(tmp_path: Path, config: bytes, words: str) -> None:
    found = only(look(tmp_path, model(config__json=config)))
    assert shown(found) == ("config-invalid", Severity.BLOCK, "config.json") and words in found.message


def test_another_json_file_that_a_loader_may_read_must_be_json(tmp_path: Path) -> None:
    found = only(look(tmp_path, model(generation_config__json=b"{'a': 1}")))
    assert shown(found) == ("json-invalid", Severity.BLOCK, "generation_config.json")


def test_a_json_file_too_large_to_read_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beear_gate.artifacts.contents._MAX_JSON", 1000)
    found = only(look(tmp_path, model(generation_config__json={"a": "x" * 1000})))
    assert found.id == "json-invalid" and "at most 1000" in found.message


def test_a_file_changed_after_hashing_is_not_judged_by_its_new_bytes(tmp_path: Path) -> None:
    look(tmp_path, model())
    snapshot = pull(str(tmp_path))
    (tmp_path / "config.json").write_bytes(b'{"model_type": "gpt2"}')
    found = only(inspect_snapshot(snapshot))
    assert found.id == "config-invalid" and "changed since it was hashed" in found.message


def test_a_model_without_tokenizer_blocks(tmp_path: Path) -> None:
    assert shown(only(look(tmp_path, model(tokenizer__json=None)))) == ("no-tokenizer", Severity.BLOCK, "")


@pytest.mark.parametrize(("required", "severity"), [(False, Severity.NOTICE), (True, Severity.BLOCK)])
def test_a_missing_chat_template_blocks_only_where_it_is_required(
    tmp_path: Path, required: bool, severity: Severity
) -> None:
    found = only(look(tmp_path, model(tokenizer_config__json={}), require_chat_template=required))
    assert shown(found) == ("no-chat-template", severity, "")


# Coverage, order, crashes, messages


def test_files_that_no_check_reads_are_named_grouped_by_kind(tmp_path: Path) -> None:
    extra = {"x.dat": b"", "y.dat": b"", "onnx/model.onnx": b"", "sub/odd.json": b"{", ".git/config": b""}
    found = look(tmp_path, model() | extra)
    assert [shown(each) for each in found] == [
        ("unclaimed-file", Severity.NOTICE, name) for name in ("onnx/model.onnx", "sub/odd.json", "x.dat")
    ]
    assert "'y.dat'" in found[2].message


def test_the_worst_comes_first(tmp_path: Path) -> None:
    files = model(tokenizer_config__json={}, config__json=b"[]") | {"a.py": b"", "b.dat": b""}
    severities = [each.severity for each in look(tmp_path, files)]
    assert severities == [Severity.BLOCK, Severity.WARNING, Severity.NOTICE, Severity.NOTICE]


def test_a_check_that_crashes_blocks(tmp_path: Path) -> None:
    def check_nothing(contents: Contents) -> Iterator[Finding]:
        raise KeyError("secret of the file")
        yield

    contents = read_contents(ModelSnapshot("m", "c", tmp_path, ()), False)
    found = only(run_check(check_nothing, contents))
    assert shown(found) == ("check-crashed", Severity.BLOCK, "")
    assert "check_nothing failed with KeyError" in found.message and "secret" not in found.message


def test_a_crash_while_reading_blocks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr("beear_gate.artifacts.inspect.read_contents", crash)
    assert shown(only(inspect_snapshot(ModelSnapshot("m", "c", tmp_path, ())))) == ("check-crashed", Severity.BLOCK, "")


def test_an_empty_snapshot_is_far_from_clean(tmp_path: Path) -> None:
    ids = {each.id for each in inspect_snapshot(ModelSnapshot("m", "c", tmp_path, ()))}
    assert ids == {"no-weights", "config-invalid", "no-tokenizer", "no-chat-template"}


def test_file_content_in_messages_is_short_and_printable(tmp_path: Path) -> None:
    name = "\x1b[31m\u202e" + "x" * 10_000
    found = look(
        tmp_path,
        model(
            config__json=CONFIG | {"auto_map": {"A": name}},
            model__safetensors=raw({name: entry([2], 0) | {"dtype": name}}, 8),
            generation_config__json=json.dumps({name: 1}).encode()[:-1] + b", " + json.dumps({name: 2}).encode()[1:],
        ),
    )
    assert {each.id for each in found} == {"remote-code", "safetensors-header", "json-invalid"}
    assert all(each.message.isprintable() and len(each.message) < 300 for each in found)


def test_every_finding_comes_from_the_table_of_rules_and_says_what_to_do(tmp_path: Path) -> None:
    severities = {rule.id: rule.severity for rule in RULES}
    assert len(severities) == len(RULES) and all(rule.explanation.endswith(".") for rule in RULES)
    files = model(config__json=b"[]", model__safetensors=None, tokenizer__json=None) | {"a.py": b"", "b.pkl": b""}
    for found in look(tmp_path, files | {"c.gguf": b"", "d.safetensors": b""}):
        assert severities[found.id] is found.severity
        assert found.message.endswith(".") and found.remedy.endswith(".")
    assert len({check.__name__ for check in CHECKS}) == len(CHECKS)


def test_no_pickle_is_ever_loaded(tmp_path: Path) -> None:
    class Touches:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "loaded"),)

    found = look(tmp_path / "model", model() | {"a.bin": pickle.dumps(Touches()), "b.pkl": pickle.dumps(Touches())})
    assert {each.file for each in found if each.id == "pickle-dangerous"} == {"a.bin", "b.pkl"}
    assert not (tmp_path / "loaded").exists()
    assert {file.path for file in hash_folder(tmp_path / "model")}.isdisjoint({"a.bin", "b.pkl"})
