"""What a container hands back, forged in every way that code inside could: nothing of it is taken."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import Tensor

from beear_gate.errors import IncompleteError
from beear_gate.evaluation.ledger import Entry
from beear_gate.hub import pull_folder
from beear_gate.manifest import hash_folder, manifest_digest
from beear_gate.records import ModelSnapshot, Observations, Remediation, RemediationSettings
from beear_gate.rundir import RunDirectory
from beear_gate.sandbox.handback import CHOICES, keep, take, take_weights

KEY = {"files": "1"}
LEDGER = "01234567-0123456789abcdef.jsonl"
Forge = Callable[[Path], object]


@pytest.fixture
def source(tiny_model: Path) -> ModelSnapshot:
    return pull_folder(str(tiny_model), tiny_model)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    (tmp_path / "run").mkdir()
    return RunDirectory(tmp_path / "run")


@pytest.fixture
def scratch(source: ModelSnapshot, tmp_path: Path) -> Path:
    """What an honest container leaves: two stages, a model with other weights, kept choices, a judge's verdict."""
    folder = tmp_path / "scratch"
    shutil.copytree(source.path, folder / "model")
    tensors = load_file(source.path / "model.safetensors")
    save_file({name: tensor * 1.5 for name, tensor in tensors.items()}, folder / "model" / "model.safetensors")
    save_file({"0": tensors["model.norm.weight"]}, folder / CHOICES)
    stage(folder, "before", Observations((), ()))
    describe(folder)
    (folder / "judge").mkdir()
    entry = Entry("k", "yes", "", ("digest", ""), 1, 2, 3, "yes")
    (folder / "judge" / LEDGER).write_text(json.dumps(TypeAdapter(Entry).dump_python(entry, mode="json")) + "\n")
    return folder


def stage(folder: Path, name: str, result: object) -> None:
    dumped = TypeAdapter(type(result)).dump_python(result, mode="json")
    (folder / f"{name}.json").write_text(json.dumps({"inputs": KEY, "result": dumped}))


def describe(folder: Path) -> None:
    """The stage file of the model that lies there now."""
    files = hash_folder(folder / "model")
    snapshot = ModelSnapshot("inside", f"sha256:{manifest_digest(files)}", Path("/beear-gate/run/model"), files)
    stage(folder, "remediation", Remediation(snapshot, RemediationSettings(), 0, 2, (), 1, "", (), 1.0))


def handed(scratch: Path, run: RunDirectory, source: ModelSnapshot) -> None:
    take(scratch, run, source, run.path / "model", [LEDGER])


def test_what_is_in_order_becomes_the_runs_own(scratch: Path, run: RunDirectory, source: ModelSnapshot) -> None:
    handed(scratch, run, source)
    assert sorted(os.listdir(run.path)) == ["before.json", "judge", "model", CHOICES, "remediation.json"]
    taken: Remediation = run.finished("remediation", KEY, Remediation)
    assert taken.snapshot.path == run.path / "model" and taken.snapshot.model == source.model
    assert hash_folder(taken.snapshot.path) == taken.snapshot.files
    assert {file.stat().st_uid for file in run.path.rglob("*")} == {os.getuid()}


def test_a_stage_that_the_run_has_is_not_taken_again(scratch: Path, run: RunDirectory, source: ModelSnapshot) -> None:
    handed(scratch, run, source)
    before = (run.path / "before.json").read_bytes()
    stage(scratch, "before", Observations((), (), (), (), ()))
    document = json.loads((scratch / "before.json").read_text())
    document["result"]["choices"] = [{"prompt": "forged", "cluster": 0, "choice": 0, "right": True}]
    (scratch / "before.json").write_text(json.dumps(document))
    for name in ("remediation.json", CHOICES):
        (scratch / name).unlink(missing_ok=True)
    handed(scratch, run, source)
    assert (run.path / "before.json").read_bytes() == before


