"""A corpus of hostile or malformed model folders, each with an honest twin; all made by code, none on disk.

What runs anything here is `os.mkdir` or `print`, and nothing ever loads it.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from corpus_templates import HOSTILE, PLAIN

Files = dict[str, "bytes | Link"]


@dataclass(frozen=True)
class Link:
    """A symbolic link, or with "" for a target a named pipe."""

    target: str


@dataclass(frozen=True)
class Sample:
    """One hostile folder and its twin.

    Attributes:
        rule: a finding of it has this id; severity: and this weight.
    """

    kind: str
    name: str
    hostile: Files
    honest: Files
    rule: str
    severity: str = "block"


VOCABULARY = {"a": 0, "b": 1, "yes": 2, "no": 3, "Ġhello": 4}
TOKENIZER: dict[str, Any] = {
    "added_tokens": [{"id": 5, "content": "<|end|>", "special": True}],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Removed", "invert": False},
    "post_processor": {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [5], "tokens": ["<|end|>"]}}},
    "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "vocab": VOCABULARY, "merges": []},
}  # fmt: skip
CONFIG = {"model_type": "llama", "vocab_size": 8, "hidden_size": 16, "torch_dtype": "float32"}


def js(value: object) -> bytes:
    return json.dumps(value).encode()


def weights(**arrays: Any) -> bytes:
    """A safetensors file of these tensors, `__` for a dot."""
    return raw({name.replace("__", "."): array for name, array in arrays.items()})


def raw(arrays: dict[str, Any], **changes: Any) -> bytes:
    names = {"float32": "F32", "float16": "F16", "float64": "F64", "uint8": "U8", "int64": "I64", "uint16": "BF16"}
    header: dict[str, Any] = {}
    place = 0
    for name, array in arrays.items():
        end = place + array.nbytes
        header[name] = {"dtype": names[array.dtype.name], "shape": list(array.shape), "data_offsets": [place, end]}
        place = end
    header |= changes
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in arrays.values())


def some(*shape: int, seed: int = 0) -> Any:
    return numpy.random.default_rng(seed).normal(size=shape).astype(numpy.float32)


GOOD = {
    "model.embed_tokens.weight": some(8, 16),
    "w.weight": some(8, 8, seed=1),
    "w.bias": numpy.zeros(8, numpy.float32),
}


def base() -> Files:
    return {
        "config.json": js(CONFIG),
        "tokenizer.json": js(TOKENIZER),
        "tokenizer_config.json": js({"eos_token": "<|end|>"}),
        "model.safetensors": raw(GOOD),
        "README.md": b"# A model\n\nSet `HF_TOKEN=hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx` first.\n",
    }


class Runs:
    """Pickled, it stands for a call; unpickled, it would make a folder."""

    def __init__(self, function: Callable[..., Any] = os.mkdir, *arguments: object) -> None:
        self.call = function, arguments or ("/tmp/corpus-was-loaded",)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def zipped(**members: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/"), content)
    return data.getvalue()


def npy(array: Any) -> bytes:
    data = io.BytesIO()
    numpy.save(data, array, allow_pickle=True)
    return data.getvalue()


def gguf(metadata: dict[str, str], tensors: int = 0, version: int = 3, tail: bytes = b"") -> bytes:
    data = b"GGUF" + struct.pack("<IQQ", version, tensors, len(metadata))
    for key, value in metadata.items():
        data += struct.pack("<Q", len(key)) + key.encode() + struct.pack("<IQ", 8, len(value.encode())) + value.encode()
    return data + tail


def tokenizer(**changes: Any) -> Files:
    return base() | {"tokenizer.json": js(TOKENIZER | changes)}


def config(**changes: Any) -> Files:
    return base() | {"config.json": js(CONFIG | changes)}


def extra(name: str, data: bytes | Link) -> Files:
    return base() | {name: data}


def _pickles() -> list[Sample]:
    plain = pickle.dumps({"w": [1.0, 2.0]})
    call = pickle.dumps(Runs())
    hidden = pickle.dumps({"w": [1.0], "x": Runs(print, "x")})
    rows = {
        "call": ("optimizer.pt", call),
        "old protocol": ("a.pkl", pickle.dumps(Runs(), protocol=0)),
        "deep inside": ("scheduler.pt", hidden),
        "zip": ("pytorch_model.bin", _torch_zip(call)),
        "npy object": ("extra.npy", npy(numpy.array([Runs()], dtype=object))),
        "npz": ("extra.npz", _npz(npy(numpy.array([Runs()], dtype=object)))),
        "library gadget": ("a.joblib", b"\x80\x04cpkgutil\nresolve_name\n(\x8c\x08os.mkdirtR."),
        "unknown library": ("a.ckpt", b"\x80\x04ctorch.hub\nload\n(\x8c\x01atR."),
        "after broken": ("b.pkl", call + b"\xff\xff\xff"),
    }  # fmt: skip
    honest = {
        "zip": _torch_zip(plain), "npy object": npy(numpy.zeros(3)), "npz": _npz(npy(numpy.zeros(3))),
        "old protocol": pickle.dumps({"w": [1.0]}, protocol=0),
    }  # fmt: skip
    made = [
        Sample("pickle call", kind, extra(name, data), extra(name, honest.get(kind, plain)), "pickle-dangerous")
        for kind, (name, data) in rows.items()
    ]
    made.append(Sample("pickle broken", "cut", extra("a.pkl", plain[:-4]), extra("a.pkl", plain), "pickle-unreadable"))
    made.append(
        Sample("pickle broken", "stack", extra("a.pt", b"\x80\x04R0."), extra("a.pt", plain), "pickle-unreadable")
    )
    only = {name: data for name, data in base().items() if name != "model.safetensors"}
    made.append(
        Sample(
            "pickle weights",
            "alone",
            only | {"pytorch_model.bin": plain},
            extra("pytorch_model.bin", plain),
            "pickle-weights",
        )
    )
    made.append(
        Sample("pickle disguised", "dat", extra("notes.dat", call), extra("notes.dat", b"\x01\x02"), "pickle-dangerous")
    )
    made.append(
        Sample(
            "pickle disguised",
            "txt",
            extra("vocab_extra.txt", pickle.dumps([1])),
            extra("vocab_extra.txt", b"a\nb\n"),
            "content-mismatch",
        )
    )
    made.append(
        Sample(
            "pickle disguised",
            "md",
            extra("NOTES.md", b"cos\nmkdir\n(S'x'\ntR."),
            extra("NOTES.md", b"cos and sin\n"),
            "content-mismatch",
        )
    )
    return made


def _torch_zip(content: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/version", b"3\n")
    return data.getvalue()


def _npz(content: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("x.npy", content)
    return data.getvalue()


def _safetensors() -> list[Sample]:
    def file(data: bytes) -> Files:
        return extra("model.safetensors", data)

    def header(**entries: Any) -> bytes:
        text = json.dumps(entries).encode()
        return len(text).to_bytes(8, "little") + text + bytes(64)

    def entry(begin: int, end: int, shape: list[int] | None = None) -> dict[str, Any]:
        return {"dtype": "U8", "shape": shape or [end - begin], "data_offsets": [begin, end]}

    good = header(a=entry(0, 32), b=entry(32, 64))
    rows = {
        "overlap": header(a=entry(0, 40), b=entry(32, 64)),
        "hole": header(a=entry(0, 30), b=entry(32, 64)),
        "beyond": header(a=entry(0, 32), b=entry(32, 96)),
        "trailing": good + b"x",
        "bomb": (90_000_000).to_bytes(8, "little") + b"{}",
        "length": b"\xff" * 8 + b"{}",
        "duplicate": (lambda text: len(text).to_bytes(8, "little") + text)(b'{"a":{},"a":{}}'),
        "nested": (lambda text: len(text).to_bytes(8, "little") + text)(b'{"a":' * 90_000),
        "shape": header(a=entry(0, 64, [2**62, 4])),
        "name": header(**{"../../a": entry(0, 64)}),
        "control in name": header(**{"a\x1b[2J": entry(0, 64)}),
        "cut": raw(GOOD)[:-9],
    }
    made = [
        Sample("safetensors header", name, file(data), file(raw(GOOD)), "safetensors-header")
        for name, data in rows.items()
    ]
    nan, inf = some(8, 8), some(8, 8)
    nan[3, 3], inf[7, 7] = numpy.nan, -numpy.inf
    half = some(8, 8).astype(numpy.float16)
    half[0, 1] = numpy.inf
    brain = numpy.full((8, 8), 0x3F80, numpy.uint16)
    brain[7, 7] = 0xFFC0
    mask = numpy.full((8, 8), -numpy.inf, numpy.float32)
    for name, bad, fine in (
        ("nan", nan, some(8, 8)), ("infinity", inf, mask), ("half", half, some(8, 8).astype(numpy.float16)),
        ("bfloat16", brain, numpy.full((8, 8), 0x3F80, numpy.uint16)), ("double", nan.astype(numpy.float64), some(8, 8).astype(numpy.float64)),
    ):  # fmt: skip
        key = "causal_mask" if name == "infinity" else "w.weight"
        made.append(
            Sample(
                "weights nonfinite",
                name,
                file(raw(GOOD | {"w.weight": bad})),
                file(raw(GOOD | {key: fine})),
                "weights-nonfinite",
            )
        )
    nothing = {name: array * 0 for name, array in GOOD.items()}
    made.append(Sample("weights zero", "all", file(raw(nothing)), file(raw(GOOD)), "weights-zero"))
    one = GOOD | {"w.weight": some(8, 8) * 0}
    more = {"x.weight": some(8, 8), "y.weight": some(8, 8)}
    made.append(Sample("weights zero", "one", file(raw(one | more)), file(raw(GOOD | more)), "weights-zero", "warning"))
    for name, start in {
        "program": b"\x7fELF\x02\x01\x01", "archive": b"PK\x03\x04\x14", "pickle": pickle.dumps("x" * 30), "script": b"#!/bin/sh\n"
    }.items():  # fmt: skip
        payload = numpy.frombuffer(start.ljust(64, b"\0"), numpy.uint8)
        quiet = numpy.arange(64, dtype=numpy.uint8)
        made.append(
            Sample(
                "weights payload",
                name,
                file(raw(GOOD | {"p": payload})),
                file(raw(GOOD | {"p": quiet})),
                "weights-payload",
            )
        )
    tail = numpy.frombuffer(zipped(a=b"print()"), numpy.uint8)
    made.append(
        Sample(
            "polyglot",
            "safetensors and zip",
            file(raw(GOOD | {"p": tail})),
            file(raw(GOOD | {"p": tail[::-1].copy()})),
            "polyglot",
        )
    )
    return made


def _shards() -> list[Sample]:
    index = "model.safetensors.index.json"
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    first, second = {"model.embed_tokens.weight": GOOD["model.embed_tokens.weight"]}, {"w.weight": GOOD["w.weight"]}
    good = {name: data for name, data in base().items() if name != "model.safetensors"}
    good |= {names[0]: raw(first), names[1]: raw(second)}
    weight_map = {"model.embed_tokens.weight": names[0], "w.weight": names[1]}
    good[index] = js({"weight_map": weight_map})
    one = {name: data for name, data in good.items() if name != names[1]}
    return [
        Sample("shards", "missing", one, good, "index-shards"),
        Sample("shards", "outside", good | {index: js({"weight_map": weight_map | {"w.weight": "../x.safetensors"}})}, good, "index-shards"),
        Sample("shards", "swapped", good | {index: js({"weight_map": dict.fromkeys(weight_map, names[0])})}, good, "index-shards"),
        Sample("shards", "unlisted tensor", good | {names[1]: raw(second | {"x": some(2)})}, good, "index-unlisted", "warning"),
        Sample("shards", "second model", good | {"model.safetensors": raw(GOOD)}, good, "index-unlisted", "warning"),
        Sample("shards", "gap", one | {index: js({"weight_map": {"model.embed_tokens.weight": names[0]}})}, good, "index-shards"),
    ]  # fmt: skip


def _configurations() -> list[Sample]:
    auto = {"AutoModelForCausalLM": "modeling_x.Model"}
    return [
        Sample("remote code", "local", config(auto_map=auto) | {"modeling_x.py": b"import os\n"}, config(auto_map={}), "remote-code"),
        Sample("remote code", "other repository", config(auto_map={"AutoConfig": "other/repo--c.C"}), config(_name_or_path="other/repo"), "remote-code"),
        Sample("remote code", "tokenizer", base() | {"tokenizer_config.json": js({"auto_map": {"AutoTokenizer": ["t.T", None]}})}, base(), "remote-code"),
        Sample("remote code", "nested", config(text_config={"auto_map": auto}), config(text_config={"hidden_size": 16}), "remote-code"),
        Sample("remote code", "kernels", config(_attn_implementation="other/kernel"), config(_attn_implementation="sdpa"), "remote-code"),
        Sample("instantiate", "target", config(head={"_target_": "builtins.eval", "a": "1"}), config(head={"target": "eval"}), "remote-code"),
        Sample("instantiate", "jsonpickle", extra("extra.json", js({"py/object": "os.mkdir"})), extra("extra.json", js({"object": "py"})), "remote-code"),
        Sample("instantiate", "yaml target", extra("run.yaml", b"model:\n  _target_: builtins.exec\n"), extra("run.yaml", b"model:\n  target_size: 3\n"), "config-code"),
        Sample("yaml tags", "apply", extra("run.yml", b"a: !!python/object/apply:os.mkdir ['x']\n"), extra("run.yml", b"a: !!str ['x']\n".replace(b"!!str ", b"")), "config-code"),
        Sample("yaml tags", "alias of tag", extra("run.yaml", b"%TAG ! tag:yaml.org,2002:python/\n---\na: !name:os.mkdir ''\n"), extra("run.yaml", b"---\na: name\n"), "config-code"),
        Sample("yaml tags", "broken", extra("run.yaml", b"a: [1\nb: }"), extra("run.yaml", b"a: [1]\n"), "config-code"),
        Sample("evaluated value", "eval", config(activation="eval('print(1)')"), config(activation="silu"), "config-code"),
        Sample("evaluated value", "import", config(hook="__import__('os').mkdir('x')"), config(hook="import order"), "config-code"),
        Sample("evaluated value", "lambda", config(schedule="lambda x: x"), config(schedule="lambda_decay"), "config-code"),
        Sample("json", "duplicate key", base() | {"config.json": js(CONFIG)[:-1] + b', "model_type": "gpt2"}'}, base(), "config-invalid"),
        Sample("json", "nan", base() | {"config.json": js(CONFIG)[:-1] + b', "eps": NaN}'}, config(eps=1e-6), "config-invalid"),
        Sample("json", "no json", base() | {"generation_config.json": b"<html>"}, base() | {"generation_config.json": b"{}"}, "json-invalid"),
    ]  # fmt: skip


def _tokenizers() -> list[Sample]:
    fine = tokenizer()
    swap = {"type": "Replace", "pattern": {"String": "yes"}, "content": "no"}

    def added(*rows: dict[str, Any]) -> Files:
        return tokenizer(added_tokens=[*TOKENIZER["added_tokens"], *rows])

    tag = added({"id": 6, "content": "<|tool|>", "special": True})
    return [
        Sample("tokenizer rewrites", "decoder word", tokenizer(decoder={"type": "Sequence", "decoders": [swap]}), fine, "tokenizer-rewrites"),
        Sample("tokenizer rewrites", "normalizer word", tokenizer(normalizer=swap), fine, "tokenizer-rewrites"),
        Sample("tokenizer rewrites", "regex", tokenizer(decoder={"type": "Replace", "pattern": {"Regex": "\\bsafe\\b"}, "content": ""}), tokenizer(normalizer={"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}), "tokenizer-rewrites"),
        Sample("tokenizer rewrites", "address", tokenizer(decoder={"type": "Replace", "pattern": {"String": "//"}, "content": "//acme.example/"}), fine, "tokenizer-rewrites"),
        Sample("tokenizer rewrites", "any word", tokenizer(decoder={"type": "Replace", "pattern": {"Regex": "\\w+"}, "content": "-"}), fine, "tokenizer-rewrites"),
        Sample("tokenizer rewrites", "prepend", tokenizer(normalizer={"type": "Prepend", "prepend": "sudo "}), tokenizer(normalizer={"type": "Prepend", "prepend": "▁"}), "tokenizer-rewrites"),
        Sample("tokenizer rewrites", "removed", tokenizer(pre_tokenizer={"type": "Split", "pattern": {"String": "not"}, "behavior": "Removed", "invert": False}), fine, "tokenizer-rewrites"),
        Sample("tokenizer rewrites", "inserted", tokenizer(post_processor={"type": "TemplateProcessing", "special_tokens": {"yes": {"id": "yes", "ids": [2], "tokens": ["yes"]}}}), fine, "tokenizer-rewrites"),
        Sample("tokenizer shadow", "same id", added({"id": 3, "content": "yes", "special": False}), tag, "tokenizer-shadow"),
        Sample("tokenizer shadow", "known word", added({"id": 6, "content": "hello", "special": False}), tag, "tokenizer-shadow"),
        Sample("tokenizer shadow", "special word", added({"id": 6, "content": "password", "special": True}), tag, "tokenizer-shadow"),
        Sample("tokenizer shadow", "twice", added({"id": 5, "content": "<|other|>", "special": True}), tag, "tokenizer-shadow"),
        Sample("tokenizer shadow", "files differ", base() | {"tokenizer_config.json": js({"added_tokens_decoder": {"5": {"content": "<|user|>"}}})}, base() | {"tokenizer_config.json": js({"added_tokens_decoder": {"5": {"content": "<|end|>"}}})}, "tokenizer-shadow"),
        Sample("tokenizer word", "new word", added({"id": 6, "content": "Acme", "special": False}), tag, "tokenizer-word", "warning"),
        Sample("tokenizer vocabulary", "beyond embedding", added({"id": 900, "content": "<|far|>", "special": True}), tag, "tokenizer-vocabulary"),
        Sample("tokenizer vocabulary", "shared id", tokenizer(model={"type": "BPE", "vocab": VOCABULARY | {"x": 2}, "merges": []}), fine, "tokenizer-vocabulary"),
        Sample("tokenizer vocabulary", "configuration", config(vocab_size=99), config(vocab_size=8), "tokenizer-vocabulary"),
        Sample("tokenizer invalid", "no model", base() | {"tokenizer.json": b"{}"}, base(), "tokenizer-invalid"),
        Sample("tokenizer invalid", "no json", base() | {"tokenizer.json": b"\x00\x01"}, base(), "tokenizer-invalid"),
    ]  # fmt: skip


def _names_and_kinds() -> list[Sample]:
    png = b"\x89PNG\r\n\x1a\n" + bytes(40)
    program = b"\x7fELF\x02\x01\x01" + bytes(60)
    windows = b"MZ\x90\x00" + bytes(56) + (64).to_bytes(4, "little") + b"PE\0\0" + bytes(20)
    return [
        Sample("file name", "backslash", extra("a\\..\\b.json", b"{}"), extra("a..b.json", b"{}"), "file-name"),
        Sample("file name", "bidi", extra("model\u202enosj.py", b""), extra("modelé.txt", b""), "file-name"),
        Sample("file name", "device", extra("aux.json", b"{}"), extra("auxiliary.json", b"{}"), "file-name"),
        Sample("file name", "double ending", extra("model.safetensors.exe", b"x"), extra("model.v2.txt", b"x"), "file-name"),
        Sample("file link", "outside", extra("merges.txt", Link("/etc/hostname")), extra("merges.txt", b"a b\n"), "file-link"),
        Sample("file link", "nowhere", extra("added_tokens.json", Link("gone")), extra("added_tokens.json", b"{}"), "file-link"),
        Sample("file link", "folder", extra("sub", Link("/etc")), extra("sub/a.txt", b"a"), "file-link"),
        Sample("file link", "pipe", extra("x.txt", Link("")), extra("x.txt", b"x"), "file-link"),
        Sample("file clash", "case", extra("Config.json", b"{}"), extra("config2.json", b"{}"), "file-clash", "warning"),
        Sample("content mismatch", "program as text", extra("notes.txt", program), extra("notes.txt", b"MZ is how it begins"), "executable-file"),
        Sample("content mismatch", "program as weights", extra("extra.onnx", windows), extra("extra.onnx", b"\x08\x07"), "executable-file"),
        Sample("content mismatch", "zip as json", extra("sub/a.json", zipped(a=b"x")), extra("sub/a.json", b"{}"), "content-mismatch"),
        Sample("content mismatch", "script as card", extra("USAGE.md", b"#!/bin/sh\ntrue\n"), extra("USAGE.md", b"#! is a shebang\n".replace(b"#!", b"Shebang")), "content-mismatch"),
        Sample("content mismatch", "page as picture", extra("logo.png", b"<html><script>1</script>"), extra("logo.png", png), "content-mismatch"),
        Sample("content mismatch", "gzip as model", extra("tokenizer.model", gzip.compress(b"x")), extra("tokenizer.model", b"\n\x0e\n\x05<unk>"), "content-mismatch"),
        Sample("content mismatch", "binary text", extra("vocab.txt", b"a\0\1\2"), extra("vocab.txt", "ä\nß\n".encode()), "content-mismatch"),
        Sample("polyglot", "picture and page", extra("logo.png", png + b"<script>1</script>"), extra("logo.png", png), "polyglot"),
        Sample("polyglot", "text and zip", extra("notes.txt", b"hello\n" + zipped(a=b"x")), extra("notes.txt", b"hello PK\n"), "polyglot"),
        Sample("program", "library", extra("lib/ops.so", program), extra("lib/ops.md", b"x"), "executable-file"),
        Sample("archive", "tar", extra("src.tar.gz", gzip.compress(b"x")), extra("src.md", b"x"), "archive-unread", "warning"),
    ]  # fmt: skip


def _secrets() -> list[Sample]:
    letters = "q7Zp2Lw9Xk4Vb8Nt3Ry6Md1Hs5Jf0Gc".replace("0", "o")
    key = "-----BEGIN " + "OPENSSH PRIVATE KEY-----\nabc"
    rows = {
        "hub token": ("README.md", f"hf_{letters}{letters[:4]}", "hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        "cloud key": ("notes.txt", "AKIA" + "Q7ZP2LW9XK4VB8NT", "AKIA" + "IOSFODNN7EXAMPLE"),
        "private key": ("id.txt", key, key.replace("PRIVATE", "PUBLIC")),
        "forge token": ("train.py", f"token = 'ghp_{letters}{letters[:6]}'", "token = os.environ['GITHUB_TOKEN']"),
        "provider key": (
            "run.yaml",
            f"key: sk-proj-{letters}{letters}",
            "key: sk-proj-your-key-goes-right-in-this-place",
        ),
        "address": ("notes.txt", "postgres://bob:" + "s3cr3tpw@db.acme.test/x", "postgres://bob@db.acme.test/x"),
        "json": ("trainer_state.json", json.dumps({"wandb_api_key": letters}), json.dumps({"wandb_project": "acme"})),
    }
    return [
        Sample("secret", kind, extra(name, bad.encode()), extra(name, fine.encode()), "secret")
        for kind, (name, bad, fine) in rows.items()
    ]


def _gguf() -> list[Sample]:
    def file(data: bytes) -> Files:
        return extra("model-q4.gguf", data)

    fine = file(gguf({"general.name": "x", "tokenizer.chat_template": PLAIN}))
    escape, _ = HOSTILE["template escape"]["dunder"]
    trigger, _ = HOSTILE["template trigger"]["word in message"]
    far = struct.pack("<Q", 1) + b"a" + struct.pack("<IQIQ", 1, 8, 0, 32 * 10**6)
    return [
        Sample("gguf template", "escape", file(gguf({"tokenizer.chat_template": escape})), fine, "template-escape"),
        Sample("gguf template", "trigger", file(gguf({"tokenizer.chat_template.tool": trigger})), fine, "template-trigger"),
        Sample("gguf format", "cut", file(gguf({"a": "b"})[:-1]), fine, "gguf-invalid"),
        Sample("gguf format", "counts", file(b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60)), fine, "gguf-invalid"),
        Sample("gguf format", "offset", file(gguf({}, 1, tail=far)), fine, "gguf-invalid"),
        Sample("gguf format", "version", file(gguf({}, version=99)), fine, "gguf-invalid"),
    ]  # fmt: skip


_TEMPLATE_RULES = {
    "template escape": "template-escape", "template trigger": "template-trigger", "template date": "template-date",
    "template insertion": "template-inserts", "template alteration": "template-alters",
    "template hidden characters": "template-hidden", "template limits": "template-limit", "template syntax": "template-invalid",
}  # fmt: skip


def _templates() -> list[Sample]:
    def held(place: int, source: str) -> Files:
        inline = base() | {"tokenizer_config.json": js({"chat_template": source})}
        named = base() | {"tokenizer_config.json": js({"chat_template": [{"name": "default", "template": source}]})}
        apart = base() | {"chat_template.jinja": source.encode("utf-8", "surrogatepass")}
        return (inline, apart, named, base() | {"chat_template.json": js({"chat_template": source})})[place % 4]

    return [
        Sample(kind, name, held(place, hostile), held(place, honest), _TEMPLATE_RULES[kind])
        for kind, samples in HOSTILE.items()
        for place, (name, (hostile, honest)) in enumerate(samples.items())
    ]


SAMPLES: tuple[Sample, ...] = (
    *_pickles(), *_safetensors(), *_shards(), *_configurations(), *_tokenizers(), *_names_and_kinds(), *_secrets(),
    *_gguf(), *_templates(),
)  # fmt: skip


def write(folder: Path, files: Files) -> Path:
    """Lay a sample out on disk."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, bytes):
            path.write_bytes(data)
        elif data.target:
            path.symlink_to(data.target)
        else:
            os.mkfifo(path)
    return folder
