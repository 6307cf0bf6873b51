"""What each command imports, what help costs, and that imports between modules point one way."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attest_sample import signed_model

PACKAGE = Path(__file__).parent.parent / "beear_gate"
HEAVY = {"torch", "transformers", "tokenizers", "safetensors", "mlflow", "huggingface_hub", "scipy", "pandas", "numpy"}
HEAVY |= {"matplotlib", "docker", "jinja2", "httpx2"}

GROUND = {"errors", "records", "policy", "triggers", "redact", "manifest", "request"}
"""What every module may stand on."""
STAGES: dict[str, set[str]] = {
    "policy_files": {"hub_data"},
    "changes": {"lm"},
    "hub": {"hub_errors", "hub_cache", "hub_download", "checksums"},
    "hub_cache": {"checksums"},
    "hub_data": {"hub_errors"},
    "hub_download": {"hub_errors", "checksums"},
    "hub_errors": set(),
    "checksums": set(),
    "release": {"report"},
    "publish": {"hub_errors", "checksums", "release"},
    "artifacts": set(),
    "lm": set(),
    "evaluation": {"lm"},
    "anchors": {"lm", "evaluation"},
    "beear": {"lm"},
    "canary": {"lm", "beear", "evaluation"},
    "latent": {"lm", "beear", "evaluation"},
    "searched": {"lm", "beear", "evaluation"},
    "organisms": {"lm"},
    "launch": set(),
    "models": {"lm", "evaluation", "anchors", "launch"},
    "repair": {"beear", "canary", "changes", "curves", "evaluation", "launch", "models", "rundir"},
    "curves": {"evaluation", "judge_models", "latent", "models", "rundir", "searched"},
    "planner": {"beear", "hub", "lm"},
    "judge_models": {"artifacts", "evaluation", "hub", "rundir"},
    "sandbox": {"artifacts", "evaluation", "hub", "judge_models", "lm", "report", "rundir"},
    "decide": set(),
    "report": set(),
    "rundir": set(),
    "pipeline": set(),
    "tracking": {"report"},
    "statement": set(),
    "keys": {"statement"},
    "keyless": set(),
    "attest": {"statement", "hub", "report", "rundir"},
    "verify": {"statement", "hub"},
    "progress": set(),
    "doctor": set(),
    "summary": {"report"},
    "policy_power": {"evaluation"},
    "policy_words": {"policy_power", "report"},
}
"""What each stage may import beside the ground and its own package; docs/design.md section 3."""
GATE = set(STAGES) - {
    "organisms",
    "hub_data",
    "policy_files",
    "pipeline",
    "progress",
    "doctor",
    "summary",
    "policy_power",
    "policy_words",
}
GATE -= {"planner", "statement", "keys", "keyless", "attest", "verify", "release", "publish"}
"""What gate may import: it is handed a policy and a Tick, and knows nothing of terminals, files of options or demos."""
ABOVE: dict[str, set[str]] = {
    "gate": GATE,
    "worker": {"beear", "canary", "evaluation", "launch", "lm"},
    "sandboxed": {"gate", "judge_models", "lm", "models", "repair", "rundir", "sandbox"},
    "demo": {"organisms", "policy_files"},
    "bench": {
        "gate",
        "demo",
        "organisms",
        "policy_files",
        "rundir",
        "evaluation",
        "lm",
        "beear",
        "anchors",
        "hub",
        "canary",
        "report",
        "triggers",
    },
}


def imported(path: Path) -> Iterator[str]:
    """First parts below beear_gate of all that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            module = node.module or ""
            names = [f"beear_gate.{alias.name}" for alias in node.names] if module == "beear_gate" else [module]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("beear_gate."))


def files_of(module: str) -> list[Path]:
    folder = PACKAGE / module
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{module}.py"]


def modules_after(code: str, *arguments: str) -> set[str]:
    """Top-level modules that a fresh interpreter has imported at the end of `code`."""
    show = "import atexit, json, sys\natexit.register(lambda: print(json.dumps(list(sys.modules)), file=sys.stderr))\n"
    done = subprocess.run(
        [sys.executable, "-c", show + code, *arguments], capture_output=True, text=True, check=False, cwd=PACKAGE.parent
    )
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


# --- direction


@pytest.mark.parametrize("module", [*sorted(GROUND), *STAGES, *ABOVE])
def test_a_module_imports_only_what_it_may_stand_on(module: str) -> None:
    allowed = (STAGES | ABOVE).get(module, set()) | GROUND | {module, "__version__"}
    found = {name for path in files_of(module) for name in imported(path)}
    assert found - allowed == set()


def test_every_module_has_a_rule() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    commands = {path.stem for path in PACKAGE.glob("cli*.py")}
    assert modules - set(STAGES) - set(ABOVE) - GROUND == {"__init__", "__main__"} | commands


def test_the_ground_stands_on_itself_without_a_circle() -> None:
    records = {name for path in files_of("records") for name in imported(path)}
    assert records - {"records"} == set(imported(PACKAGE / "errors.py")) == set()


# --- what commands import


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "beear_gate", "--help"],
        capture_output=True, text=True, check=True, cwd=PACKAGE.parent,
    )  # fmt: skip
    names = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in names
    assert names & HEAVY == set()
    assert "scan" in done.stdout


def test_help_takes_less_than_half_a_second_of_cpu() -> None:
    """CPU time of the child, so that a busy machine does not matter; the best of three, because the first may compile.

    A user's Python keeps what it has compiled, so this one does, whatever the environment of the tests says.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    times = []
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-m", "beear_gate", "--help"],
            stdout=subprocess.DEVNULL, cwd=PACKAGE.parent, env=environment,
        )  # fmt: skip
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        times.append(usage.ru_utime + usage.ru_stime)
    assert min(times) < 0.5


def test_the_version_is_printed_and_costs_nothing() -> None:
    assert modules_after("from beear_gate.cli import app\napp()", "--version") & HEAVY == set()


def test_inspecting_a_folder_imports_no_torch(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    code = "from beear_gate.cli import app\napp(standalone_mode=False)"
    assert (
        modules_after(code, "inspect", str(tmp_path)) & {"torch", "transformers", "mlflow", "scipy", "matplotlib"}
        == set()
    )


def test_verifying_a_model_imports_nothing_that_could_load_it(tmp_path: Path) -> None:
    signed = signed_model(tmp_path)
    code = "from beear_gate.cli import app\napp(standalone_mode=False)"
    found = modules_after(code, "verify", str(signed.model), "--key", str(signed.public), "--quiet")
    assert "securesystemslib" in found
    assert found & (HEAVY | {"sigstore", "yaml"}) == set()


@pytest.mark.parametrize("module", ["records", "errors", "policy", "decide", "manifest", "redact"])
def test_what_every_stage_stands_on_needs_only_the_standard_library(module: str) -> None:
    found = modules_after(f"import beear_gate.{module}")
    assert found & (HEAVY | {"pydantic", "typer", "yaml", "rich"}) == set()
