"""GPUs, as far as a machine without one can tell: which device each tensor is on, and which holds which layer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from gate_runs import ROOT, make_tiny_model
from model_families import FAMILIES, make_model, random_prompts

from beear_gate import errors
from beear_gate.lm import generate, load_lm
from beear_gate.lm.config import read_config
from beear_gate.lm.dry_run import shape_of
from beear_gate.lm.memory import bytes_of
from beear_gate.lm.placement import FOR_WEIGHTS, places

GPUS = [torch.device("cuda", number) for number in range(3)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> dict[str, Any]:
    """What one process says that has pretended GPUs: a real device cannot be taken back from torch."""
    folder = tmp_path_factory.mktemp("pretended")
    shutil.copy(migrated, folder / "mlflow.db")
    script = Path(__file__).with_name("on_pretended_gpus.py")
    done = subprocess.run(
        [sys.executable, script, folder], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    read: dict[str, Any] = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    return read


def assert_close(one: Any, two: Any) -> None:
    """The same texts and counts, and numbers up to rounding."""
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_close(one[key], two[key])
    elif isinstance(one, list):
        assert len(one) == len(two)
        for each, other in zip(one, two, strict=True):
            assert_close(each, other)
    elif isinstance(one, float) and isinstance(two, float):
        assert one == pytest.approx(two, rel=1e-4, abs=1e-6)
    else:
        assert one == two


def test_a_whole_scan_on_a_gpu_comes_to_what_it_comes_to_on_a_cpu(found: dict[str, Any]) -> None:
    gpu, cpu = found["one GPU"], found["CPU"]
    assert_close(gpu["measurements"], cpu["measurements"])
    assert {point["stage"] for point in gpu["latent"]} == {"before", "after"}
    assert_close(gpu["latent"], cpu["latent"])
    for part in ("layer", "rounds", "chosen_round", "stop_reason"):
        assert gpu["remediation"][part] == cpu["remediation"][part]
    assert gpu["remediation"]["whole_passes"] == []  # entrapment was replayed there too


def test_a_model_that_no_gpu_holds_answers_from_two_as_from_one(found: dict[str, Any]) -> None:
    assert_close(found["passes, spread"], found["passes"])
    assert len(found["families"]) == len(FAMILIES) - 1
    assert_close(found["families, spread"], found["families"])
    assert {each["plain"] for each in found["families"].values()} == {""}
    spread = found["two GPUs"]
    assert "loading the model over 2 GPUs" in spread["progress"]
    before = [each for each in found["CPU"]["measurements"] if each["stage"] == "before"]
    assert before and spread["remediation"] is None
    assert_close(spread["measurements"], before)


def test_layers_share_the_room_that_there_is(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model", num_hidden_layers=6)
    shape = shape_of(read_config(model), torch.float32, model)
    weights = bytes_of(shape.model.parameters())
    enough = int(weights / FOR_WEIGHTS) + 2
    assert places(model, "float32", GPUS, [enough, 1, 1]) is None  # one that holds all does not share
    found = places(model, "float32", GPUS, [enough // 2, enough // 2, enough // 4])
    assert found
    layers = [found[f"model.layers.{number}"] for number in range(6)]
    assert layers == sorted(layers) and set(layers) == {"cuda:0", "cuda:1", "cuda:2"}
    assert layers.count("cuda:2") < layers.count("cuda:1")
    assert {found[name] for name in ("model.embed_tokens", "model.norm", "lm_head")} == {"cuda:0"}
    assert places(model, "bfloat16", GPUS, [enough // 2 + 2, 1, 1]) is None
    with pytest.raises(errors.OutOfMemory, match="and the 3 GPUs have"):
        places(model, "float32", GPUS, [enough // 4] * 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_of_a_family_has_a_place(family: str, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", family)
    shape = shape_of(read_config(model), torch.float32, model)
    weights = bytes_of(shape.model.parameters())
    found = places(model, "float32", GPUS, [weights // 2] * 3)
    assert found
    for name, _ in (*shape.model.named_parameters(), *shape.model.named_buffers()):
        assert [place for place in found if name == place or name.startswith(f"{place}.")] != [], name
    for one in found:  # a module with a place has no part with another
        assert not any(other.startswith(f"{one}.") for other in found)


def test_answering_is_never_compiled(tiny_model: Path) -> None:
    """transformers compiles decoding on a GPU where the cache has a fixed size, unless it is told not to."""
    lm = load_lm(tiny_model, "cpu")
    asked = type(lm.model)._valid_auto_compile_criteria  # type: ignore[attr-defined]
    seen = []

    def criteria(model: Any, model_kwargs: Any, generation_config: Any) -> bool:
        seen.append((generation_config.disable_compile, type(model_kwargs["cache"]).__name__))
        return bool(asked(model, model_kwargs, generation_config))

    with mock.patch.object(type(lm.model), "_valid_auto_compile_criteria", criteria):
        generate(lm, random_prompts(2, 8), 4)
    assert seen == [(True, "StaticCache")]
