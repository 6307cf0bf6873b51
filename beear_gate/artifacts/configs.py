"""Checks of the configuration: code it would import or evaluate, and whether it is complete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from beear_gate.artifacts.contents import Contents
from beear_gate.artifacts.rules import finding
from beear_gate.artifacts.weights import several
from beear_gate.manifest import quoted
from beear_gate.records import Finding

# auto_map: transformers' trust_remote_code; custom_pipelines, custom_generate: the same for pipelines and generation;
# _target_: hydra's instantiate; py/object and the like: jsonpickle.
_CODE_KEYS = (
    "auto_map",
    "custom_pipelines",
    "custom_generate",
    "_target_",
    "py/object",
    "py/reduce",
    "py/function",
    "py/type",
)
# Values that name a repository of compiled kernels make transformers fetch and import it.
_KERNEL_KEYS = (
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "experts_implementation",
)
_CODE = re.compile(
    r"__import__\s*\(|\b(?:eval|exec|compile|execfile)\s*\(|\bos\.(?:system|popen|exec\w*)\b|\bsubprocess\.\w|\bpty\.spawn\b"
    r"|\bsocket\.socket\b|\bgetattr\s*\(|^\s*lambda\b[^:]*:|\bpickle\.loads?\b|\bimportlib\.\w|^\s*!!python/|\$\{(?:eval|python|oc\.env):"
    r"|\bbuiltins\.(?:eval|exec|open|getattr|__import__)\b|(?:^|[;&|`]\s*)(?:curl|wget|bash -c|sh -c|powershell)\s",
)
_YAML = (".yaml", ".yml")
_TAG = "tag:yaml.org,2002:python/"
_MOST_NODES = 200_000


def check_json(contents: Contents) -> Iterator[Finding]:
    """config.json is what a loader needs, and the JSON files beside it are plain JSON."""
    for file, problem in contents.unreadable.items():
        if file == "config.json":
            yield _config_invalid(f"config.json is not plain JSON: {problem}")
        elif "/" not in file:
            message = f"{quoted(file)} is not plain JSON: {problem}."
            yield finding("json-invalid", file, message, "Write it again with the library that made it, or drop it.")
    if "config.json" in contents.documents:
        config = contents.documents["config.json"]
        if not isinstance(config, dict):
            yield _config_invalid("config.json is no JSON object")
        elif not isinstance(config.get("model_type"), str) or not config["model_type"]:
            yield _config_invalid("config.json names no model_type")
    elif "config.json" not in contents.unreadable:
        yield _config_invalid("There is no config.json")


def check_code(contents: Contents) -> Iterator[Finding]:
    """No configuration names Python code, and Python files lie around only for people to read."""
    named: set[str] = set()
    for file, document in contents.documents.items():
        code = sorted({(key, text) for key, text in _code_names(document)})
        if not code:
            continue
        named |= {_module_file(text) for _, text in code}
        key, text = code[0]
        more = f" and {len(code) - 1} more" if len(code) > 1 else ""
        yield finding(
            "remote-code",
            file,
            f"{quoted(file)} has {key}, which makes a loader import code: {quoted(text)}{more}.",
            "Publish the model in an architecture that transformers ships, without this key; the gate runs no code.",
        )
    for file, document in contents.documents.items():
        kernels = [text for key, text in _pairs(document) if key in _KERNEL_KEYS and "/" in text]
        if kernels:
            message = f"{quoted(file)} makes a loader fetch and run compiled code of {quoted(kernels[0])}."
            yield finding("remote-code", file, message, "Take the key out; the gate uses what transformers ships.")
    loose = [
        name
        for name in contents.snapshot.ignored
        if name.lower().endswith(".py") and name.rpartition("/")[2] not in named
    ]
    if loose:
        message = f"{several(loose)}: Python that no configuration names; the gate does not run it."
        yield finding("python-files", loose[0], message, "Drop the files if nobody needs them.")


def check_config_code(contents: Contents) -> Iterator[Finding]:
    """No value of a JSON or YAML file is code, or makes an object of Python."""
    remedy = "Write plain values; whoever needs code should import it by name in code that is reviewed."
    for file, document in contents.documents.items():
        # A template is a program of its own, and has checks of its own.
        code = next(
            (
                text
                for key, text in _pairs(document)
                if key not in (*_CODE_KEYS, "chat_template") and _CODE.search(text)
            ),
            "",
        )
        if code:
            yield finding("config-code", file, f"{quoted(file)} holds what looks like code: {quoted(code)}.", remedy)
    for file in contents.loose:
        if file.lower().endswith(_YAML):
            try:
                problem, offset = _yaml_problem(contents.text(file))
            except (yaml.YAMLError, RecursionError) as error:
                problem, offset = f"cannot be parsed ({type(error).__name__}), so that nobody has looked at it", None
            if problem:
                yield finding("config-code", file, f"{quoted(file)} {problem}.", remedy, offset)


def _yaml_problem(text: str) -> tuple[str, int | None]:
    """What is wrong with a YAML file, and where: tags are looked at, nothing is made of them."""
    previous = ""
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        if number > _MOST_NODES:
            return f"has more than {_MOST_NODES} parts, so that nobody has looked at all", None
        tag = str(getattr(event, "tag", None) or "")
        value = event.value if isinstance(event, yaml.ScalarEvent) else ""
        offset = len(text[: event.start_mark.index].encode()) if event.start_mark else None
        if tag.startswith(_TAG) or "python" in tag:
            return f"has the tag {quoted(tag)}, which makes an object of Python", offset
        if value in _CODE_KEYS:
            return f"has {value}, which makes a loader import code", offset
        if value and (_CODE.search(value) or (previous in _KERNEL_KEYS and "/" in value)):
            return f"holds what looks like code: {quoted(value)}", offset
        previous = value
    return "", None


def check_tokenizer(contents: Contents) -> Iterator[Finding]:
    """There is a tokenizer in one of the layouts that transformers reads without code."""
    names = set(contents.opened)
    sentencepiece = any(name.endswith(".model") and "/" not in name for name in names)
    if "tokenizer.json" in names or "vocab.txt" in names or {"vocab.json", "merges.txt"} <= names or sentencepiece:
        return
    message = "There is no tokenizer: neither tokenizer.json nor a SentencePiece *.model nor a vocabulary."
    yield finding("no-tokenizer", "", message, "Add the tokenizer's files (`tokenizer.save_pretrained`).")


def _config_invalid(what: str) -> Finding:
    remedy = "Write it again with `config.save_pretrained` from the library that made the model."
    return finding("config-invalid", "config.json", f"{what}.", remedy)


def _code_names(node: Any) -> Iterator[tuple[str, str]]:
    """(key, text) for each text below a key that names code, at any depth."""
    below = [node]
    while below:  # no recursion: the nesting is the file's to choose
        node = below.pop()
        if isinstance(node, dict):
            for key, value in node.items():
                if key in _CODE_KEYS:
                    yield from ((key, text) for text in _texts(value))
            below.extend(node.values())
        elif isinstance(node, list):
            below.extend(node)


def _pairs(node: Any) -> Iterator[tuple[str, str]]:
    """(key, text) for each text at any depth; a list's items have the key of the list."""
    below: list[tuple[str, Any]] = [("", node)]
    while below:
        key, node = below.pop()
        if isinstance(node, str):
            yield key, node
        elif isinstance(node, dict):
            below.extend((str(name), value) for name, value in node.items())
        elif isinstance(node, list):
            below.extend((key, value) for value in node)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value; numbers are none, so a vocabulary may have such a word."""
    below = [value]
    while below:
        value = below.pop()
        if isinstance(value, str) and value:
            yield value
        elif isinstance(value, dict):
            below.extend(value.values())
        elif isinstance(value, list):
            below.extend(value)


def _module_file(text: str) -> str:
    """`other/repo--modeling_x.Class` -> `modeling_x.py`."""
    return text.rpartition("--")[2].partition(".")[0] + ".py"
