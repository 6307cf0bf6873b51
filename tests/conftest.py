"""Set before anything imports torch, mlflow or huggingface_hub, which read these once; and what several files share."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from gate_runs import Demo, Said, call, make_tiny_model, run_demo, small_policy

Organism = Callable[..., Path]
Scan = Callable[..., Said]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run tests that take minutes each")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes minutes; runs only with --slow")


LONG = ("test_gate.py", "test_other_language.py", "test_removal_study.py", "test_organisms.py", "test_sandbox.py")
"""Files that take minutes: they begin first, so that neither of two workers waits for the other in the end."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes minutes; run it with --slow"))


@pytest.fixture(scope="session")
def organism_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Path]:
    """Where organisms are kept for all workers of this session, or for longer where BEEAR_GATE_CACHE says so."""
    kept = os.environ.get("BEEAR_GATE_CACHE")
    own = tmp_path_factory.getbasetemp()
    folder = Path(kept) if kept else (own if worker_id == "master" else own.parent) / "organisms"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["BEEAR_GATE_CACHE"] = str(folder)
    yield folder
    if not kept:
        del os.environ["BEEAR_GATE_CACHE"]


@pytest.fixture(scope="session")
def organism(organism_folder: Path) -> Organism:
    """Grows an organism by name, once for all workers."""
    import torch

    from beear_gate.organisms import plant, recipe

    torch.set_num_threads(1)

    def grown(name: str, seed: int = 0) -> Path:
        with FileLock(organism_folder / "lock"):
            return plant(recipe(name, seed), organism_folder)

    return grown


@pytest.fixture(scope="session")
def long_demo(organism: Organism, migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The whole demonstration on the long-suffix organism, once; it takes more than a minute."""
    return run_demo("long-suffix", organism("long-suffix"), tmp_path_factory.mktemp("long"), migrated)


@pytest.fixture(scope="session")
def tiny_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def tiny_model(tiny_template: Path, tmp_path: Path) -> Path:
    """Random weights in two layers, with the organisms' tokenizer, as an ordinary folder of the test's own."""
    return shutil.copytree(tiny_template, tmp_path / "tiny")


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; making one takes seconds, copying it does not."""
    from mlflow import MlflowClient

    database = tmp_path_factory.mktemp("migrated") / "mlflow.db"
    MlflowClient(f"sqlite:///{database}").search_experiments()
    return database


@pytest.fixture
def mlflow_uri(migrated: Path, tmp_path: Path) -> str:
    """An MLflow database of the test's own."""
    return f"sqlite:///{shutil.copy(migrated, tmp_path / 'mlflow.db')}"


@pytest.fixture
def scan(tmp_path: Path, mlflow_uri: str) -> Scan:
    """Scans with a small policy, in this process."""
    policy = small_policy(tmp_path / "policy")

    def scan(*arguments: object) -> Said:
        return call(
            "scan", "--policy", policy, "--device", "cpu", "--runs", tmp_path / "runs", "--tracking-uri", mlflow_uri,
            *arguments,
        )  # fmt: skip

    return scan
