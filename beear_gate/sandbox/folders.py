"""What of the host a container sees, and who may read and write it there."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

from pydantic import TypeAdapter

from beear_gate.records import ModelSnapshot, SandboxRecord
from beear_gate.sandbox.engine import Mount
from beear_gate.sandbox.job import JOB, Job


def job_mount(job: Job, folder: Path) -> Mount:
    """What the container is told, written into a folder of the host that it does not see."""
    file = folder / "job.json"
    # In ASCII: prompts may hold half of a surrogate pair.
    file.write_text(json.dumps(TypeAdapter(Job).dump_python(job, mode="json")), encoding="ascii")
    file.chmod(0o644)  # whatever the umask
    return Mount(file, JOB)


def model_mounts(snapshot: ModelSnapshot, target: str, spare: Path) -> list[Mount]:
    """Each inspected file by itself, links resolved: what else lies in the folder is not there inside."""
    names = [file.path for file in snapshot.files]
    return [file_mount(snapshot.path / name, f"{target}/{name}", spare) for name in names]


def file_mount(path: Path, target: str, spare: Path) -> Mount:
    """A file, or a copy in `spare` where root alone may read it: inside, root is nobody."""
    source = Path(os.path.realpath(path))
    if os.getuid() == 0 and not os.stat(source).st_mode & stat.S_IROTH:
        copy = spare / target.replace("/", "_")
        shutil.copyfile(source, copy)
        copy.chmod(0o644)
        source = copy
    return Mount(source, target)


def hand_over(folder: Path, record: SandboxRecord) -> None:
    """Give a folder and all in it to the container's user."""
    user, group = map(int, record.user.split(":"))
    for parent, _, names in os.walk(folder):
        for path in (parent, *(os.path.join(parent, name) for name in names)):
            os.chown(path, user, group)
