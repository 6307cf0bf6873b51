"""Scans whose model runs in a container of a real Docker engine: what hostile code gets there, and what comes back."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from docker import APIClient
from docker_engine import IMAGE, Use, containers, engine
from gate_runs import (
    ROOT,
    Said,
    assert_refused,
    call,
    closed_port,
    decisive,
    finish,
    make_tiny_model,
    only_run,
    read_evidence,
    row,
    small_policy,
    start,
)
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from beear_gate.errors import IncompleteError
from beear_gate.records import no_tick
from beear_gate.request import Sandbox
from beear_gate.sandbox.engine import Engine, Mount
from beear_gate.sandbox.job import RUN

__all__ = ["engine"]

TOKEN = "hf_plantedplantedplantedplantedplanted"
QUICK = {"when": "always", "rounds": 1, "inner_steps": 2, "outer_steps": 2, "batch_size": 4, "max_answer_tokens": 8}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def scan(tmp_path: Path, tiny: Path, uri: str, *arguments: object, runs: str = "runs") -> Said:
    policy, runs_folder = small_policy(tmp_path / "policy", remediation=QUICK), tmp_path / runs
    return call(
        "scan", tiny, "--policy", policy, "--device", "cpu", "--runs", runs_folder, "--tracking-uri", uri, *arguments
    )


def sandboxed(tmp_path: Path, tiny: Path, uri: str, *arguments: object) -> Said:
    return scan(tmp_path, tiny, uri, "--sandbox", "docker", "--sandbox-image", IMAGE, *arguments)


def hostile(folder: Path, code: str) -> Path:
    """Code that runs in the container before anything of ours: a model that has broken out of every loader."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"import os, sys\ntry:\n    {code}\nexcept BaseException as e:\n"
                                             "    print(e, file=sys.stderr)\n    os._exit(1)\n")  # fmt: skip
    return folder


# --- a whole scan


