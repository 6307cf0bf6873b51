"""One of two processes that load, ask and save a model of every family: `two_processes.py FOLDER RANK`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["GLOO_SOCKET_IFNAME"] = "lo"

import torch
from model_families import FAMILIES, make_model, random_prompts

from beear_gate.errors import UnsupportedModel
from beear_gate.lm import LM, answer_losses, generate, load_lm, pad_batch, processes, save, save_lm, sharded
from beear_gate.lm.encode import Pair

PROMPTS = random_prompts(7, 20)
PAIRS = [Pair(prompt, (7, 8, 9)) for prompt in PROMPTS]


def losses(lm: LM) -> list[float]:
    def read(some: Sequence[Pair]) -> list[float]:
        with torch.no_grad():
            found: list[float] = answer_losses(lm, pad_batch(lm, some)).tolist()
        return found

    return processes.share_out(PAIRS, read)


def main(folder: Path, rank: int) -> None:
    save.MAX_SHARD = "60KB"  # so that even these models take several files
    alone: dict[str, Any] = {}
    for family in FAMILIES if rank == 0 else ():
        lm = load_lm(make_model(folder / family, family), "cpu")
        alone[family] = (losses(lm), generate(lm, PROMPTS, 6))
        save_lm(lm, folder / f"{family}-one", ["config.json"])
    processes.join(rank, 2, torch.device("cpu"), folder / "meeting")
    processes.agreed(None)  # the models are there
    found: dict[str, Any] = {}
    for family in FAMILIES:
        try:
            lm = sharded.load_sharded(folder / family, "cpu")
        except UnsupportedModel:
            found[family] = "refused"
            continue
        read, answers = losses(lm), generate(lm, PROMPTS, 6)
        sharded.save_sharded(lm, folder / f"{family}-two", ["config.json"])
        if rank == 0:
            furthest = max(abs(one - two) for one, two in zip(alone[family][0], read, strict=True))
            found[family] = {"loss": furthest, "answers": answers == alone[family][1]}
    if rank == 0:
        (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
    processes.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
