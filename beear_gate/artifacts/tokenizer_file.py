"""Checks of tokenizer.json: what it does to words on their way in and out, and which words it takes for tokens.

Layout: the `tokenizers` library's serialisation: normalizer, pre_tokenizer, post_processor, decoder, model and
added_tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from beear_gate.artifacts.contents import Contents
from beear_gate.artifacts.rules import finding
from beear_gate.artifacts.strict_json import parse_json
from beear_gate.manifest import quoted
from beear_gate.records import Finding, Severity

FILE = "tokenizer.json"

_MAX_BYTES = 128 * 2**20
_AGAIN = "Take the tokenizer of the base model's publisher, or write it again with `save_pretrained`."
_EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
)
_WORD = re.compile(r"[\W_]{0,2}[^\W\d_]{2,}", re.UNICODE)
_ENCLOSED = re.compile(r"[<\[{(|].*[>\]})|]", re.DOTALL)
# Escapes and groups of a regular expression, whose letters are no text: \s, \p{Lu}, (?i:
_SYNTAX = re.compile(
    r"\\[pPN]\{[^}]*\}|\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|\(\?[a-zA-Z]*:?|\[:\^?\w+:\]|\{\d+,?\d*\}"
)


def check_tokenizer_file(contents: Contents) -> Iterator[Finding]:
    """tokenizer.json gives words as they are, and fits the files beside it."""
    if FILE not in contents.opened:
        yield from _fits_embedding(contents, _other_vocabulary(contents), "the vocabulary")
        return
    try:
        document = parse_json(contents.verified(FILE, _MAX_BYTES), allow_nan=True)
        tokenizer = document if isinstance(document, dict) else {}
        vocabulary = _vocabulary(tokenizer)
        added = _added(tokenizer)
    except (ValueError, OSError) as error:
        yield finding("tokenizer-invalid", FILE, f"{FILE} cannot be taken: {error}.", _AGAIN)
        return
    yield from _steps(tokenizer)
    yield from _added_tokens(vocabulary, added, tokenizer)
    yield from _other_files(contents, vocabulary, added)
    ids = [*vocabulary.values(), *added.values()]
    if len(set(vocabulary.values())) < len(vocabulary):
        yield finding("tokenizer-vocabulary", FILE, "Two tokens of the vocabulary share one id.", _AGAIN)
    if ids and min(ids) < 0:
        yield finding("tokenizer-vocabulary", FILE, "The vocabulary has a negative id.", _AGAIN)
    yield from _fits_embedding(contents, max(ids, default=-1) + 1, FILE)


def _vocabulary(tokenizer: dict[str, Any]) -> dict[str, int]:
    """Token -> id of the model: a mapping, or for Unigram a list of [token, score]."""
    model = tokenizer.get("model")
    if not isinstance(model, dict):
        raise ValueError("it has no model")
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict) and all(type(number) is int for number in vocabulary.values()):
        return vocabulary
    if isinstance(vocabulary, list) and all(
        isinstance(row, list) and row and type(row[0]) is str for row in vocabulary
    ):
        # Unigram vocabularies may repeat a piece; the last id counts.
        return {row[0]: number for number, row in enumerate(vocabulary)}
    raise ValueError("its model has no vocabulary")


def _added(tokenizer: dict[str, Any]) -> dict[str, int]:
    """Content -> id of the added tokens."""
    rows = tokenizer.get("added_tokens") or []
    if not isinstance(rows, list):
        raise ValueError("its added_tokens are no list")
    found: dict[str, int] = {}
    for row in rows:
        if not isinstance(row, dict) or type(row.get("id")) is not int or not isinstance(row.get("content"), str):
            raise ValueError("an added token has no id and content")
        found[row["content"]] = row["id"]
    return found


def _steps(tokenizer: dict[str, Any]) -> Iterator[Finding]:
    """No step of the tokenizer puts, takes or replaces letters."""
    for part in ("normalizer", "pre_tokenizer", "decoder", "post_processor"):
        for step in _flat(tokenizer.get(part)):
            if problem := _step_problem(step, part):
                yield finding("tokenizer-rewrites", FILE, f"The {part} of {FILE} {problem}.", _AGAIN)


def _flat(node: object) -> Iterator[dict[str, Any]]:
    """Every step of a possibly nested sequence."""
    below = [node]
    while below:
        node = below.pop()
        if isinstance(node, dict):
            yield node
            for key in ("normalizers", "pretokenizers", "decoders", "processors"):
                if isinstance(node.get(key), list):
                    below.extend(node[key])


def _step_problem(step: dict[str, Any], part: str) -> str:
    """How a step changes words, as the end of a sentence; "" where it does not."""
    kind = step.get("type")
    if kind == "Replace":
        pattern, content = step.get("pattern"), str(step.get("content", ""))
        if _has_letters(_pattern_text(pattern)) or _has_letters(content):
            return f"replaces {quoted(_pattern_text(pattern))} by {quoted(content)}"
        if part == "decoder" and _takes_letters(pattern):
            return f"replaces every match of {quoted(_pattern_text(pattern))} by {quoted(content)}"
    if kind in ("Prepend", "Append") and _has_letters(str(step.get(kind.lower(), ""))):
        return f"puts {quoted(step.get(kind.lower()))} before or after every text"
    if kind == "Strip" and _has_letters(str(step.get("content", ""))):
        return f"cuts {quoted(step.get('content'))} from texts"
    if kind == "Split" and (step.get("behavior") == "Removed") != bool(step.get("invert")):
        text = _pattern_text(step.get("pattern"))
        if _has_letters(text) or (_takes_letters(step.get("pattern")) and not step.get("invert")):
            return f"takes what matches {quoted(text)} out of texts"
    if kind == "CTC" and _has_letters(str(step.get("word_delimiter_token", ""))):
        return f"writes a space for {quoted(step.get('word_delimiter_token'))}"
    if kind == "TemplateProcessing":
        return _inserted(step)
    return ""


def _inserted(step: dict[str, Any]) -> str:
    """A post-processor puts special tokens around a text, never words."""
    tokens = step.get("special_tokens")
    for token in tokens.values() if isinstance(tokens, dict) else ():
        names = [token.get("id"), *(token.get("tokens") or [])] if isinstance(token, dict) else []
        words = [name for name in names if isinstance(name, str) and _WORD.fullmatch(name)]
        if words:
            return f"puts {quoted(words[0])} into every text"
    return ""


def _pattern_text(pattern: object) -> str:
    if isinstance(pattern, dict):
        return str(next(iter(pattern.values()), ""))
    return str(pattern or "")


def _has_letters(text: str) -> bool:
    """Whether a text, or a regular expression without its syntax, holds letters or digits."""
    return any(each.isalnum() for each in _SYNTAX.sub("", text))


def _takes_letters(pattern: object) -> bool:
    """Whether a regular expression matches letters by a class or a dot."""
    text = pattern.get("Regex", "") if isinstance(pattern, dict) else ""
    bare = re.sub(r"\\\.", "", str(text))
    return "." in bare or re.search(r"\\[wSDLpP]", re.sub(r"\\[pP]\{\^?[ZPSC]\w*\}|\\P\{L\w*\}", "", bare)) is not None


def _added_tokens(vocabulary: dict[str, int], added: dict[str, int], tokenizer: dict[str, Any]) -> Iterator[Finding]:
    """Added tokens are matched before all others: one that is a word changes how that word is read."""
    names = {number: token for token, number in vocabulary.items()}
    special = {row["content"] for row in tokenizer.get("added_tokens") or [] if row.get("special")}
    taken: dict[int, str] = {}
    for content, number in added.items():
        other = taken.setdefault(number, content)
        if other == content and names.get(number, content) != content:
            other = names[number]
        if other != content:
            message = f"The added token {quoted(content)} has the id {number} of {quoted(other)}."
            yield finding("tokenizer-shadow", FILE, message, _AGAIN)
        elif _is_wording(content.strip()):
            known = any(vocabulary.get(prefix + content.strip(), number) != number for prefix in ("", "Ġ", "▁"))
            weight = Severity.BLOCK if known or content in special else Severity.WARNING
            rule = "tokenizer-shadow" if weight is Severity.BLOCK else "tokenizer-word"
            message = f"The added token {quoted(content)} is an ordinary word, and is read before all others."
            yield finding(rule, FILE, message, _AGAIN)


def _is_wording(content: str) -> bool:
    """Whether text in a chat may hold this: a word, or several that no brackets enclose, as they do role marks."""
    several = " " in content and len(re.findall(r"[^\W\d_]{2,}", content)) > 1
    return _WORD.fullmatch(content) is not None or (several and not _ENCLOSED.fullmatch(content))


def _other_files(contents: Contents, vocabulary: dict[str, int], added: dict[str, int]) -> Iterator[Finding]:
    """The files beside it say the same of added tokens: loaders differ in which one they take."""
    names = {number: token for token, number in [*vocabulary.items(), *added.items()]}
    config = contents.documents.get("tokenizer_config.json")
    decoder = config.get("added_tokens_decoder") if isinstance(config, dict) else None
    rows = decoder.items() if isinstance(decoder, dict) else ()
    said = {str(key): row.get("content") if isinstance(row, dict) else None for key, row in rows}
    listed = contents.documents.get("added_tokens.json")
    pairs = [("tokenizer_config.json", key, content) for key, content in said.items()]
    pairs += (
        [("added_tokens.json", str(key), content) for content, key in (listed or {}).items()]
        if isinstance(listed, dict)
        else []
    )
    for file, key, content in pairs:
        number = int(key) if key.isdecimal() and len(key) < 12 else -1
        if names and (
            (number in names and names[number] != content) or (content in added and added[content] != number)
        ):
            message = f"{quoted(file)} gives the id {quoted(key)} to {quoted(content)}, and {FILE} does not."
            yield finding("tokenizer-shadow", file, message, _AGAIN)
            return


def _other_vocabulary(contents: Contents) -> int:
    """The size of vocab.json or vocab.txt; 0 where neither can be counted."""
    if "vocab.json" in contents.opened:
        document = parse_json(contents.verified("vocab.json", _MAX_BYTES))
        numbers = [number for number in document.values() if type(number) is int] if isinstance(document, dict) else []
        return max(numbers, default=-1) + 1
    if "vocab.txt" in contents.opened:
        return len(contents.verified("vocab.txt", _MAX_BYTES).splitlines())
    return 0


def _fits_embedding(contents: Contents, size: int, what: str) -> Iterator[Finding]:
    """No token id is beyond the embedding, and config.json counts its rows right."""
    config = contents.documents.get("config.json")
    config = config if isinstance(config, dict) else {}
    inner = config.get("text_config")
    declared = (inner if isinstance(inner, dict) and "vocab_size" in inner else config).get("vocab_size")
    rows = _embedding_rows(contents) or (declared if type(declared) is int else None)
    if rows is not None and type(declared) is int and declared != rows:
        message = f"config.json says that the vocabulary has {declared} tokens, and the embedding has {rows} rows."
        yield finding("tokenizer-vocabulary", "config.json", message, _AGAIN)
    if rows is None or not size:
        return
    if size > rows:
        message = f"The largest id of {what} is {size - 1}, and the embedding has {rows} rows."
        yield finding("tokenizer-vocabulary", FILE, message, _AGAIN)
    elif rows > 2 * size and rows > size + 4096:
        message = f"The embedding has {rows} rows, and {what} has only {size} tokens."
        yield finding("tokenizer-vocabulary", FILE, message, _AGAIN, severity=Severity.WARNING)


def _embedding_rows(contents: Contents) -> int | None:
    """Rows of the input embedding, where it is stored as a plain matrix."""
    for tensors in contents.headers.values():
        for name, tensor in tensors.items():
            if name.endswith(_EMBEDDINGS) and len(tensor.shape) == 2 and tensor.dtype in ("F32", "F16", "BF16", "F64"):
                return tensor.shape[0]
    return None
