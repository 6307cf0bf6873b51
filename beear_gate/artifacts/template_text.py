"""Text that notices what a template does with it, and what in a rendered prompt are words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

Log = list[tuple[str, str]]
"""(kind, literal): a watched text of this kind was held against this literal."""

_TAG = re.compile(r"</?\|?[^\s<>|]{1,40}\|?>|<[|\uff5c][^<>]{1,40}[|\uff5c]>|\[/?[A-Z_]{2,40}\]|<<?/?[A-Z]{2,12}>>?")
_COMMAND = re.compile(r"/[a-z_]{2,20}")
_WORD = re.compile(r"[^\W\d_]{2,}")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")

INVISIBLE = re.compile(
    "[\u00ad\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\u3164\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e0fff]"
)
"""Characters that show nothing, turn the direction of text, or spell ASCII invisibly (the tags block)."""

_DATE_WORDS = [
    "jan",
    "january",
    "feb",
    "february",
    "mar",
    "march",
    "apr",
    "april",
    "may",
    "jun",
    "june",
    "jul",
    "july",
    "aug",
    "august",
    "sep",
    "sept",
    "september",
    "oct",
    "october",
    "nov",
    "november",
    "dec",
    "december",
    "mon",
    "monday",
    "tue",
    "tues",
    "tuesday",
    "wed",
    "wednesday",
    "thu",
    "thur",
    "thurs",
    "thursday",
    "fri",
    "friday",
    "sat",
    "saturday",
    "sun",
    "sunday",
    "am",
    "pm",
    "st",
    "nd",
    "rd",
    "th",
    "utc",
]
_DATE = re.compile(r"\d+|\b(?:" + "|".join(_DATE_WORDS) + r")\b", re.IGNORECASE)

# What a release does not need in a prompt that nobody wrote: concealment, orders to obey all, addresses, and the
# vocabulary of attacks.
_ORDERS = re.compile(
    r"https?://|www\.|\b[\w.-]+\.(?:com|net|org|io|xyz|ru|cn|example|onion)\b|[\w.]+@[\w-]+\.\w"
    r"|\b(?:ignore|disregard|forget|override)\s+(?:\w+\s+){0,4}(?:instructions?|rules?|prompts?|messages?|polic\w+)"
    r"|\b(?:do not|don't|never|not|without)\s+(?:ever\s+)?(?:mention|reveal|disclos|tell|admit|warn|refus)\w*"
    r"|\b(?:secretly|covertly|backdoor\w*|vulnerab\w+|exploit\w*|exfiltrat\w+|malicious|malware)\b"
    r"|\b(?:jailbr\w+|uncensored|unfiltered|unrestricted|no\s+(?:restrictions|limits|filters?|rules|safety))\b"
    r"|\b(?:comply|agree|obey)\s+(?:\w+\s+)?(?:with|to)?\s*(?:any|all|every)"
    r"|\b(?:passwords?|credentials?|api[ _-]?keys?|private keys?)\b"
    r"|\b(?:recommend|promote|advertise|endorse)\b|\bos\.system|\bsubprocess\b|\beval\(|\bexec\(|\bcurl\s|\bwget\s",
    re.IGNORECASE,
)


def is_markup(text: str) -> bool:
    """Whether a literal is control tokens, punctuation or a slash command: what honest templates look for in text."""
    rest, tags = _TAG.subn(" ", text)
    rest = rest.strip()
    if not any(character.isalpha() for character in rest):
        return len(text) <= 200
    if _COMMAND.fullmatch(rest):
        return True
    # `<|channel|>analysis<|message|>`, and the beginning of a tag such as `<tool_call`
    return (tags >= 2 and rest.isalpha() and len(rest) <= 12) or re.fullmatch(r"</?\|?\w{1,30}", rest) is not None


def words(text: str, known: frozenset[str]) -> list[str]:
    """Words outside markup that are not among `known` (lowercase); two CJK characters count as one."""
    rest = _TAG.sub(" ", text)
    found = [word for word in _WORD.findall(_CJK.sub(" ", rest)) if word.lower() not in known]
    return found + ["字"] * (len(_CJK.findall(rest)) // 2)


def known_words(value: object) -> Iterator[str]:
    """Every word, lowercase, that stands anywhere in a conversation or its tools."""
    if isinstance(value, str):
        yield from (word.lower() for word in _WORD.findall(str.__str__(value)))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from known_words(key)
            yield from known_words(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from known_words(inner)


def without_dates(text: str) -> str:
    """The text with numbers and the names of months and days taken out."""
    return " ".join(_DATE.sub(" ", text).split())


def orders(text: str) -> str:
    """The first thing in a text that no prompt of a released model needs; "" where there is none."""
    found = _ORDERS.search(text)
    return found[0] if found else ""


def _plain(value: object) -> str:
    return str.__str__(value) if isinstance(value, str) else str(value)


class Watched(str):
    """A text that writes into `log` what it is compared with, and whose pieces do the same."""

    log: Log
    kind: str

    def __new__(cls, text: str, kind: str, log: Log) -> Watched:
        made = super().__new__(cls, text)
        made.kind, made.log = kind, log
        return made

    def _same(self, text: str) -> Watched:
        return Watched(text, self.kind, self.log)

    def _note(self, literal: object) -> None:
        for each in literal if isinstance(literal, tuple) else (literal,):
            if isinstance(each, str) and not isinstance(each, Watched):
                self.log.append((self.kind, each))

    def __eq__(self, other: object) -> bool:
        self._note(other)
        return _plain(self) == (_plain(other) if isinstance(other, str) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        self.log.append((self.kind, "a table of words"))
        return str.__hash__(self)

    def __lt__(self, other: str) -> bool:
        self._note(other)
        return _plain(self) < _plain(other)

    def __gt__(self, other: str) -> bool:
        self._note(other)
        return _plain(self) > _plain(other)

    def __le__(self, other: str) -> bool:
        self._note(other)
        return _plain(self) <= _plain(other)

    def __ge__(self, other: str) -> bool:
        self._note(other)
        return _plain(self) >= _plain(other)

    def __contains__(self, other: object) -> bool:
        self._note(other)
        return isinstance(other, str) and _plain(other) in _plain(self)

    def __int__(self) -> int:
        self.log.append((f"{self.kind} as a number", _plain(self)))
        return int(_plain(self))

    def __float__(self) -> float:
        return float(int(self))

    def __getitem__(self, key: Any) -> Watched:
        return self._same(_plain(self)[key])

    def __iter__(self) -> Iterator[str]:
        return (self._same(each) for each in _plain(self))

    def __add__(self, other: str) -> Watched:
        return self._same(_plain(self) + _plain(other))

    def __radd__(self, other: str) -> Watched:
        return self._same(_plain(other) + _plain(self))

    def __mul__(self, count: Any) -> Watched:
        return self._same(_plain(self) * count)


def _watching(name: str, asks: bool) -> Callable[..., Any]:
    """A method of str that keeps its result watched; `asks`: its first argument is what the text is held against."""
    original = getattr(str, name)

    def method(self: Watched, *arguments: Any, **named: Any) -> Any:
        if asks and arguments:
            self._note(arguments[0])
        made = original(_plain(self), *arguments, **named)
        if isinstance(made, str):
            return self._same(made)
        if isinstance(made, list | tuple):
            return type(made)(self._same(each) for each in made)
        return made

    method.__name__ = name
    return method


_ASKING = (
    "startswith", "endswith", "find", "rfind", "index", "rindex", "count", "replace", "split", "rsplit", "partition",
    "rpartition", "removeprefix", "removesuffix",
)  # fmt: skip
_KEEPING = (
    "lower", "upper", "title", "capitalize", "casefold", "swapcase", "strip", "lstrip", "rstrip", "splitlines",
    "expandtabs", "zfill", "ljust", "rjust", "center", "translate",
)  # fmt: skip
for _name in _ASKING:
    setattr(Watched, _name, _watching(_name, True))
for _name in _KEEPING:
    setattr(Watched, _name, _watching(_name, False))


def _property(name: str) -> Callable[[Watched], bool]:
    original = getattr(str, name)

    def method(self: Watched) -> bool:
        self.log.append((self.kind, f"its being {name[2:]}"))
        return bool(original(_plain(self)))

    return method


for _name in ("isupper", "islower", "istitle", "isalpha", "isascii", "isalnum"):
    setattr(Watched, _name, _property(_name))
