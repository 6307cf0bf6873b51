"""What this machine can do for a scan."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from beear_gate.request import Sandbox


@dataclass(frozen=True)
class Check:
    """One thing a scan may need; `needed` if no scan works without it."""

    name: str
    fine: bool
    message: str
    needed: bool = False


def examine() -> list[Check]:
    """Look at packages, accelerator, disk, hub token, MLflow and Docker; nothing is changed and no address called."""
    return [_packages(), _accelerator(), _disk(), _token(), _tracking(), _docker()]


def _packages() -> Check:
    names = ("torch", "transformers", "huggingface-hub", "mlflow")
    try:
        found = ", ".join(f"{name} {version(name)}" for name in names)
    except PackageNotFoundError as error:
        return Check("packages", False, f"{error.name} is not installed; install beear-gate again", needed=True)
    return Check("packages", True, found, needed=True)


def _accelerator() -> Check:
    try:
        import torch
    except (ImportError, OSError) as error:  # not installed, or a library of its own is missing
        return Check("accelerator", False, f"torch cannot be imported: {error}")
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return Check("accelerator", True, f"{name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free")
    if torch.backends.mps.is_available():
        return Check("accelerator", True, "Apple MPS")
    return Check("accelerator", False, f"none; {os.cpu_count()} CPU cores will do for small models")


def _disk() -> Check:
    free = shutil.disk_usage(".").free / 2**30
    return Check("disk", free > 1, f"{free:.0f} GiB free here; a run needs about the size of the model", needed=True)


def _token() -> Check:
    from huggingface_hub import get_token

    if get_token():
        return Check("hub token", True, "found; its rights were not checked")
    return Check("hub token", False, "none; public models work, gated and private ones need `hf auth login`")


def _tracking() -> Check:
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    return Check("MLflow", True, "MLFLOW_TRACKING_URI is set" if uri else "will use sqlite:///mlflow.db in this folder")


def _docker() -> Check:
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=5)
        answer = client.version()
        tags = [tag for image in client.images.list() for tag in image.tags]
    except (DockerException, OSError):  # an engine that is there and does not answer: requests' errors are OSErrors
        return Check("docker", False, "no engine answers; scans need one for --sandbox docker alone")
    engine, name = f"engine {answer.get('Version', 'unknown')}", Sandbox.image
    if f"{name}:latest" not in tags:
        how = f"build it in the repository with `docker build -t {name} .` for --sandbox docker"
        return Check("docker", False, f"{engine}, and no image {name!r}; {how}")
    return Check("docker", True, f"{engine}, with the image {name!r} for --sandbox docker")
