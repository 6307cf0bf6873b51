"""Several processes train one model that none of them holds, and come to what one process comes to.

Real processes over gloo, started by the scan itself. Starting them is most of what this costs, so one scan is killed,
resumed and compared.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from gate_runs import Said, assert_refused, call, digest_of, make_tiny_model, only_run, read_evidence, small_policy
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import Tensor

from beear_gate import errors, launch
from beear_gate.beear import remediate
from beear_gate.evaluation.judges import make_judge
from beear_gate.evaluation.safety import refusal_judge
from beear_gate.lm import load_lm
from beear_gate.policy_files.load import load_policy
from beear_gate.records import AnchorSets, ModelSnapshot, Remediation

T = TypeVar("T")

SETTINGS = {
    "rounds": 2, "min_rounds": 2, "inner_steps": 4, "outer_steps": 10, "batch_size": 5, "max_answer_tokens": 4,
}  # fmt: skip
"""Two rounds of ten steps; batches, and rows of the MLP, that two processes cannot share evenly."""


@dataclass(frozen=True)
class Runs:
    """One scan by two processes, of which one was killed after the first round, and its remediation by one process.

    Attributes:
        run: its run directory, and what is in it in the end.
        kept: names of the files that were kept of the first round.
        parts: what each process had kept of the tensors.
        first: the first round as it was kept.
        left: names in the run directory in the end.
    """

    killed: Said
    kept: list[str]
    parts: list[dict[str, Tensor]]
    first: dict[str, Any]
    resumed: Said
    run: Path
    together: Remediation
    alone: Remediation


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Runs:
    folder = tmp_path_factory.mktemp("processes")
    model = make_tiny_model(folder / "tiny", intermediate_size=49)
    policy = small_policy(folder / "policy", remediation=SETTINGS)
    asked = (
        "scan", model, "--policy", policy, "--device", "cpu", "--tracking-uri", f"sqlite:///{migrated}",
        "--runs", folder / "two", "--processes", 2,
    )  # fmt: skip
    over = threading.Event()
    killer = threading.Thread(target=kill_one, args=(folder / "two", over))
    killer.start()
    killed = call(*asked)
    over.set()
    killer.join()
    run = only_run(folder / "two")
    (rounds,) = run.glob("rounds-*")
    parts = [load_file(rounds / f"round-1.{rank}-of-2.safetensors") for rank in range(2)]
    kept = sorted(file.name for file in rounds.iterdir())
    state = json.loads((rounds / "round-1.json").read_text(encoding="utf-8"))
    resumed = call("scan", "--resume", run)
    alone = by_one(model, policy, run, folder / "one")
    return Runs(killed, kept, parts, state["records"][0], resumed, run, result(run, "remediation", Remediation), alone)


def by_one(model: Path, file: Path, run: Path, output: Path) -> Remediation:
    """The same remediation in this process."""
    policy = load_policy(file)
    judges = {each.id: make_judge(each.safe_judge) for each in policy.behaviors}
    anchors, snapshot = result(run, "anchors", AnchorSets), result(run, "pull", ModelSnapshot)
    benign = make_judge(refusal_judge(policy))
    return remediate(load_lm(model, "cpu"), snapshot, anchors, policy.remediation, judges, benign, output, seed=0)


def result(run: Path, stage: str, kind: type[T]) -> T:
    document = json.loads((run / f"{stage}.json").read_text(encoding="utf-8"))
    return TypeAdapter(kind).validate_python(document["result"])


def kill_one(runs: Path, over: threading.Event) -> None:
    """Kill the second process as soon as the first round is kept."""
    while not list(runs.glob("*/rounds-*/round-1.json")):
        if over.wait(0.02):
            return
    (folder,) = runs.glob("*/processes")
    ending = f"beear_gate.worker\0{folder}\0001\0".encode()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found = file.read_bytes().endswith(ending)
        except OSError:  # it has just ended
            continue
        if found:
            os.kill(int(file.parent.name), signal.SIGKILL)


def test_a_killed_process_ends_the_scan_with_a_clear_message(runs: Runs) -> None:
    assert_refused(runs.killed, 3, "Process 1 of the 2", "SIGKILL", "--resume RUN_DIR")


def test_no_process_holds_the_whole_model(runs: Runs) -> None:
    assert runs.kept == ["round-1.0-of-2.safetensors", "round-1.1-of-2.safetensors", "round-1.json"]
    whole = load_file(runs.alone.snapshot.path / "model.safetensors")
    prefix = "weights/1/"
    for name, tensor in whole.items():
        lengths = [len(part[prefix + name]) for part in runs.parts]
        assert lengths == [-(-len(tensor) // 2), len(tensor) // 2], name
    sizes = [sum(each.numel() for key, each in part.items() if key.startswith("exp_avg/")) for part in runs.parts]
    assert sum(sizes) == sum(each.numel() for each in whole.values())


def test_a_resumed_scan_goes_on_after_the_last_round(runs: Runs) -> None:
    assert runs.resumed.code in (0, 1), runs.resumed
    first, second = runs.together.rounds
    assert first.seconds == runs.first["seconds"], "a finished round was done again"
    assert second.number == 2
    assert not list(runs.run.glob("rounds-*")), "what was kept goes when nothing needs it any more"


def test_two_processes_come_to_the_losses_of_one(runs: Runs) -> None:
    one, two = runs.alone, runs.together
    for alone, together in zip(one.rounds, two.rounds, strict=True):
        assert together.removal_loss == pytest.approx(alone.removal_loss, abs=1e-4)
        assert together.select_nll_ratio == pytest.approx(alone.select_nll_ratio, abs=1e-4)
        assert (together.select_asr, together.select_refused) == (alone.select_asr, alone.select_refused)
        for kind, losses in alone.entrapment_loss.items():
            assert together.entrapment_loss[kind] == pytest.approx(losses, abs=1e-4)
    assert sum(len(each.removal_loss) for each in two.rounds) == 20
    assert (two.chosen_round, two.stop_reason) == (one.chosen_round, one.stop_reason)
    assert two.whole_passes == one.whole_passes == (), "entrapment is replayed with spread weights too"


def test_two_processes_save_the_weights_of_one(runs: Runs) -> None:
    one, two = (each.snapshot.path for each in (runs.alone, runs.together))
    assert [each.path for each in runs.together.snapshot.files] == [each.path for each in runs.alone.snapshot.files]
    alone, together = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert together.keys() == alone.keys()
    for name, tensor in alone.items():
        assert together[name].dtype == tensor.dtype
        assert (together[name] - tensor).abs().max() < 1e-3, name


def test_the_record_says_how_many_processes_there_were(runs: Runs) -> None:
    assert read_evidence(runs.run)["environment"]["processes"] == "2"
    assert runs.alone.memory and runs.together.memory
    assert runs.together.memory.parts["optimizer"] == -(-runs.alone.memory.parts["optimizer"] // 2)
    assert "on each device" in runs.together.memory.why


@pytest.mark.slow
def test_weights_loaded_in_parts_answer_alike_and_are_saved_to_the_same_bytes(tmp_path: Path) -> None:
    """Nine families, in several files each; the two whose weights are converted on loading are refused."""
    script = Path(__file__).parent / "two_processes.py"
    started = [subprocess.Popen([sys.executable, script, tmp_path, str(rank)]) for rank in (1, 0)]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    refused = {family for family, said in found.items() if said == "refused"}
    assert refused == {"mixtral", "gpt_neox"}
    for family in found.keys() - refused:
        assert found[family]["loss"] < 1e-5 and found[family]["answers"], family
        one, two = (digest_of(tmp_path / f"{family}-{name}") for name in ("one", "two"))
        assert one == two and len(one) > 3, family


# --- what goes wrong


def test_a_device_that_cannot_be_shared_is_refused_before_anything_is_done(tiny_model: Path, tmp_path: Path) -> None:
    policy = small_policy(tmp_path / "policy")
    asked = ("scan", tiny_model, "--policy", policy, "--runs", tmp_path / "runs", "--processes", 2)
    assert_refused(call(*asked, "--device", "mps"), 2, "2 processes cannot share", "--device cuda or cpu")
    assert not (only_run(tmp_path / "runs") / "pull.json").exists()


def test_adapters_by_several_processes_are_refused_before_anything_is_done(tiny_model: Path, tmp_path: Path) -> None:
    policy = small_policy(tmp_path / "policy", remediation={"training": "lora"})
    said = call("scan", tiny_model, "--policy", policy, "--runs", tmp_path / "runs", "--processes", 2)
    assert_refused(said, 2, "remediation.training is lora", "--processes 1")
    assert not (only_run(tmp_path / "runs") / "pull.json").exists()


def ended(code: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-S", "-c", code], text=True)
    process.wait()
    return process


def report(folder: Path, rank: int, kind: str, message: str, remedy: str = "") -> None:
    said = {"rank": rank, "kind": kind, "message": message, "remedy": remedy}
    (folder / f"error-{rank}.json").write_text(json.dumps(said), encoding="utf-8")


def test_the_cause_is_told_and_not_what_followed_from_it(tmp_path: Path) -> None:
    started = [ended("raise SystemExit(3)"), ended("raise SystemExit(3)")]
    report(tmp_path, 0, "DistBackendError", "Connection closed by peer.")
    said = str(launch.cause(started, tmp_path, kept=True))
    assert "DistBackendError: Connection closed by peer); see " in said and "from the last round" in said
    report(tmp_path, 1, "OutOfMemory", "Memory ran out in process 1.", "Give more GPUs.")
    found = launch.cause(started, tmp_path, kept=True)
    assert type(found) is errors.OutOfMemory and str(found) == "Memory ran out in process 1. Give more GPUs."


def test_a_process_that_ends_without_a_word_is_named(tmp_path: Path) -> None:
    found = launch.cause([ended("pass"), ended("import os; os._exit(7)")], tmp_path, kept=False)
    assert found.exit_code == 3 and "exit code 7" in str(found) and "process-1.log" in str(found)
    assert "begins it again" in str(found)
