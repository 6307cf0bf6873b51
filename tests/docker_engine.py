"""The Docker engine of the tests: `.ci/docker` starts it, and makes the image that has nothing but Debian's Python."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException, ImageNotFound

from beear_gate.sandbox.engine import CODE

IMAGE = "beear-gate-test:bookworm"
ROOT = Path(__file__).parent.parent
PACKAGES = (str(ROOT), sysconfig.get_paths()["purelib"])
"""What stands in for the packages of a whole image: this checkout, and the environment of the tests."""
_HOW = 'This test needs a Docker engine and its image: eval "$(.ci/docker /tmp/beear-gate-docker)"'

Use = Callable[..., None]


def need_engine() -> None:
    """Leave the test where there is no engine; where CI is set, that is a failure."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("Debian 12 has Python 3.11, which cannot load the packages of another one")
    try:
        docker.from_env(timeout=20).images.get(IMAGE)
    except (DockerException, ImageNotFound, OSError) as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{_HOW} ({type(error).__name__})")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Puts folders before the packages that containers import from."""
    need_engine()

    def use(*folders: Path) -> None:
        monkeypatch.setenv(CODE, ":".join([*map(str, folders), *PACKAGES]))

    use()
    return use


def containers(process: int | None = None) -> list[str]:
    """Names of the containers that a scan of this process, or of another one, has made and not removed."""
    label = f"beear-gate.process={process or os.getpid()}"
    found = docker.from_env().containers.list(all=True, filters={"label": label}, ignore_removed=True)
    return [str(each.name) for each in found]
