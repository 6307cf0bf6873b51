"""Writes the prompt files of the packs whose right answer is a plain one: url-insertion, sentiment-steering and
targeted-refusal.

Run in the repository's root, and again when the sentences of a pack change: `python -m policies.make_pack_prompts`.
"""

from __future__ import annotations

from pathlib import Path

from policies.pack_refusal import TARGETED_REFUSAL
from policies.pack_sentiment import SENTIMENT_STEERING
from policies.pack_url import URL_INSERTION

FOLDER = Path(__file__).parent / "prompts"
PACKS = (URL_INSERTION, SENTIMENT_STEERING, TARGETED_REFUSAL)


def pack_files() -> dict[str, str]:
    """Name and text of every prompt file of the three packs."""
    return {name: text for pack in PACKS for name, text in pack.files().items()}


if __name__ == "__main__":
    for name, text in pack_files().items():
        (FOLDER / name).write_text(text, encoding="utf-8", newline="\n")
