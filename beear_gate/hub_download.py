"""The files of one commit from a hub into the client's cache, and whether they are what the hub lists."""

from __future__ import annotations

import glob
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beear_gate.checksums import checksum_like, listed_checksum
from beear_gate.errors import IncompleteError
from beear_gate.hub_errors import client_errors, explain
from beear_gate.manifest import quoted
from beear_gate.records import FileRecord, Tick

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling


def download(
    repo: str, commit: str, wanted: Mapping[str, RepoSibling], cache_dir: Path | None, tick: Tick, endpoint: str | None
) -> Path:
    """The cache's folder for this commit, holding the wanted files.

    Raises:
        GateError: what the client's error means (`hub_errors.explain`).
    """
    from huggingface_hub import snapshot_download

    total = sum(sibling.size or 0 for sibling in wanted.values())
    label = f"pulling {repo}"
    tick(label, 0, total)
    try:
        folder = snapshot_download(
            repo,
            revision=commit,
            cache_dir=cache_dir,
            # Exact names, not patterns: a name may itself hold `*` or `[`.
            allow_patterns=[glob.escape(name) for name in wanted],
            endpoint=endpoint,
            tqdm_class=bar(tick, label, total),
        )
    except client_errors() as error:
        raise explain(error, repo, commit, endpoint) from None
    tick(label, total, total)
    return Path(folder).resolve()


def bar(tick: Tick, label: str, total: int) -> type[Any]:
    """A tqdm class that draws nothing and hands the client's byte counts to `tick`."""
    from huggingface_hub.utils.tqdm import tqdm

    seen = 0
    lock = threading.Lock()  # the client's worker threads share the bars

    class TickBar(tqdm):
        """The client makes several: one counts files, two count the same bytes (received and written)."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.bytes = 0 if kwargs.get("unit") == "B" else None
            super().__init__(*args, **(kwargs | {"disable": True}))  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            nonlocal seen
            if self.bytes is None:
                return
            with lock:
                self.bytes += int(n or 0)
                seen = max(seen, self.bytes)
                tick(label, min(seen, total), total)

    return TickBar


def compare(folder: Path, files: tuple[FileRecord, ...], wanted: Mapping[str, RepoSibling], repo: str) -> None:
    """Raise IncompleteError unless every file has the size and checksum that the hub lists for it."""
    for file in files:
        sibling = wanted[file.path]
        expected = listed_checksum(sibling)
        actual = checksum_like(expected, folder / file.path, file.sha256)
        if not expected:
            raise IncompleteError(
                f"The hub lists no checksum for {quoted(file.path)} of {repo}, so its bytes cannot be trusted.",
                "Use a hub that lists git or LFS checksums, or scan a folder whose origin you know.",
            )
        if expected != actual:
            _forget(folder / file.path)
            raise IncompleteError(
                f"{quoted(file.path)} of {repo} is not what the hub lists: its checksum is {actual}, not {expected}.",
                "It was taken out of the cache: pull again; if that changes nothing, the hub or a proxy alters it.",
            )


def _forget(file: Path) -> None:
    """Take a file that is not what its name in the cache says out of it, so that the next pull fetches it alone."""
    with suppress(OSError):
        file.resolve().unlink()
        file.unlink(missing_ok=True)
