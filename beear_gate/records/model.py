"""The model under test before it is loaded: its files, what was found in them, where it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from beear_gate.records.terms import Severity


@dataclass(frozen=True)
class FileRecord:
    """One file of a snapshot: path relative to the snapshot's folder (POSIX), bytes, sha256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class HubScan:
    """What the scanners of a hub say of a commit: advice, never proof.

    Attributes:
        done: whether they have looked at every file; None where the hub did not say.
        issues: path of a file and what they call it, for each that they do not like.
    """

    done: bool | None
    issues: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ModelSnapshot:
    """One pinned state of a model on disk.

    Attributes:
        model: what the user named: `org/name` or a folder.
        commit: the 40-hex commit on a hub; for a folder `sha256:` and the digest of its manifest.
        path: the folder that holds the files.
        files: every file that may be opened, hashed.
        ignored: names that the repository holds and that were neither hashed nor (on a hub) downloaded.
        hub_scan: what the hub's own scanners say; None for a folder.
    """

    model: str
    commit: str
    path: Path
    files: tuple[FileRecord, ...]
    ignored: tuple[str, ...] = ()
    hub_scan: HubScan | None = None


@dataclass(frozen=True)
class Finding:
    """Something the static look at the files found.

    Attributes:
        id: stable identifier, such as `pickle-weights`.
        file: path relative to the snapshot, or "" for the repository as a whole.
        message: one sentence: what is wrong.
        remedy: one sentence: what to do.
        offset: byte in the file where it begins, where that is known.
        technique: the MITRE ATLAS technique that it points to, such as `AML.T0011.000`; "" for none.
        waived: who accepts it until when, and why; "" where nobody does.
    """

    id: str
    severity: Severity
    file: str
    message: str
    remedy: str
    offset: int | None = None
    technique: str = ""
    waived: str = ""

    @property
    def blocks(self) -> bool:
        """Whether the model may not be loaded because of it."""
        return self.severity is Severity.BLOCK and not self.waived


@dataclass(frozen=True)
class ConvertedFile:
    """A pickle of weights, and the safetensors file that was made of it."""

    source: FileRecord
    target: FileRecord


@dataclass(frozen=True)
class Conversion:
    """What became of a model that had pickles for weights; `problem` says, as the end of a sentence, why nothing did.

    Attributes:
        snapshot: the copy that everything after this is about; the original where there is a problem.
    """

    snapshot: ModelSnapshot
    files: tuple[ConvertedFile, ...]
    problem: str = ""


@dataclass(frozen=True)
class SandboxRecord:
    """The container in which the model was loaded.

    Attributes:
        engine: name and version.
        image, image_id: as it was named, and the engine's digest of its configuration and layers.
        user: numeric user and group inside.
        memory_gb, cpus, pids, minutes: its limits.
        device: `cpu` or `cuda`.
        code: folders of the host that stood in for the image's own packages (development); empty for none.
    """

    engine: str
    image: str
    image_id: str
    user: str
    memory_gb: float
    cpus: float
    pids: int
    minutes: float
    device: str
    code: tuple[str, ...] = ()