def test_of_a_container_that_was_stopped_what_is_whole_is_kept(
    scratch: Path, run: RunDirectory, source: ModelSnapshot
) -> None:
    (scratch / "remediation.json").unlink()
    (scratch / "canary-model").mkdir()
    (scratch / ".before.json.part").write_text("{")
    keep(scratch, run, source, run.path / "model", [LEDGER])
    assert sorted(os.listdir(run.path)) == ["before.json", "judge", CHOICES]


def test_of_logs_the_ends_are_kept_as_text_that_does_nothing(
    scratch: Path, run: RunDirectory, source: ModelSnapshot
) -> None:
    logs = scratch / "processes"
    logs.mkdir()
    (logs / "process-0.log").write_bytes(b"x" * 2**20 + b"\x1b[2J the end\n")
    (logs / "process-evil.log").write_text("")
    (logs / "job.json").write_text("{}")
    keep(scratch, run, source, run.path / "model", [LEDGER])
    assert os.listdir(run.path / "processes") == ["process-0.log"]
    text = (run.path / "processes" / "process-0.log").read_text()
    assert len(text) < 2**17 and text.endswith("x\\x1b[2J the end\n") and (run.path / "before.json").exists()
    logs.rename(scratch / "elsewhere")
    logs.symlink_to(scratch / "elsewhere")
    with pytest.raises(IncompleteError, match="no folder"):
        keep(scratch, run, source, run.path / "model", [LEDGER])


def config(folder: Path) -> None:
    file = folder / "model" / "config.json"
    file.write_text(file.read_text().replace('"llama"', '"llama" '))
    describe(folder)


