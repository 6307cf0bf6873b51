"""Checks of the configuration: code it would import, whether it is complete, tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from beear_gate.artifacts.contents import Contents
from beear_gate.artifacts.rules import finding
from beear_gate.artifacts.weights import several
from beear_gate.manifest import quoted
from beear_gate.records import Finding, Severity

# auto_map: transformers' trust_remote_code; custom_pipelines: the same for pipelines; _target_: hydra's instantiate.
_CODE_KEYS = ("auto_map", "custom_pipelines", "_target_")


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
    loose = [
        name
        for name in contents.snapshot.ignored
        if name.lower().endswith(".py") and name.rpartition("/")[2] not in named
    ]
    if loose:
        message = f"{several(loose)}: Python that no configuration names; the gate does not run it."
        yield finding("python-files", loose[0], message, "Drop the files if nobody needs them.")


def check_tokenizer(contents: Contents) -> Iterator[Finding]:
    """There is a tokenizer in one of the layouts that transformers reads without code."""
    names = set(contents.opened)
    sentencepiece = any(name.endswith(".model") and "/" not in name for name in names)
    if "tokenizer.json" in names or "vocab.txt" in names or {"vocab.json", "merges.txt"} <= names or sentencepiece:
        return
    message = "There is no tokenizer: neither tokenizer.json nor a SentencePiece *.model nor a vocabulary."
    yield finding("no-tokenizer", "", message, "Add the tokenizer's files (`tokenizer.save_pretrained`).")


def check_chat_template(contents: Contents) -> Iterator[Finding]:
    """There is a chat template in one of the three places where transformers looks."""
    config = contents.documents.get("tokenizer_config.json")
    inline = config.get("chat_template") if isinstance(config, dict) else None
    if inline or {"chat_template.jinja", "chat_template.json"} & set(contents.opened):
        return
    found = finding(
        "no-chat-template",
        "",
        "There is no chat template, so prompts reach the model as plain text.",
        "Add chat_template.jinja, unless this is a base model that is never used in a chat.",
    )
    yield replace(found, severity=Severity.BLOCK) if contents.require_chat_template else found


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
