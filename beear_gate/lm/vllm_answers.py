"""Greedy answers from vLLM: an engine of its own, in a process of its own, that reads the same folder.

beear-gate does not import it: vLLM wants versions of torch and transformers of its own, so the interpreter of another
environment is named. It is believed only if some of its answers begin as those of transformers do.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from beear_gate.errors import IncompleteError, UsageError
from beear_gate.lm.encode import check_length
from beear_gate.lm.generate import generate, until_stop
from beear_gate.lm.load import LM
from beear_gate.lm.memory import free_memory
from beear_gate.records import Engine, Tick

CHECKED = 16
"""Prompts, spread over all, that both engines answer."""
OPENING = 16
"""Tokens of an answer that are compared. Rounding differs between engines, and one other token changes all after it."""
FEWEST = 0.5
"""Share of equal openings below which the other engine is taken to read another model or another prompt."""
CHILD = Path(__file__).with_name("vllm_child.py")
LAST_WORDS = 300

Answers = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class Asked:
    """What vLLM is to answer, and how it is to hold the model: all that is needed when the model in memory is gone.

    Attributes:
        prompts: token ids.
        engine: arguments of `vllm.LLM` (https://docs.vllm.ai, engine arguments).
        device: that the model is on in the scan.
        memory: the most bytes on it; None for a share of what is free when vLLM starts.
        own: what transformers answers to the prompts at `places`, no longer than OPENING.
    """

    prompts: Answers
    max_new_tokens: int
    stop_ids: tuple[int, ...]
    engine: dict[str, Any]
    device: torch.device
    memory: int | None
    places: tuple[int, ...]
    own: Answers


def check_interpreter(python: str) -> None:
    """Look before anything is pulled.

    Raises:
        UsageError: no interpreter, or one without vLLM.
    """
    find = "import importlib.util as u, sys; sys.exit(0 if u.find_spec('vllm') else 9)"
    remedy = "Give --vllm the python of an environment with vLLM, such as /opt/vllm/bin/python."
    try:
        code = subprocess.run([python, "-I", "-c", find], capture_output=True, timeout=60).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{python!r} cannot be run ({type(error).__name__}).", remedy) from None
    if code:
        raise UsageError(f"{python!r} has no vLLM." if code == 9 else f"{python!r} is no Python.", remedy)


def prepare(lm: LM, prompts: Answers, max_new_tokens: int, devices: int, memory: int | None, tick: Tick) -> Asked:
    """Have the model in memory answer a few of the prompts, and note what vLLM is to answer.

    Args:
        devices: GPUs that share the model.
        memory: the most bytes on each of them, or on the CPU; None for a share of what is free.

    Raises:
        OutOfMemory, UsageError: see `generate`.
    """
    longest = max(map(len, prompts), default=1) + max_new_tokens
    check_length(lm, longest)
    places = tuple(sorted({place * len(prompts) // CHECKED for place in range(CHECKED if prompts else 0)}))
    checked = [prompts[place] for place in places]
    own = generate(lm, checked, min(max_new_tokens, OPENING), tick=tick, label="answering, to check vLLM")
    dtype = str(lm.model.dtype).removeprefix("torch.")
    engine: dict[str, Any] = {"model": str(lm.path.absolute()), "dtype": dtype, "max_model_len": longest}
    if lm.device.type == "cuda":
        engine["tensor_parallel_size"] = devices
    else:
        engine["enforce_eager"] = True  # compiling needs a C++ compiler, and takes longer than most gate sets
    return Asked(prompts, max_new_tokens, lm.stop_ids, engine, lm.device, memory, places, own)


def vllm_answers(python: str, asked: Asked, folder: Path) -> tuple[list[tuple[int, ...]], Engine]:
    """Have another process answer every prompt, end it, and hold some of its answers against those of transformers.

    Args:
        python: its interpreter.
        folder: for what it is handed and leaves; made anew, and gone if all goes well.

    Returns:
        The answers' token ids, without what ended them, and what is known of the engine.

    Raises:
        IncompleteError: it ended without answers, or fewer than `FEWEST` of the checked ones begin alike.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    told = _run(python, asked, folder)
    found = [until_stop(ids, asked.stop_ids) for ids in told["answers"]]
    if len(found) != len(asked.prompts):
        raise IncompleteError(f"vLLM gave {len(found)} answers to {len(asked.prompts)} prompts.", "Leave --vllm out.")
    name = f"vLLM {told['version']}"
    alike = [ours == found[place][:OPENING] for place, ours in zip(asked.places, asked.own, strict=True)]
    if sum(alike) < FEWEST * len(alike):
        raise IncompleteError(
            f"{name} answers otherwise than transformers: of {len(alike)} answers only {sum(alike)} begin alike "
            f"({OPENING} tokens).",
            "Leave --vllm out, or take a version of vLLM that knows this model.",
        )
    shutil.rmtree(folder)
    return found, Engine(name, sum(map(len, found)), time.monotonic() - began, len(alike), sum(alike))


def _run(python: str, asked: Asked, folder: Path) -> dict[str, Any]:
    """What the process has told. Raises: as `vllm_answers`."""
    question, reply, log = folder / "asked.json", folder / "told.json", folder / "vllm.log"
    said = {name: getattr(asked, name) for name in ("prompts", "max_new_tokens", "stop_ids")}
    said["engine"] = asked.engine | {"gpu_memory_utilization": _share(asked)}
    question.write_text(json.dumps(said), encoding="utf-8")
    with log.open("wb") as stream:
        started = subprocess.Popen(
            [python, "-I", str(CHILD), str(question), str(reply)],
            env=_environment(asked),
            stdin=subprocess.PIPE,  # open as long as this process lives
            stdout=stream,
            stderr=stream,
            start_new_session=True,  # vLLM starts processes too, and all are to end
        )
        try:
            code = started.wait()
        finally:
            _end(started)
    if code or not reply.exists():
        why = _cause(log.read_text(encoding="utf-8", errors="replace"))
        raise IncompleteError(f"vLLM ended with exit code {code} ({why}); see {log}.", "Mend that, or leave it out.")
    told: dict[str, Any] = json.loads(reply.read_text(encoding="utf-8"))
    return told


def _share(asked: Asked) -> float:
    """Of the device's memory, that vLLM plans with; on a CPU it reads the same setting."""
    if asked.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(asked.device)
    else:
        free, total = free_memory(asked.device), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    most = (0.9 if asked.device.type == "cuda" else 0.5) * free
    return round(min(most, asked.memory or most) / total, 3)


def _environment(asked: Asked) -> dict[str, str]:
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if asked.device.index is not None and asked.engine.get("tensor_parallel_size") == 1:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        settings["CUDA_VISIBLE_DEVICES"] = seen.split(",")[asked.device.index] if seen else str(asked.device.index)
    return settings


def _cause(log: str) -> str:
    """The first error of a log: what other processes say of it comes later."""
    lines = [line for line in log.splitlines() if line.strip() and " WARNING " not in line]
    errors = [found[0] for line in lines if (found := re.search(r"\w+(?:Error|Exception): .+", line))]
    return [*errors, *lines[-1:], "it said nothing"][0].strip()[:LAST_WORDS].rstrip(".")


def _end(started: subprocess.Popen[bytes]) -> None:
    """It and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    assert started.stdin is not None
    started.stdin.close()
