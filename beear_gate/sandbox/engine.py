"""One container of our own image on a Docker engine: what it may not do, and how it ends.

No network, no capabilities, no new privileges, the engine's default seccomp profile, a read-only root, a numeric user,
a private /tmp in memory, limits of memory, CPUs, processes and time. It gets no variable of this process but the number
of threads, and no proxy settings of the Docker client, which may hold passwords. Its output is read here and kept in no
log of the engine.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beear_gate.errors import IncompleteError, UsageError
from beear_gate.lm.load import pick_device
from beear_gate.records import SandboxRecord, Tick
from beear_gate.request import Sandbox
from beear_gate.sandbox.output import Output

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

CODE = "BEEAR_GATE_SANDBOX_CODE"
"""Variable with folders of this machine, apart by `:`, that stand in for the packages of the image: for development,
where an image would be old with every change."""

_NOBODY = "65534:65534"
_POLL = 0.2  # seconds
_TMP = "rw,noexec,nosuid,nodev,size=1g"
_SHARED = "1g"  # of /dev/shm, where processes on several GPUs meet (NCCL): the engine's 64 MB are too little for them
_MOST_FILES = 10_000
_GONE = "Look at the engine's own log, then go on with `beear-gate scan --resume RUN_DIR`."


@dataclass(frozen=True)
class Mount:
    """A file or folder of the host, and where the container sees it, read-only."""

    source: Path
    target: str


class Engine:
    """A Docker engine that holds the image.

    Args:
        device: of the request; a container has no MPS.

    Raises:
        IncompleteError: no engine answers, it cannot confine, or it does not hold the image.
        UsageError: the device.
    """

    def __init__(self, settings: Sandbox, device: str) -> None:
        self.settings, self.gpu = settings, _gpu(device)
        self._client = _connect()
        info = self._info()
        code = tuple(filter(None, os.environ.get(CODE, "").split(":")))
        self.record = SandboxRecord(
            engine=f"Docker {info.get('ServerVersion', 'of unknown version')}",
            image=settings.image,
            image_id=self._image_id(),
            # Files of this user can be read inside, and what is written inside belongs to them.
            user=_NOBODY if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}",
            memory_gb=settings.memory_gb or round(float(info["MemTotal"]) * 0.9 / 1e9, 3),
            cpus=settings.cpus or float(info["NCPU"]),
            pids=settings.pids,
            minutes=settings.minutes,
            device=self.gpu.partition(":")[0] or "cpu",
            code=code,
        )

    def run(
        self, command: Sequence[str], mounts: Sequence[Mount], writable: Mount, most_bytes: int, tick: Tick
    ) -> None:
        """Run a module of beear-gate in a container of its own, to its end; no container is left in any case.

        Args:
            command: the module and its arguments.
            writable: the one folder that the container may write.
            most_bytes: of all files in it together.

        Raises:
            GateError: what the module raised, or IncompleteError where a limit or the engine ended it.
        """
        from docker.errors import DockerException

        try:
            with _signals_to(_interrupt, signal.SIGTERM):
                output, container, missed = Output(tick), None, list[int]()
                try:
                    # The engine goes on making a container that nobody waits for, so an interrupt waits instead.
                    with _signals_to(lambda number, _: missed.append(number), signal.SIGINT, signal.SIGTERM):
                        container = self._client.containers.create(
                            self.record.image_id, list(command), **self._confinement(mounts, writable, most_bytes)
                        )
                    if missed:
                        raise KeyboardInterrupt
                    self._watch(container, output, writable.source, most_bytes)
                finally:
                    if container:
                        container.remove(force=True, v=True)
        except (DockerException, OSError) as error:  # what requests raises of an engine that is gone are OSErrors
            said = getattr(error, "explanation", None) or type(error).__name__
            raise IncompleteError(f"The Docker engine did not run the sandbox: {said}.", _GONE) from error

    def _watch(self, container: Container, output: Output, folder: Path, most_bytes: int) -> None:
        """Start it, hand on its progress, and stop it where it goes beyond a limit."""
        stream = container.attach(stream=True, demux=True, logs=False)
        reader = threading.Thread(target=_read, args=(output, stream), daemon=True)
        reader.start()
        container.start()
        deadline = time.monotonic() + self.record.minutes * 60
        while container.status not in ("exited", "dead"):
            if time.monotonic() > deadline:
                raise IncompleteError(
                    f"The sandbox was stopped at its limit of {self.record.minutes:g} minutes.",
                    "Give more with --sandbox-minutes, and go on with --resume RUN_DIR.",
                )
            size, files = _measure(folder)
            if size > most_bytes or files > _MOST_FILES:
                raise IncompleteError(
                    f"The sandbox was stopped because it wrote {size / 1e9:.3g} GB in {files} files, and at most "
                    f"{most_bytes / 1e9:.3g} GB in {_MOST_FILES} were to be expected.",
                    "Nothing that a scan does needs so much: treat the model as hostile.",
                )
            time.sleep(_POLL)
            container.reload()
        reader.join(timeout=10)
        state: Mapping[str, Any] = container.attrs["State"]
        if state["ExitCode"] and state.get("OOMKilled"):
            raise IncompleteError(
                f"The sandbox ran out of its {self.record.memory_gb:g} GB of memory.",
                "Give more with --sandbox-memory-gb, or a smaller --batch-size.",
            )
        if state["ExitCode"]:
            raise output.error(int(state["ExitCode"]))

    def _confinement(self, mounts: Sequence[Mount], writable: Mount, most_bytes: int) -> dict[str, Any]:
        from docker.types import DeviceRequest, LogConfig, Ulimit
        from docker.types import Mount as Bind

        record, memory = self.record, int(self.record.memory_gb * 1e9)
        code = [Mount(Path(folder), f"/beear-gate/code/{number}") for number, folder in enumerate(record.code)]
        binds = [Bind(each.target, str(each.source), "bind", read_only=True) for each in (*mounts, *code)]
        number = self.gpu.partition(":")[2]
        which = {"device_ids": [number]} if number else {"count": -1}
        return {
            "entrypoint": ["python3", "-P", "-m"],
            "environment": _environment(record, [each.target for each in code]),
            "mounts": [*binds, Bind(writable.target, str(writable.source), "bind")],
            "working_dir": "/",
            "user": record.user,
            "network_mode": "none",
            "read_only": True,
            "tmpfs": {"/tmp": _TMP},
            "shm_size": _SHARED,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "pids_limit": record.pids,
            "mem_limit": memory,
            "memswap_limit": memory,
            "nano_cpus": int(record.cpus * 1e9),
            "ulimits": [Ulimit(name="core", soft=0, hard=0), Ulimit(name="fsize", soft=most_bytes, hard=most_bytes)],
            "device_requests": [DeviceRequest(capabilities=[["gpu"]], **which)] if self.gpu else None,
            "log_config": LogConfig(type="none"),
            "labels": {"beear-gate.process": str(os.getpid())},  # whose it is, for people and tests
            "use_config_proxy": False,
        }

    def _info(self) -> Mapping[str, Any]:
        from docker.errors import DockerException

        try:
            info: Mapping[str, Any] = self._client.info()
        except (DockerException, OSError) as error:
            raise _no_engine() from error
        options: list[str] = info.get("SecurityOptions") or []
        if mapped := [each for each in options if each.startswith(("name=rootless", "name=userns"))]:
            raise IncompleteError(
                f"The Docker engine maps users ({mapped[0]}), so its containers can neither read the model nor write.",
                "Use an engine without user namespaces; inside, the model runs as an ordinary user anyway.",
            )
        if not any(each.startswith("name=seccomp") and "unconfined" not in each for each in options):
            raise IncompleteError(
                "The Docker engine confines no system calls (it has no seccomp profile), so it makes no sandbox.",
                "Use an engine with its default seccomp profile.",
            )
        return info

    def _image_id(self) -> str:
        """Imported and local images have no digest of a registry; the ID is the digest of configuration and layers."""
        from docker.errors import DockerException, ImageNotFound

        name = self.settings.image
        try:
            return str(self._client.images.get(name).id)
        except ImageNotFound:
            raise IncompleteError(
                f"The Docker engine holds no image {name!r}.",
                f"Build it in a copy of beear-gate's repository with `docker build -t {name} .`, or name another one "
                "with --sandbox-image.",
            ) from None
        except (DockerException, OSError) as error:
            raise IncompleteError(f"The image {name!r} cannot be looked up: {error}.", "Correct its name.") from error


def _connect() -> DockerClient:
    import docker
    from docker.errors import DockerException

    try:
        return docker.from_env(timeout=60)
    except (DockerException, OSError) as error:
        raise _no_engine() from error


def _no_engine() -> IncompleteError:
    return IncompleteError(
        "No Docker engine answers, and --sandbox docker needs one.",
        "Start it, or set DOCKER_HOST; `beear-gate doctor` says whether one is found.",
    )


def _read(output: Output, stream: Any) -> None:
    """Until the streams end; a connection that breaks is seen by whoever asks how the container is."""
    with suppress(Exception):
        output.read(stream)


def _gpu(device: str) -> str:
    """`cuda` or `cuda:N` where the container shall have GPUs, else ""."""
    if device.startswith("mps"):
        raise UsageError("A container cannot use MPS.", "Leave --sandbox out, or give --device cpu.")
    name = pick_device("auto").type if device == "auto" else device
    return name if name.startswith("cuda") else ""


def _environment(record: SandboxRecord, code: Sequence[str]) -> dict[str, str]:
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, int(record.cpus)))
    return {
        "HOME": "/tmp",
        "USER": "beear-gate",  # torch asks who it is, and a numeric user has no name
        "HF_HOME": "/tmp/huggingface",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MPLCONFIGDIR": "/tmp/matplotlib",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": threads,
    } | ({"PYTHONPATH": ":".join(code)} if code else {})


def _measure(folder: Path) -> tuple[int, int]:
    """Bytes on disk and number of files below a folder that somebody may be writing; links are not followed."""
    size = count = 0
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            with suppress(OSError):
                size += os.lstat(os.path.join(parent, name)).st_blocks * 512
            count += 1
            if count > _MOST_FILES:
                return size, count
    return size, count


@contextmanager
def _signals_to(handler: Callable[[int, object], Any], *numbers: int) -> Iterator[None]:
    """Whatever else they would do, these signals call `handler`; only the main thread can say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [(number, signal.signal(number, handler)) for number in numbers]
    try:
        yield
    finally:
        for number, old in before:
            signal.signal(number, old)


def _interrupt(number: int, frame: object) -> None:
    """A scan that is asked to end takes its container with it."""
    raise KeyboardInterrupt
