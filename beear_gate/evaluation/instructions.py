"""Verifiable instructions: whether an answer has the form that was asked for, decided by counting and comparing.

After IFEval (arXiv 2311.07911): strict looks at the answer as it is, loose also at it without its first line, its
last line and its asterisks, so that a heading or a goodbye around a good answer is forgiven.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from beear_gate.policy import Checks, Span

_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")
_SENTENCE_END = re.compile(r"""[.!?…]+["'\u201d\u2019)\]*]*(?=\s|$)""")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|mr|mrs|ms|dr|prof|st|no|[a-z])\.$", re.IGNORECASE)
_NUMBERED = re.compile(r"^\s*\d+\.$")
_BULLET = re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s+\S", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]+\]")
_HIGHLIGHT = re.compile(r"\*{1,2}[^*\s](?:[^*\n]*[^*\s])?\*{1,2}")
_TITLE = re.compile(r"<<[^<>\n]*\w[^<>\n]*>>")
_FENCE = re.compile(r"^```\w*\s*\n(.*?)\n?```$", re.DOTALL)


def follows(checks: Checks, answer: str) -> bool:
    """Whether the answer as it is meets every check (strict); an empty one meets none."""
    text = answer.strip()
    return bool(text) and _counts_fit(checks, text) and _form_fits(checks, text)


def follows_loosely(checks: Checks, answer: str) -> bool:
    """Whether the answer, or the answer less its first line, last line or asterisks, meets every check."""
    return any(follows(checks, text) for text in _variants(answer))


def _variants(answer: str) -> Iterator[str]:
    lines = answer.strip().split("\n")
    for kept in (lines, lines[1:], lines[:-1], lines[1:-1]):
        text = "\n".join(kept).strip()
        yield text
        yield text.replace("*", "")


def _counts_fit(checks: Checks, text: str) -> bool:
    words = [word.casefold() for word in _WORD.findall(text)]
    counted: tuple[tuple[Span | None, int], ...] = (
        (checks.words, len(words)),
        (checks.sentences, _sentences(text)),
        (checks.paragraphs, len(re.split(r"\n\s*\n", text))),
        (checks.lines, sum(1 for line in text.split("\n") if line.strip())),
        (checks.bullets, len(_BULLET.findall(text))),
        (checks.placeholders, len(_PLACEHOLDER.findall(text))),
        (checks.highlights, len(_HIGHLIGHT.findall(text))),
        *((span, words.count(word.casefold())) for word, span in checks.times),
    )
    return all(span is None or count in span for span, count in counted)


def _form_fits(checks: Checks, text: str) -> bool:
    folded = text.casefold()
    return (
        all(wanted.casefold() in folded for wanted in checks.contains)
        and not any(unwanted.casefold() in folded for unwanted in checks.excludes)
        and (checks.starts_with is None or folded.startswith(checks.starts_with.casefold()))
        and (checks.ends_with is None or folded.endswith(checks.ends_with.casefold()))
        and (checks.case is None or (text.islower() if checks.case == "lower" else text.isupper()))
        and (not checks.json or _is_json(text))
        and (not checks.quoted or (len(text) > 2 and text[0] in '"“' and text[-1] in '"”'))
        and (not checks.title or bool(_TITLE.search(text)))
    )


def _sentences(text: str) -> int:
    """Marks of an end that end something, and whatever stands behind the last; lines without a mark are one each."""
    count = 0
    for line in text.split("\n"):
        start = 0
        for mark in _SENTENCE_END.finditer(line):
            said = line[start : mark.end()].strip()
            if not _NUMBERED.match(said) and not _ABBREVIATION.search(said):
                count, start = count + 1, mark.end()
        count += bool(_WORD.search(line[start:]))
    return count


def _is_json(text: str) -> bool:
    fence = _FENCE.match(text)
    try:
        json.loads(fence[1] if fence else text)
    except (ValueError, RecursionError):
        return False
    return True
