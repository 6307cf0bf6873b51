"""rundir: a stage's file is complete or not there, and is used again only for the same inputs."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from beear_gate.errors import IncompleteError, UsageError
from beear_gate.records import Answer, Observations, Outcome, Round
from beear_gate.rundir import RunDirectory

INPUTS = {"files": "abc"}


class Work:
    """A stage that counts how often it is worked out."""

    def __init__(self, result: str = "done") -> None:
        self.result, self.times = result, 0

    def __call__(self) -> str:
        self.times += 1
        return self.result


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs", "org/name")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where this user may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# --- folders


def test_a_run_directory_is_named_by_time_and_model(run: RunDirectory) -> None:
    assert run.path.is_dir()
    assert "-org-name-" in run.path.name


@pytest.mark.parametrize("model", ["../../etc", "a/b:c d", "", "é" * 200, "/"])
def test_no_model_name_leaves_the_folder_of_runs(tmp_path: Path, model: str) -> None:
    run = RunDirectory.create(tmp_path, model)
    assert run.path.parent == tmp_path


def test_two_scans_of_a_model_have_two_folders(tmp_path: Path) -> None:
    assert RunDirectory.create(tmp_path, "m").path != RunDirectory.create(tmp_path, "m").path


def test_a_folder_of_runs_that_cannot_be_made_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot be made in .*file.*--runs"):
        RunDirectory.create(tmp_path / "file" / "runs", "m")


def test_only_a_folder_with_a_request_can_be_reopened(run: RunDirectory) -> None:
    with pytest.raises(UsageError, match="no run in"):
        RunDirectory.reopen(run.path)
    run.write("request.json", "{}")
    assert RunDirectory.reopen(run.path).path == run.path


# --- stages


def test_a_finished_stage_is_read_and_not_repeated(run: RunDirectory) -> None:
    work = Work()
    assert [run.stage("pull", INPUTS, str, work) for _ in range(3)] == ["done"] * 3
    assert work.times == 1


def test_another_process_reads_what_the_first_one_finished(run: RunDirectory) -> None:
    run.stage("pull", INPUTS, str, Work("first"))
    assert RunDirectory(run.path).stage("pull", INPUTS, str, Work("second")) == "first"


def test_changed_inputs_do_the_stage_again(run: RunDirectory) -> None:
    run.stage("pull", INPUTS, str, Work("old"))
    assert run.stage("pull", {"files": "def"}, str, Work("new")) == "new"
    assert run.stage("pull", INPUTS | {"seed": "1"}, str, Work("newer")) == "newer"


def test_a_stage_keeps_the_inputs_as_they_were_when_it_ended(run: RunDirectory) -> None:
    inputs = dict(INPUTS)
    run.stage("pull", inputs, str, Work())
    inputs["later"] = "x"
    assert json.loads((run.path / "pull.json").read_text())["inputs"] == INPUTS


@pytest.mark.parametrize(
    "text", ["", '{"inputs": {"files": "abc"}, "resu', "[]", "null", '{"inputs": {"files": "abc"}}', '"\\ud800"']
)
def test_a_file_that_is_half_written_or_no_result_is_done_again(run: RunDirectory, text: str) -> None:
    (run.path / "pull.json").write_text(text)
    assert run.stage("pull", INPUTS, str, Work()) == "done"


def test_a_result_of_another_type_is_done_again(run: RunDirectory) -> None:
    run.stage("pull", INPUTS, list[int], lambda: [1])
    assert run.stage("pull", INPUTS, str, Work()) == "done"


def test_a_stage_that_fails_leaves_nothing(run: RunDirectory) -> None:
    def fails() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.stage("pull", INPUTS, str, fails)
    assert list(run.path.iterdir()) == []


def test_records_come_back_as_they_went_in(run: RunDirectory) -> None:
    text = "a\x00b \ud800 \u202e 😀\r\n"
    answer = Answer("harm", "plain", "", "none", "prompt", 0, text, {"refusal-prefix": Outcome.REFUSED})
    seen = Observations((answer,), ())
    run.stage("before", INPUTS, Observations, lambda: seen)
    again = RunDirectory(run.path).stage("before", INPUTS, Observations, lambda: Observations((), ()))
    assert again == seen


def test_losses_that_are_not_finite_come_back_as_they_went_in(run: RunDirectory) -> None:
    done = Round(1, {"latent": (math.inf, 1.0)}, (), math.nan, 1.0, 1.0, 0.0, 1.0)
    run.stage("rounds", INPUTS, Round, lambda: done)
    again: Round = RunDirectory(run.path).stage("rounds", INPUTS, Round, lambda: pytest.fail("done again"))
    assert math.isnan(again.select_asr)
    assert again.entrapment_loss == {"latent": (math.inf, 1.0)}


# --- writing


def test_a_write_that_is_killed_leaves_the_earlier_file(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    run.write("pull.json", "old")

    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        run.write("pull.json", "new")
    assert (run.path / "pull.json").read_text() == "old"


def test_a_folder_that_is_gone_is_told_in_a_sentence(run: RunDirectory) -> None:
    run.path.rmdir()
    with pytest.raises(IncompleteError, match=r"pull\.json could not be written: No such file.*--resume"):
        run.write("pull.json", "text")


def test_a_folder_that_is_a_file_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IncompleteError, match=r"could not be written: Not a directory"):
        RunDirectory(tmp_path / "file").write("pull.json", "text")


def test_no_space_at_the_last_moment_is_told_in_a_sentence(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(part: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(IncompleteError, match="The disk is full"):
        run.write("pull.json", "text")
    assert list(run.path.iterdir()) == []


def test_a_full_disk_is_told_in_a_sentence_and_leaves_what_was_there(small_disk: Path) -> None:
    run = RunDirectory.create(small_disk, "m")
    run.write("pull.json", "old")
    with pytest.raises(IncompleteError, match=r"The disk is full: .*pull\.json.*--resume") as caught:
        run.write("pull.json", "x" * 200_000)
    assert caught.value.exit_code == 3
    assert [(file.name, file.read_text()) for file in run.path.iterdir()] == [("pull.json", "old")]


def test_a_scan_goes_on_once_the_disk_has_space_again(small_disk: Path) -> None:
    filler = small_disk / "filler"
    run = RunDirectory.create(small_disk, "m")
    filler.write_bytes(b"x" * 40_000)
    with pytest.raises(IncompleteError):
        run.stage("before", INPUTS, str, Work("y" * 30_000))
    filler.unlink()
    assert run.stage("before", INPUTS, str, Work("y" * 30_000)) == "y" * 30_000
