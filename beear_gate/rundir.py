"""A run directory: the request, and one JSON file for each finished stage, so that a killed scan can go on.

A stage's file holds the digests of what went in beside what came out. It is written under another name and renamed, so
that a file that is there is complete. A stage whose inputs changed is done again.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from beear_gate.errors import IncompleteError, UsageError

T = TypeVar("T")
TOGETHER = "processes"
"""Folder of what processes that train together are handed and leave."""


class RunDirectory:
    """Where one scan leaves everything."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, parent: Path, model: str) -> RunDirectory:
        """A new folder named by time and model.

        Raises:
            UsageError: the folder cannot be made.
        """
        name = "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in model.strip("./"))[-60:]
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        try:
            parent.mkdir(parents=True, exist_ok=True)
            path = Path(tempfile.mkdtemp(prefix=f"{stamp}-{name.strip('-') or 'model'}-", dir=parent))
            path.chmod(0o755)
        except OSError as error:
            raise UsageError(
                f"The run directory cannot be made in {parent}: {error.strerror}.", "Give a writable folder to --runs."
            ) from error
        return cls(path)

    @classmethod
    def reopen(cls, path: Path) -> RunDirectory:
        """The folder of an earlier scan.

        Raises:
            UsageError: there is no run in it.
        """
        if not (path / "request.json").is_file():
            raise UsageError(f"There is no run in {path} (no request.json).", "Give the RUN_DIR that a scan printed.")
        return cls(path)

    def stage(self, name: str, inputs: Mapping[str, str], kind: Any, work: Callable[[], T]) -> T:
        """The stage's result: read where it is finished and its inputs are the same, else worked out and written.

        Args:
            inputs: what the result depends on, as names and digests.
            kind: the type of the result, for pydantic.
        """
        finished: T | None = self.finished(name, inputs, kind)
        if finished is not None:
            return finished
        result, adapter = work(), TypeAdapter[T](kind)
        document = {"inputs": dict(inputs), "result": adapter.dump_python(result, mode="json")}
        self.write(f"{name}.json", json.dumps(document))  # in ASCII: answers of models are in it, and people look
        return result

    def write(self, name: str, text: str) -> None:
        """Write a file so that it is either complete or not there.

        Raises:
            IncompleteError: the disk is full or the folder cannot be written.
        """
        target = self.path / name
        part = target.with_name(f".{target.name}.part")
        try:
            with part.open("w", encoding="utf-8", errors="surrogatepass") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise cannot_write(target, error) from error

    def finished(self, name: str, inputs: Mapping[str, str], kind: Any) -> Any:
        """The stage's result where it is there for these inputs, else None."""
        try:
            document = json.loads((self.path / f"{name}.json").read_text(encoding="utf-8", errors="surrogatepass"))
            if document["inputs"] == dict(inputs):
                return TypeAdapter(kind).validate_python(document["result"], strict=False)
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            return None  # not finished, or not by this version: the stage is done again
        return None


def cannot_write(path: Path, error: OSError) -> IncompleteError:
    """What to tell when a file of the run could not be written."""
    if error.errno == errno.ENOSPC:
        return IncompleteError(
            f"The disk is full: {path} could not be written.", "Free some space, then go on with --resume RUN_DIR."
        )
    return IncompleteError(f"{path} could not be written: {error.strerror}.", "Check the folder, then use --resume.")