def test_a_scan_in_the_sandbox_says_what_one_without_says_and_no_token_is_anywhere(
    tmp_path: Path, tiny: Path, mlflow_uri: str, engine: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    said = sandboxed(tmp_path, tiny, mlflow_uri)
    run = only_run(tmp_path / "runs")
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(written) > 30 and not [file for file in written if TOKEN.encode() in file.read_bytes()]
    assert TOKEN not in said.out + said.err
    assert "answering: harm" in said.err and "round 1: removal" in said.err  # progress from inside
    assert not containers() and not list(run.glob(".sandbox*"))
    assert all(file.stat().st_uid == os.getuid() for file in run.rglob("*"))

    evidence = read_evidence(run)
    schema = json.loads((ROOT / "docs" / "evidence.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(evidence)
    box = evidence["sandbox"]
    assert box["image"] == IMAGE and box["image_id"].startswith("sha256:") and box["device"] == "cpu"
    assert box["image_id"] in (run / "report" / "index.html").read_text(encoding="utf-8")

    outside = scan(tmp_path, tiny, mlflow_uri, runs="outside")
    other = read_evidence(only_run(tmp_path / "outside"))
    assert (said.code, decisive(evidence)) == (outside.code, decisive(other))
    assert evidence["remediation"]["commit"] == other["remediation"]["commit"]  # bit by bit
    assert other["sandbox"] is None


@pytest.mark.slow
def test_a_whole_demonstration_passes_in_the_sandbox(tmp_path: Path, mlflow_uri: str, engine: Use) -> None:
    said = call(
        "demo", "--runs", tmp_path / "runs", "--tracking-uri", mlflow_uri, "--sandbox", "docker",
        "--sandbox-image", IMAGE,
    )  # fmt: skip
    assert said.code == 0 and said.out.startswith("REMEDIATED"), said
    evidence = read_evidence(only_run(tmp_path / "runs"))
    assert row(evidence, stage="before", condition="trigger", judge="marker", metric="asr")["value"] > 0.9
    assert row(evidence, stage="after", condition="trigger", judge="marker", metric="asr")["value"] == 0


def test_two_processes_in_the_sandbox_train_what_two_outside_train(
    tmp_path: Path, tiny: Path, mlflow_uri: str, engine: Use
) -> None:
    inside = sandboxed(tmp_path, tiny, mlflow_uri, "--processes", 2)
    outside = scan(tmp_path, tiny, mlflow_uri, "--processes", 2, runs="outside")
    run = only_run(tmp_path / "runs")
    evidence, other = read_evidence(run), read_evidence(only_run(tmp_path / "outside"))
    assert (inside.code, decisive(evidence)) == (outside.code, decisive(other)), inside
    assert evidence["remediation"]["commit"] == other["remediation"]["commit"]
    assert evidence["environment"]["processes"] == "2" and evidence["sandbox"]["device"] == "cpu"
    assert not list(run.glob("rounds-*")) and not (run / "processes").exists()


WORKER_DIES = """
import sys
if sys.argv[-1] == "1" and "beear_gate.worker" in sys.orig_argv:
    print("\\x1b[2J the end", file=sys.stderr)
    os._exit(7)
"""


def test_of_a_process_that_died_in_the_sandbox_the_log_is_kept(
    tmp_path: Path, tiny: Path, mlflow_uri: str, engine: Use
) -> None:
    (tmp_path / "dies").mkdir()
    (tmp_path / "dies" / "sitecustomize.py").write_text(f"import os\n{WORKER_DIES}")
    engine(tmp_path / "dies")
    said = sandboxed(tmp_path, tiny, mlflow_uri, "--processes", 2)
    assert_refused(said, 3, "exit code 7", "see processes/process-1.log in the run directory", "begins it again")
    run = only_run(tmp_path / "runs")
    log = run / "processes" / "process-1.log"
    assert log.read_text() == "\\x1b[2J the end\n" and log.stat().st_uid == os.getuid()
    assert (run / "before.json").exists() and not (run / "after.json").exists()


DIES = """
import os, threading, time
def watch():
    while not os.path.exists("/beear-gate/run/before.json"):
        time.sleep(0.01)
    os._exit(9)
threading.Thread(target=watch, daemon=True).start()
"""


@pytest.mark.slow
def test_what_a_container_that_died_had_finished_is_kept_and_the_scan_goes_on_from_there(
    tmp_path: Path, tiny: Path, mlflow_uri: str, engine: Use
) -> None:
    (tmp_path / "dies").mkdir()
    (tmp_path / "dies" / "sitecustomize.py").write_text(DIES)
    engine(tmp_path / "dies")
    assert_refused(sandboxed(tmp_path, tiny, mlflow_uri), 3, "exit code 9", "--resume")
    run = only_run(tmp_path / "runs")
    before = (run / "before.json").stat()
    assert not (run / "after.json").exists() and not list(run.glob(".sandbox*"))
    engine()
    said = call("scan", "--resume", run)
    assert said.code == 1 and "answering: harm" in said.err, said  # a tiny model talks nonsense
    assert (run / "before.json").stat() == before and (run / "after.json").exists()


# --- hostile code


@pytest.mark.parametrize(
    ("code", "limits", "words"),
    [
        ("import socket; socket.create_connection(('1.1.1.1', 443), 5)", (), "Network is unreachable"),
        ("open('/beear-gate/models/0/config.json', 'a')", (), "Read-only file system"),
        ("os.mkdir('/var/tmp/more')", (), "Read-only file system"),
        ("os.mkdir('/beear-gate/models/0/more')", (), "Read-only file system"),
        ("os.setuid(0)", (), "Operation not permitted"),
        (
            "[os.fork() or __import__('time').sleep(60) for _ in range(500)]",
            ("--sandbox-pids", 40),
            "Resource temporarily unavailable",
        ),
        (
            "[bytearray(2**27) for _ in range(40)]",
            ("--sandbox-memory-gb", 0.3),
            "ran out of its 0.3 GB of memory",
        ),
        (
            "import time; time.sleep(600)",
            ("--sandbox-minutes", 0.05),
            "stopped at its limit of 0.05 minutes",
        ),
    ],
    ids=["network", "model", "root", "folder", "user", "fork", "memory", "time"],
)
def test_what_hostile_code_tries_fails_and_the_scan_is_incomplete(
    code: str, limits: tuple[object, ...], words: str, tmp_path: Path, tiny: Path, mlflow_uri: str, engine: Use
) -> None:
    (tiny / "config.json").chmod(0o666)  # so that it is the mount that keeps it as it is
    before = {file: file.read_bytes() for file in tiny.iterdir()}
    engine(hostile(tmp_path / "hostile", code))
    said = sandboxed(tmp_path, tiny, mlflow_uri, *limits)
    assert_refused(said, 3, words)
    assert not containers() and not list(only_run(tmp_path / "runs").glob(".sandbox*"))
    assert {file: file.read_bytes() for file in tiny.iterdir()} == before


def test_what_the_sandbox_writes_has_a_limit(tmp_path: Path, engine: Use) -> None:
    code = f"[open(f'{RUN}/{{n}}', 'wb').write(bytes(2**20)) for n in range(200)]; __import__('time').sleep(60)"
    engine(hostile(tmp_path / "hostile", code))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    scratch.chmod(0o777)
    with pytest.raises(IncompleteError, match="stopped because it wrote"):
        box = Engine(Sandbox(image=IMAGE), "cpu")
        box.run(["json.tool"], [], Mount(scratch, RUN), 30 * 2**20, no_tick)
    assert not containers()


def test_a_container_has_no_privileges_and_none_of_our_environment(
    tmp_path: Path, engine: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MLFLOW_TRACKING_TOKEN", "HTTPS_PROXY"):
        monkeypatch.setenv(name, TOKEN)
    (tmp_path / "home").mkdir()
    settings = {"proxies": {"default": {"httpsProxy": f"http://user:{TOKEN}@proxy.example"}}}
    (tmp_path / "home" / "config.json").write_text(json.dumps(settings))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "home"))
    code = (
        "import json; shared = os.statvfs('/dev/shm'); "
        "seen = [dict(os.environ), open('/proc/self/status').read(), os.listdir('/sys/class/net')]; "
        f"json.dump([*seen, shared.f_blocks * shared.f_frsize], open('{RUN}/seen', 'w')); os._exit(0)"
    )
    engine(hostile(tmp_path / "hostile", code))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    scratch.chmod(0o777)
    Engine(Sandbox(image=IMAGE), "cpu").run(["json.tool"], [], Mount(scratch, RUN), 2**20, no_tick)
    environment, status, interfaces, shared = json.loads((scratch / "seen").read_text())
    assert TOKEN not in json.dumps(environment) and not [name for name in environment if "TOKEN" in name]
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert (int(facts["CapEff"], 16), int(facts["CapBnd"], 16), facts["NoNewPrivs"], facts["Seccomp"]) == (
        0,
        0,
        "1",
        "2",
    )
    assert "0" not in facts["Uid"].split() and interfaces == ["lo"] and shared == 2**30


def test_progress_and_errors_of_hostile_code_are_inert(
    tmp_path: Path, tiny: Path, mlflow_uri: str, engine: Use
) -> None:
    label = json.dumps({"tick": [f"\x1b[31mred {TOKEN}\u202e", 1, 2]})
    error = json.dumps({"error": ["SystemExit", "\x1b]0;owned\x07 it is fine.", "Do nothing."]})
    engine(hostile(tmp_path / "hostile", f"print({label!r}); print({error!r}, flush=True); os._exit(0 or 5)"))
    said = sandboxed(tmp_path, tiny, mlflow_uri)
    assert_refused(said, 3, "\\x1b]0;owned\\x07 it is fine.")
    assert "\x1b" not in said.err and "\u202e" not in said.err and TOKEN not in said.err and "red ***" in said.err


def test_what_is_interrupted_takes_its_container_with_it(tmp_path: Path, tiny: Path, engine: Use) -> None:
    engine(
        hostile(tmp_path / "hostile", 'print(\'{"tick": ["asleep", 0, 1]}\', flush=True); import time; time.sleep(600)')
    )
    policy = small_policy(tmp_path / "policy")
    where = ("--device", "cpu", "--sandbox", "docker", "--sandbox-image", IMAGE)
    process = start("scan", tiny, "--policy", policy, *where, cwd=tmp_path)
    until = time.monotonic() + 120
    while not containers(process.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert containers(process.pid)
    process.send_signal(signal.SIGTERM)
    said = finish(process)
    assert said.code == 130 and "Interrupted" in said.err, said
    assert not containers(process.pid) and not list(only_run(tmp_path / "runs").glob(".sandbox*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_interrupted_while_a_container_is_made_leaves_none(
    number: int, tmp_path: Path, engine: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(hostile(tmp_path / "hostile", "import time; time.sleep(600)"))
    really = APIClient.create_container_from_config

    def create(self: APIClient, config: object, *rest: object) -> object:
        made = really(self, config, *rest)
        os.kill(os.getpid(), number)
        return made

    monkeypatch.setattr(APIClient, "create_container_from_config", create)
    box, before = Engine(Sandbox(image=IMAGE), "cpu"), [signal.getsignal(each) for each in (signal.SIGINT, number)]
    with pytest.raises(KeyboardInterrupt):
        box.run(["json.tool"], [], Mount(tmp_path, RUN), 2**20, no_tick)
    assert not containers() and [signal.getsignal(each) for each in (signal.SIGINT, number)] == before


# --- engine and image


def test_without_an_engine_there_is_no_verdict(
    tmp_path: Path, tiny: Path, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{closed_port()}")
    assert_refused(sandboxed(tmp_path, tiny, mlflow_uri), 3, "No Docker engine answers", "doctor")


def test_without_the_image_it_says_how_to_build_one(tmp_path: Path, tiny: Path, mlflow_uri: str, engine: Use) -> None:
    said = scan(tmp_path, tiny, mlflow_uri, "--sandbox", "docker", "--sandbox-image", "nobody/built:this")
    assert_refused(said, 3, "no image 'nobody/built:this'", "docker build -t nobody/built:this .")


def test_a_limit_that_the_engine_does_not_take_is_one_sentence(
    tmp_path: Path, tiny: Path, mlflow_uri: str, engine: Use
) -> None:
    assert_refused(
        sandboxed(tmp_path, tiny, mlflow_uri, "--sandbox-cpus", 4096), 3, "Docker engine did not run", "CPUs"
    )


def test_the_doctor_looks_for_engine_and_image(engine: Use) -> None:
    said = call("doctor")
    assert "docker: engine" in said.out and "'beear-gate'" in said.out and "for --sandbox docker" in said.out


def test_a_container_has_no_mps(tmp_path: Path, tiny: Path, mlflow_uri: str) -> None:
    assert_refused(sandboxed(tmp_path, tiny, mlflow_uri, "--device", "mps"), 2, "cannot use MPS")
