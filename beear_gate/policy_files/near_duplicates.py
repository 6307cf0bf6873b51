"""Finds prompts that say nearly the same, by the Jaccard index of their sets of words.

All pairs of 10,000 prompts are 50 million; an inverted index over the rarest words of each prompt leaves thousands.
Scripts without spaces between words give few, long words, so that there only longer common phrases are found.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations

from beear_gate.policy_files.text import normalized

Pair = tuple[int, int, float]
"""Two indices into the texts, the smaller first, and their Jaccard index."""

ROUNDING = 1e-9
"""Slack for sizes computed in floating point: a few candidates more, never a pair less."""


def similar_pairs(texts: Sequence[str], max_jaccard: float, wanted: Callable[[int, int], bool]) -> Iterator[Pair]:
    """Every wanted pair of texts whose word Jaccard is above `max_jaccard`, or that are equal but for case and space.

    Args:
        max_jaccard: 1.0 finds equal texts alone, whatever their words.
        wanted: says of two indices (smaller first) whether that pair is of interest; asked before the comparison.
    """
    words = [frozenset(re.findall(r"\w+", text.lower())) for text in texts]
    # Texts without any word, such as "???", can only be equal.
    same: dict[str, list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        if max_jaccard >= 1.0 or not words[number]:
            same[normalized(text)].append(number)
    for numbers in same.values():
        yield from ((i, j, 1.0) for i, j in combinations(numbers, 2) if wanted(i, j))
    if max_jaccard < 1.0:
        yield from _close_pairs(words, max_jaccard, wanted)


def _close_pairs(
    words: Sequence[frozenset[str]], max_jaccard: float, wanted: Callable[[int, int], bool]
) -> Iterator[Pair]:
    frequency = Counter(chain.from_iterable(words))
    index: dict[str, list[int]] = defaultdict(list)
    for number in sorted(range(len(words)), key=lambda n: len(words[n])):
        size = len(words[number])
        rarest_first = sorted(words[number], key=lambda word: (frequency[word], word))
        # A smaller close set shares more than `smallest` words with this one, so leaving that many out of the search
        # misses none. A larger one shares more than `shared_above`, so even fewer words need an entry in the index.
        smallest = max_jaccard * size - ROUNDING
        shared_above = 2 * max_jaccard / (1 + max_jaccard) * size - ROUNDING
        seen: set[int] = set()
        for word in rarest_first[: size - int(smallest)]:
            for other in reversed(index[word]):  # from large to small
                if len(words[other]) < smallest:
                    break
                if other in seen:
                    continue
                seen.add(other)
                pair = (min(number, other), max(number, other))
                if wanted(*pair):
                    shared = len(words[number] & words[other])
                    jaccard = shared / (size + len(words[other]) - shared)
                    if jaccard > max_jaccard:
                        yield (*pair, jaccard)
        for word in rarest_first[: size - int(shared_above)]:
            index[word].append(number)


def clusters(texts: Sequence[str], max_jaccard: float) -> list[int]:
    """A number for each text, 0, 1, … by first appearance; texts that a chain of near-duplicates connects share one."""
    parent = list(range(len(texts)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for i, j, _ in similar_pairs(texts, max_jaccard, lambda i, j: root(i) != root(j)):
        parent[max(root(i), root(j))] = min(root(i), root(j))
    order: dict[int, int] = {}
    return [order.setdefault(root(number), len(order)) for number in range(len(texts))]
