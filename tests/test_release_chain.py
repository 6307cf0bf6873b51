"""The whole way of a verdict: signed, published, pulled back and verified by somebody who has the public key alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from attest_sample import POLICY_DIGEST, finished_run, write_model
from gate_runs import Said, call, spawn
from hub_server import Hub, running_hub
from safetensors.numpy import save

from beear_gate.manifest import hash_folder
from beear_gate.records import Verdict
from beear_gate.report import files


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


def on(hub: Hub, folder: Path, *arguments: object) -> Said:
    """In a process of its own: the hub's client reads its address once."""
    env = {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": str(folder / "cache"),
        "HF_TOKEN": "hf_test",
        "HF_HUB_DISABLE_XET": "1",
    }
    return spawn(*arguments, cwd=folder, env=env)


def attested(hub: Hub, folder: Path) -> tuple[Path, Path]:
    """A finished run of a model on the hub, with its signed verdict, and the public key."""
    original, repaired = write_model(folder / "original"), write_model(folder / "repaired", 0.5)
    commit = hub.add("org/model", {each.path: (original / each.path).read_bytes() for each in hash_folder(original)})
    run = finished_run(folder / "runs", original, Verdict.REMEDIATED, repaired, commit=commit)
    files.write(files.read(run), run)  # tables, which finished_run leaves out
    (run / "policy.yaml").write_text("apiVersion: beear-gate/v1\n")
    assert call("keygen", "--output", folder / "keys" / "release").code == 0
    said = call("attest", run, "--key", folder / "keys" / "release", "--quiet")
    assert said.code == 0, said
    return run, folder / "keys" / "release.pub"


def test_what_was_judged_is_what_somebody_else_can_verify(hub: Hub, tmp_path: Path) -> None:
    run, key = attested(hub, tmp_path)
    published = on(hub, tmp_path, "publish", run, "--to", "org/safe", "--quiet")
    assert published.code == 0, published
    expected = ("--key", key, "--policy", POLICY_DIGEST, "--source", "org/model", "--max-age", 1, "--quiet")
    verified = on(hub, tmp_path, "verify", "org/safe", *expected)
    assert verified.code == 0 and "REMEDIATED" in verified.out, verified

    copy = shutil.copytree(run / "model", tmp_path / "copy")
    shutil.copytree(run / "attestation", copy / ".beear-gate")
    assert call("verify", copy, *expected).code == 0

    held = hub.repositories["org/safe"]
    changed = dict(held.commits[held.refs["main"]])
    changed["model-00001-of-00002.safetensors"] = save({"layer.1": np.full((8, 8), 0.25, dtype=np.float32)})
    hub.add("org/safe", changed)
    refused = on(hub, tmp_path, "verify", "org/safe", *expected)
    assert refused.code == 4 and "model-00001-of-00002.safetensors" in refused.message, refused
