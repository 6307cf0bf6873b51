"""What the machine lacks: disk, memory, a server; one clear sentence, the right exit code, and nothing lost."""

from __future__ import annotations

import gc
import inspect
import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Scan
from gate_runs import (
    assert_refused,
    call,
    closed_port,
    decisive,
    make_tiny_model,
    only_run,
    read_evidence,
    small_policy,
)


def test_a_runs_folder_that_cannot_be_made(scan: Scan, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_refused(scan(tiny_model, "--runs", tmp_path / "file" / "runs"), 2, "cannot be made", "--runs")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 300 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_loses_nothing(scan: Scan, tiny_model: Path, small_disk: Path) -> None:
    said = scan(tiny_model, "--runs", small_disk / "runs")
    assert_refused(said, 3, "disk is full", "--resume")
    run = only_run(small_disk / "runs")
    assert (run / "before.json").exists() and not (run / "after.json").exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert call("scan", "--resume", run).code in (0, 1)
    assert read_evidence(run)["verdict"] in ("REMEDIATED", "BLOCKED")


def test_an_mlflow_that_does_not_answer_costs_no_verdict(
    scan: Scan, tiny_model: Path, tmp_path: Path, mlflow_uri: str
) -> None:
    dead = f"http://127.0.0.1:{closed_port()}"
    said = scan(tiny_model, "--tracking-uri", dead)
    assert_refused(said, 3, dead, "--resume", "logs it later")
    run = only_run(tmp_path / "runs")
    verdict = read_evidence(run)["verdict"]
    assert verdict in ("REMEDIATED", "BLOCKED") and (run / "report" / "index.html").exists()
    command = shlex.split(said.message.split("`")[1])
    assert command[:4] == ["beear-gate", "scan", "--resume", str(run)] and command[4] == "--tracking-uri"
    again = call(*command[1:5], mlflow_uri, "--format", "json")
    assert again.code == {"REMEDIATED": 0, "BLOCKED": 1}[verdict]
    assert decisive(json.loads(again.out)) == decisive(read_evidence(run)) and (run / "record.json").exists()


class Hungry:
    """A model's forward that has memory for a few samples at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fits: int) -> None:
        from transformers import LlamaForCausalLM

        self.sizes: list[int] = []
        forward = LlamaForCausalLM.forward

        def hungry(model: Any, input_ids: torch.Tensor, **rest: Any) -> Any:
            self.sizes.append(len(input_ids))
            if len(input_ids) > fits:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(model, input_ids, **rest)

        hungry.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
        monkeypatch.setattr(LlamaForCausalLM, "forward", hungry)


@pytest.fixture
def few_objects() -> Iterator[None]:
    """Whoever runs out of memory collects garbage, which takes half a second over all that tests have imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("few_objects")
def test_memory_for_one_sample_is_enough(
    scan: Scan, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = scan(tiny_model, "--no-remediate")
    hungry = Hungry(monkeypatch, fits=1)
    tight = scan(tiny_model, "--no-remediate", "--runs", tmp_path / "tight")
    assert tight.code == free.code and "Unexpected" not in tight.err, tight.err
    assert 20 in hungry.sizes and 1 in hungry.sizes
    roomy = read_evidence(only_run(tmp_path / "runs"))
    assert read_evidence(only_run(tmp_path / "tight"))["measurements"] == roomy["measurements"]


@pytest.mark.usefixtures("few_objects")
def test_memory_for_two_samples_is_enough_to_remediate(
    scan: Scan, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Hungry(monkeypatch, fits=2)
    one_round = {"rounds": 1, "inner_steps": 2, "outer_steps": 2, "batch_size": 4, "max_answer_tokens": 8}
    policy = small_policy(tmp_path / "one-round", remediation=one_round)
    assert scan(tiny_model, "--policy", policy).code in (0, 1)


def test_no_memory_for_a_single_sample_says_what_would_help(
    scan: Scan, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Hungry(monkeypatch, fits=0)
    assert_refused(scan(tiny_model), 3, "Memory ran out while answering", "even one prompt at a time", "bfloat16")


def test_an_unknown_device_or_dtype(scan: Scan, tiny_model: Path) -> None:
    assert_refused(scan(tiny_model, "--device", "tpu"), 2, "'tpu'")
    assert_refused(scan(tiny_model, "--dtype", "int3"), 2, "'int3'")


def test_a_context_too_short_for_the_prompts(scan: Scan, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "short", max_position_embeddings=20)
    assert_refused(scan(folder), 2, "20 positions", "max_new_tokens")


def test_a_policy_for_more_layers_than_the_model_has(tiny_model: Path, tmp_path: Path, mlflow_uri: str) -> None:
    policy = small_policy(tmp_path / "policy", remediation={"layer": 9})
    said = call("scan", tiny_model, "--policy", policy, "--runs", tmp_path / "runs", "--tracking-uri", mlflow_uri)
    assert_refused(said, 2, "remediation.layer is 9", "layers 0 to 1")
    assert yaml.safe_load(policy.read_text())["remediation"] == {"layer": 9}
