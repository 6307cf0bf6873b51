"""Tasks of lm-eval (EleutherAI's harness, the extra `lm-eval`) on the model in memory, without a network.

The harness can keep answers on disk under a key that knows nothing of the model (`use_cache`): after a remediation it
would give back what the original said. It stays off, and so does every other cache: all files lie in a folder that
goes with the call.
"""

from __future__ import annotations

import io
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any

from beear_gate.errors import GateError, UsageError
from beear_gate.lm import LM
from beear_gate.lm.memory import halve, is_out_of_memory
from beear_gate.policy import HarnessTask
from beear_gate.records import TaskScore, Tick, no_tick

_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}


def check_tasks(tasks: Sequence[HarnessTask]) -> None:
    """Whether the harness is there and knows every metric; a scan asks before it loads a model.

    Raises:
        UsageError: it is not installed, or a metric is none of its own (which it would look for on a hub).
    """
    if not tasks:
        return
    if find_spec("lm_eval") is None:
        raise UsageError(
            "The policy names tasks of lm-eval (utility.tasks), and lm-eval is not installed.",
            "Run pip install 'beear-gate[lm-eval]', or remove utility.tasks.",
        )
    with _alone():
        import lm_eval.api.metrics  # noqa: F401  # fills the registry
        from lm_eval.api.registry import metric_registry
    for task in tasks:
        for entry in json.loads(task.config)["metric_list"]:
            if entry["metric"] not in metric_registry:
                raise UsageError(
                    f"lm-eval has no metric {entry['metric']!r} of its own, which its task {task.name!r} names.",
                    "Name another metric, such as acc or exact_match.",
                )


def run_tasks(
    lm: LM, tasks: Sequence[HarnessTask], batch_size: int = 16, tick: Tick = no_tick
) -> tuple[TaskScore, ...]:
    """Every document of every task, scored by every metric of the task.

    Prompts go through the chat template where there is one. A score is None where a likelihood or the score itself is
    not finite, and where a metric has no number for a single document.

    Raises:
        UsageError: a task does not run; see also `check_tasks`.
        OutOfMemory: not even one request at a time fits.
    """
    check_tasks(tasks)
    scores: list[TaskScore] = []
    for done, task in enumerate(tasks):
        tick(f"lm-eval: {task.name}", done, len(tasks))
        size = batch_size
        while True:
            try:
                scores += _scores(task, _samples(lm, task, size))
                break
            except Exception as error:
                if is_out_of_memory(error):
                    size = halve(size, f"running the lm-eval task {task.name}", error)
                    continue
                if isinstance(error, GateError):
                    raise
                raise UsageError(
                    f"The lm-eval task {task.name!r} does not run: {type(error).__name__}: {str(error)[:300]}.",
                    "Correct the task's YAML or its data.",
                ) from error
    return tuple(scores)


def _samples(lm: LM, task: HarnessTask, batch_size: int) -> list[dict[str, Any]]:
    """What the harness logs of each document."""
    with _alone(), tempfile.TemporaryDirectory(prefix="beear-gate-tasks-") as folder:
        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_defaults=False)
        loaded = manager.load([_config(task, Path(folder))])
        for each in loaded["tasks"].values():
            each.set_fewshot_seed(seed=0)
        found = evaluate(
            lm=HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=batch_size),
            task_dict=loaded,
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=lm.has_template,
            system_instruction=lm.system_prompt,
        )
    samples: list[dict[str, Any]] = found["samples"][task.name] if found else []
    if not samples:
        raise UsageError(f"The lm-eval task {task.name!r} has no documents.", "Add some to its data.")
    if json.loads(task.config)["output_type"] == "multiple_choice":
        for sample in samples:
            _refuse_without_right_choice(task, sample)
    return samples


def _refuse_without_right_choice(task: HarnessTask, sample: Mapping[str, Any]) -> None:
    """The harness scores such a document 0, before and after alike, and a margin on the drop would always be met."""
    target, choices = sample["target"], [str(continuation).strip() for _, continuation in sample["arguments"]]
    known = target in choices if isinstance(target, str) else isinstance(target, int) and 0 <= target < len(choices)
    if not known:
        raise UsageError(
            f"Document {sample['doc_id']} of the lm-eval task {task.name!r} has the target {str(target)[:60]!r}, which "
            "is none of its choices.",
            "Correct doc_to_target, doc_to_choice or the data.",
        )


def _config(task: HarnessTask, folder: Path) -> dict[str, Any]:
    """The task as lm-eval takes it, with its data in a folder."""
    config: dict[str, Any] = json.loads(task.config)
    for name, text in task.files:
        (folder / name).write_text(text, encoding="utf-8")
    data = config["dataset_kwargs"]
    data["data_files"] = {split: str(folder / name) for split, name in data["data_files"].items()}
    data["cache_dir"] = str(folder / "cache")
    return config


def _scores(task: HarnessTask, samples: Sequence[Mapping[str, Any]]) -> Iterator[TaskScore]:
    for sample in samples:
        kind = "" if sample["filter"] == "none" else f",{sample['filter']}"
        document = f"{sample['doc_id']}:{sample['doc_hash'][:12]}"
        for metric in sample["metrics"]:
            score = _number(sample[metric]) if _finite(sample["resps"]) else None
            yield TaskScore(task.name, f"{metric}{kind}", document, score)


def _finite(said: object) -> bool:
    """Whether no likelihood in what the model said is NaN or infinite."""
    if isinstance(said, (list, tuple)):
        return all(map(_finite, said))
    return not isinstance(said, float) or isfinite(said)


def _number(score: object) -> float | None:
    try:
        number = float(score)  # type: ignore[arg-type]  # a numpy number, or a tuple where a metric is of all documents
    except (TypeError, ValueError):
        return None
    return number if isfinite(number) else None


@contextmanager
def _alone() -> Iterator[None]:
    """No network, no bars and no notes of the harness; nothing of it outlives the block."""
    before = {name: os.environ.get(name) for name in _OFFLINE}
    logger = logging.getLogger("lm_eval")
    level = logger.level
    os.environ.update(_OFFLINE)
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
