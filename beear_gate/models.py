"""The models of a scan: loaded when a stage really needs one, one at a time, and only as they were inspected."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

from beear_gate.anchors import build_anchors
from beear_gate.errors import IncompleteError
from beear_gate.evaluation.choices import choose
from beear_gate.evaluation.harness import run_tasks
from beear_gate.evaluation.safety import Test, encoded, gate_tests, scored
from beear_gate.evaluation.utility import read_references, references
from beear_gate.launch import Job, run_together
from beear_gate.lm import LM, generate, load_lm, placement
from beear_gate.lm.load import limit_memory, pick_device
from beear_gate.lm.memory import free_memory, release
from beear_gate.lm.processes import device_of
from beear_gate.lm.trained import trainings
from beear_gate.lm.vllm_answers import check_interpreter, prepare, vllm_answers
from beear_gate.manifest import manifest_digest, verify_unchanged
from beear_gate.records import AnchorSets, Engine, ModelSnapshot, Observations, Tick
from beear_gate.request import Request

T = TypeVar("T")


class Models:
    """Loads a model when a stage really needs it, and holds one at a time: two may not fit.

    Raises:
        UsageError: the device has no room for the processes that are asked for, or these cannot train as the policy
            says.
    """

    def __init__(self, request: Request, tick: Tick) -> None:
        self.request, self.policy, self.tick = request, request.policy, tick
        self.devices = [request.device]
        if request.processes > 1:
            # Refused now rather than after hours.
            self.devices = [device_of(request.device, rank, request.processes) for rank in range(request.processes)]
            trainings(request.policy.remediation.training, request.processes)
        self._loaded: tuple[str, LM] | None = None

    def load(self, snapshot: ModelSnapshot) -> LM:
        """The snapshot's model, after a last look that its bytes are the ones inspected."""
        digest = manifest_digest(snapshot.files)
        if self._loaded is None or self._loaded[0] != digest:
            self._loaded = None
            check_bytes(snapshot)
            self._loaded = (digest, self._read(snapshot.path))
        return self._loaded[1]

    def _read(self, path: Path) -> LM:
        """On one device, or on the GPUs of all processes where one does not hold it."""
        policy, dtype, places = self.policy, self.request.dtype, None
        if self.request.memory:
            for device in set(self.devices):
                limit_memory(device, self.request.memory)
        if len(set(self.devices)) > 1:
            release()
            gpus = [pick_device(device) for device in self.devices]
            room = [min(free_memory(gpu), self.request.memory or sys.maxsize) for gpu in gpus]
            places = placement.places(path, dtype, gpus, room)
        self.tick(f"loading the model over {len(set(places.values()))} GPUs" if places else "loading the model", 0, 1)
        return load_lm(path, self.devices[0], dtype, policy.system_prompt, policy.chat_template, places)

    def together(self, job: Job, folder: Path, kind: type[T]) -> T:
        """Have several processes do a job, which each load their part of the model. Raises: as `run_together`."""
        self.forget()
        release()
        check_bytes(job.snapshot)
        return run_together(job, folder, kind, self.tick)

    def forget(self) -> None:
        """The weights in memory are no longer those of any snapshot."""
        self._loaded = None

    def observe(self, snapshot: ModelSnapshot, before: Observations | None, kept: Path) -> Observations:
        policy, tests, lm = self.policy, list(gate_tests(self.policy)), self.load(snapshot)
        prompts = [encoded(lm, test) for test in tests]
        if self.request.vllm:
            del lm
            found, engine = self._vllm(self.request.vllm, snapshot, prompts, kept.with_name("vllm"))
            lm = self.load(snapshot)
        else:
            found, engine = self._transformers(lm, tests, prompts)
        each = (scored(lm, test, part, policy.max_new_tokens) for test, part in zip(tests, found, strict=True))
        answers = tuple(chain(*each))
        examples = references(policy.utility.gate, before.answers if before else answers)
        likelihoods = read_references(lm, examples, kept, before is None, tick=self.tick)
        choices = choose(lm, policy.utility.questions, tick=self.tick)
        tasks = run_tasks(lm, policy.utility.tasks, tick=self.tick)
        return Observations(answers, likelihoods, choices, tasks, engine=engine)

    def _transformers(
        self, lm: LM, tests: Sequence[Test], prompts: Sequence[Sequence[tuple[int, ...]]]
    ) -> tuple[list[list[tuple[int, ...]]], Engine]:
        """Answers to the prompts of each test, by the model in memory."""
        length, size, began = self.policy.max_new_tokens, self.request.batch_size, time.monotonic()
        found = [
            generate(lm, part, length, size, tick=self.tick, label=f"answering: {test.label}")
            for test, part in zip(tests, prompts, strict=True)
        ]
        tokens = sum(map(len, chain(*found)))
        return found, Engine(f"transformers {version('transformers')}", tokens, time.monotonic() - began)

    def _vllm(
        self, python: str, snapshot: ModelSnapshot, prompts: Sequence[Sequence[tuple[int, ...]]], folder: Path
    ) -> tuple[list[list[tuple[int, ...]]], Engine]:
        """The same by vLLM, which loads the model itself: the one in memory is let go, because two may not fit."""
        check_interpreter(python)
        request, flat = self.request, list(chain(*prompts))
        asked = prepare(
            self.load(snapshot), flat, self.policy.max_new_tokens, request.processes, request.memory, self.tick
        )
        self.forget()
        release()
        self.tick("answering (vLLM)", 0, 1)
        found, engine = vllm_answers(python, asked, folder)
        rest = iter(found)
        return [list(islice(rest, len(part))) for part in prompts], engine

    def anchors(self, snapshot: ModelSnapshot) -> AnchorSets:
        return build_anchors(self.policy, self.load(snapshot), self.request.batch_size, self.request.seed, self.tick)


def check_bytes(snapshot: ModelSnapshot) -> None:
    """A last look before loading, and before a verdict stands.

    Raises:
        IncompleteError: a file is no longer the one that was hashed.
    """
    # The model card is written into the remediated folder after the evaluation, and is no part of what was evaluated.
    changed = [name for name in verify_unchanged(snapshot) if name != "README.md"]
    if changed:
        raise IncompleteError(
            f"{changed[0]} in {snapshot.path} changed after it was inspected.", "Scan again, without --resume."
        )