def weights(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    file = folder / "model" / "model.safetensors"
    save_file(change(load_file(file)), file)
    describe(folder)


def replaced(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def instead(path: Path, make: Callable[[Path], object]) -> None:
    """Something else under the name of a file or folder, which goes to `elsewhere`."""
    path.rename(path.parent.parent / "elsewhere")
    make(path)


def one_more(folder: Path) -> None:
    (folder / "model" / "generation_config.json").write_text("{}")
    describe(folder)


FORGED: dict[str, tuple[Forge, str]] = {
    "a file that no stage writes": (lambda f: (f / "run.sh").write_text("x"), "'run.sh', which no stage writes"),
    "a folder that no stage writes": (lambda f: (f / "figures").mkdir(), "'figures', which no stage writes"),
    "a report": (lambda f: (f / "report.json").write_text("{}"), "'report.json', which no stage writes"),
    "a link in place of a result": (
        lambda f: instead(f / "before.json", lambda path: path.symlink_to("/etc/hostname")),
        "'before.json', which is a link",
    ),
    "a second name for a file": (lambda f: os.link(f / "before.json", f / "after.json"), "which is a link"),
    "a pipe in place of a result": (lambda f: instead(f / "before.json", os.mkfifo), "no ordinary file"),
    "a pipe in place of tensors": (lambda f: instead(f / CHOICES, os.mkfifo), "no ordinary file"),
    "a link in place of the model": (
        lambda f: instead(f / "model", lambda path: path.symlink_to("../elsewhere")),
        "'model', which is no folder",
    ),
    "a link in place of verdicts": (
        lambda f: instead(f / "judge", lambda path: path.symlink_to("../elsewhere")),
        "'judge', which is no folder",
    ),
    "a link in the model": (lambda f: (f / "model" / "x.json").symlink_to("/etc/hostname"), "which is a link"),
    "a link to a folder in the model": (lambda f: (f / "model" / "x").symlink_to("/etc"), "no file of a model"),
    "a program in the model": (lambda f: (f / "model" / "x.py").write_text("x"), "'x.py', which is no file of a model"),
    "a pickle in the model": (lambda f: (f / "model" / "w.bin").write_bytes(b"\x80\x04"), "no file of a model"),
    "no JSON": (lambda f: (f / "before.json").write_text("{"), "not the result of that stage"),
    "a key twice": (lambda f: replaced(f / "before.json", '{"inputs"', '{"inputs": {}, "inputs"'), "not the result"),
    "no record": (lambda f: (f / "before.json").write_text('{"inputs": {}, "result": 3}'), "not the result"),
    "a list": (lambda f: (f / "before.json").write_text("[]"), "not the result"),
    "a key more": (lambda f: replaced(f / "before.json", '{"inputs"', '{"x": 1, "inputs"'), "not the result"),
    "inputs that are no texts": (lambda f: replaced(f / "before.json", '"1"', "1"), "not the result"),
    "JSON without an end": (lambda f: (f / "before.json").write_text("[" * 100_000), "not the result"),
    "no model": (lambda f: shutil.rmtree(f / "model"), "'model', which is no folder or not there"),
    "other weights than were hashed": (
        lambda f: save_file({"x": load_file(f / CHOICES)["0"]}, f / "model" / "model.safetensors"),
        "not the one that its digests name",
    ),
    "another configuration": (config, "'config.json' is not the original's"),
    "a file more": (one_more, "'generation_config.json' is not the original's"),
    "a tensor more": (
        lambda f: weights(f, lambda t: {**t, "more": t["model.norm.weight"].clone()}),
        "'more' has no counterpart",
    ),
    "another dtype": (lambda f: weights(f, lambda t: {k: v.half() for k, v in t.items()}), "has no counterpart"),
    "another shape": (
        lambda f: weights(f, lambda t: {**t, "model.norm.weight": t["model.norm.weight"][:-1].clone()}),
        "'model.norm.weight' has no counterpart",
    ),
    "NaN": (lambda f: weights(f, lambda t: {k: v * float("nan") for k, v in t.items()}), "unsafe files"),
    "tensors that are none": (lambda f: (f / CHOICES).write_bytes(b"x" * 100), f"'{CHOICES}', which says"),
    "verdicts that are none": (lambda f: (f / "judge" / LEDGER).write_text('{"key": 1}\n'), "no list of verdicts"),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
def test_what_is_forged_is_refused_and_nothing_is_taken(
    what: str, scratch: Path, run: RunDirectory, source: ModelSnapshot
) -> None:
    forge, words = FORGED[what]
    forge(scratch)
    with pytest.raises(IncompleteError) as caught:
        handed(scratch, run, source)
    assert words in str(caught.value) and "nothing of it was taken" in str(caught.value)
    assert not os.listdir(run.path)


def test_a_file_too_large_to_read_is_refused(scratch: Path, run: RunDirectory, source: ModelSnapshot) -> None:
    with (scratch / "before.json").open("ab") as file:
        file.truncate(2**29 + 1)
    with pytest.raises(IncompleteError, match="at most 536870912 are read"):
        handed(scratch, run, source)


def test_a_judge_that_was_not_asked_for_is_not_taken(scratch: Path, run: RunDirectory, source: ModelSnapshot) -> None:
    (scratch / "judge" / "other.jsonl").write_text("{}\n")
    handed(scratch, run, source)
    assert os.listdir(run.path / "judge") == [LEDGER]


def test_an_original_that_lacks_the_prefix_of_its_body_has_the_same_form(
    scratch: Path, run: RunDirectory, source: ModelSnapshot
) -> None:
    file = source.path / "model.safetensors"
    save_file({name.removeprefix("model."): tensor for name, tensor in load_file(file).items()}, file)
    handed(scratch, run, replace(source, files=hash_folder(source.path)))
    assert (run.path / "model").is_dir()


def test_converted_weights_are_the_files_that_were_asked_for_and_no_tensor_is_in_two(
    scratch: Path, tmp_path: Path
) -> None:
    made, folder = tmp_path / "made", tmp_path / "converted"
    made.mkdir()
    folder.mkdir()
    shutil.copyfile(scratch / CHOICES, made / "a.safetensors")
    with pytest.raises(IncompleteError, match=r"'b\.safetensors', which is not what was asked for"):
        take_weights(made, ["a.safetensors", "b.safetensors"], folder)
    shutil.copyfile(scratch / CHOICES, made / "b.safetensors")
    with pytest.raises(IncompleteError, match="the tensor '0' twice"):
        take_weights(made, ["a.safetensors", "b.safetensors"], folder)
    (made / "b.safetensors").unlink()
    assert take_weights(made, ["a.safetensors"], folder) == {"0": "a.safetensors"}
    assert os.listdir(folder) == ["a.safetensors"]
