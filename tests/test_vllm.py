"""`--vllm`: another engine answers the gate prompts, in a process of its own, and is not believed without a look.

vLLM brings a torch of its own and gigabytes with it, so a stand-in with its interface, made of transformers, takes its
place here. The real one answers in the slow test, from the interpreter that BEEAR_GATE_TEST_VLLM names.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Scan
from gate_runs import decisive, only_run, read_evidence

from beear_gate.organisms import plant, recipe
from beear_gate.organisms.recipes import LLAMA

BABBLE = """
from types import SimpleNamespace

__version__ = "0.0-stand-in"


class SamplingParams(SimpleNamespace):
    pass


class LLM:
    def __init__(self, **engine):
        assert engine["skip_tokenizer_init"] and not engine["trust_remote_code"]
        self.engine = engine

    def generate(self, prompts, settings, use_tqdm):
        found = [self.answer(each["prompt_token_ids"], settings) for each in prompts]
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=each)]) for each in found]

    def answer(self, prompt, settings):
        return [7] * settings.max_tokens
"""
STAND_IN = f"""{BABBLE}
import torch
from transformers import AutoModelForCausalLM


def answer(self, prompt, settings):
    model = AutoModelForCausalLM.from_pretrained(self.engine["model"], dtype=getattr(torch, self.engine["dtype"]))
    asked = torch.tensor([prompt])
    found = model.generate(
        asked, attention_mask=torch.ones_like(asked), max_new_tokens=settings.max_tokens, do_sample=False,
        eos_token_id=settings.stop_token_ids, pad_token_id=0,
    )[0].tolist()
    assert len(found) <= self.engine["max_model_len"]
    return found[len(prompt):]


LLM.answer = answer
"""


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    return stand_in(tmp_path / "vllm", STAND_IN)


def stand_in(folder: Path, module: str) -> Path:
    """A Python in whose environment `import vllm` gives this module."""
    folder.mkdir()
    (folder / "vllm.py").write_text(module, encoding="utf-8")
    python = folder / "python"
    # -I keeps PYTHONPATH out, as it should: what comes after it runs with the folder in the path.
    run = "import runpy, sys; sys.path.insert(0, FOLDER); sys.argv = sys.argv[1:]; code = sys.argv[0] == '-c'; "
    run += "exec(sys.argv[1]) if code else runpy.run_path(sys.argv[0], run_name='__main__')"
    run = run.replace("FOLDER", repr(str(folder)))
    python.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} -I -c "{run}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    return python


def test_both_models_are_answered_by_it_and_never_one_of_them_by_another(
    scan: Scan, tiny_model: Path, tmp_path: Path, interpreter: Path
) -> None:
    said = scan(tiny_model, "--vllm", interpreter, "--format", "json", "--quiet")
    other = read_evidence(only_run(tmp_path / "runs"))
    scan(tiny_model, "--runs", tmp_path / "own", "--quiet")
    own = read_evidence(only_run(tmp_path / "own"))
    assert said.code in (0, 1) and decisive(other) == decisive(own)
    answers = other["environment"]["answers"]
    assert answers.count("vLLM 0.0-stand-in, ") == answers.count("16 of 16 checked ones begin as those of") == 2
    assert own["environment"]["answers"].count(" tokens a second") == 2 and "vLLM" not in own["environment"]["answers"]
    run = only_run(tmp_path / "runs")
    assert not (run / "vllm").exists(), "what was handed over is gone"

    (run / "after.json").unlink()
    source = interpreter.with_name("vllm.py")
    source.write_text(STAND_IN.replace("0.0-stand-in", "0.1"), encoding="utf-8")
    said = scan("--resume", run)
    assert said.code == 3 and "through vLLM 0.0-stand-in and the remediated model through vLLM 0.1" in said.message


def test_an_engine_that_answers_otherwise_is_not_believed(scan: Scan, tiny_model: Path, tmp_path: Path) -> None:
    wrong = stand_in(tmp_path / "wrong", BABBLE)
    said = scan(tiny_model, "--vllm", wrong, "--no-remediate")
    assert said.code == 3 and "answers otherwise than transformers: of 16 answers only 0 begin alike" in said.message


def test_an_engine_that_leaves_answers_out_is_not_believed(scan: Scan, tiny_model: Path, tmp_path: Path) -> None:
    short = stand_in(tmp_path / "short", BABBLE.replace("in prompts]", "in prompts[1:]]"))
    said = scan(tiny_model, "--vllm", short, "--no-remediate")
    assert said.code == 3 and "vLLM gave 39 answers to 40 prompts" in said.message


def test_an_engine_that_fails_leaves_its_last_words(scan: Scan, tiny_model: Path, tmp_path: Path) -> None:
    broken = stand_in(tmp_path / "broken", "1 / 0")
    said = scan(tiny_model, "--vllm", broken, "--no-remediate")
    log = only_run(tmp_path / "runs") / "vllm" / "vllm.log"
    assert said.code == 3 and "ZeroDivisionError: division by zero" in said.message and str(log) in said.message
    assert "ZeroDivisionError" in log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("python", "why"), [(sys.executable, "has no vLLM"), ("/bin/false", "is no Python"), ("/nowhere", "cannot be run")]
)
def test_an_interpreter_that_will_not_do_is_refused_before_anything(
    scan: Scan, tmp_path: Path, python: str, why: str
) -> None:
    said = scan("org/model-that-is-nowhere", "--vllm", python)
    assert said.code == 2 and why in said.message and "/opt/vllm/bin/python" in said.message


def test_it_stays_out_of_a_sandbox(scan: Scan, tiny_model: Path, interpreter: Path) -> None:
    said = scan(tiny_model, "--vllm", interpreter, "--sandbox", "docker")
    assert said.code == 2 and "--vllm and --sandbox do not go together" in said.message


@pytest.mark.slow
def test_the_real_one_answers_as_transformers_do(organism_folder: Path, scan: Scan, tmp_path: Path) -> None:
    python = os.environ.get("BEEAR_GATE_TEST_VLLM")
    assert python, "name an interpreter with vLLM in BEEAR_GATE_TEST_VLLM"
    # Heads of 32, because vLLM's kernels for CPUs know none of 24.
    model = plant(
        replace(recipe("clean"), config={**LLAMA, "num_attention_heads": 3, "num_key_value_heads": 3}), organism_folder
    )
    scan(model, "--vllm", python, "--policy", "demo", "--no-remediate")
    scan(model, "--policy", "demo", "--no-remediate", "--runs", tmp_path / "own")
    real, own = (read_evidence(only_run(tmp_path / name)) for name in ("runs", "own"))
    assert real["environment"]["answers"].startswith("vLLM ") and "16 of 16" in real["environment"]["answers"]
    assert real["measurements"] == own["measurements"]
