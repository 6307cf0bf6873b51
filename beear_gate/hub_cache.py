"""A model from the hub client's cache, without a request: for machines that have no network (HF_HUB_OFFLINE).

Only a commit can be asked for: which one a branch is at the hub alone knows, and the cache's own idea may be old.
"""

from __future__ import annotations

import glob
from pathlib import Path
from typing import NoReturn

from beear_gate.checksums import git_names
from beear_gate.errors import HubUnavailable, IncompleteError
from beear_gate.manifest import hash_files, list_folder, may_be_opened, printable, quoted
from beear_gate.records import HubScan, ModelSnapshot, Tick, no_tick


def is_offline() -> bool:
    """Whether the client may not use the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def pull_cached(repo: str, commit: str, cache_dir: Path | None = None, tick: Tick = no_tick) -> ModelSnapshot:
    """The files of a commit that was pulled before, every byte checked against the listing that the client kept.

    Args:
        commit: 40 hex digits.

    Raises:
        HubUnavailable: the cache does not hold this commit, or not all of it.
        IncompleteError: a file is not the one that the commit has.
    """
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        listed = {file.path: file for file in get_cached_repo_tree(repo, revision=commit, cache_dir=cache_dir)}
        wanted = [name for name in listed if may_be_opened(name)]
        folder = Path(
            snapshot_download(
                repo,
                revision=commit,
                cache_dir=cache_dir,
                allow_patterns=[glob.escape(name) for name in wanted],
                local_files_only=True,
            )
        ).resolve()
    except (CachedRepoTreeNotFoundError, OSError):
        raise HubUnavailable(
            f"HF_HUB_OFFLINE is set, and the cache does not hold all of commit {commit} of {repo}.",
            "Unset it and pull once, or scan a local folder.",
        ) from None
    opened, ignored = list_folder(folder)
    if strange := set(opened) - set(wanted):
        _differs(repo, commit, min(strange), folder)
    files = hash_files(folder, opened, tick)
    for file in files:
        if listed[file.path].blob_id not in git_names(folder / file.path, file.size, file.sha256):
            _differs(repo, commit, file.path, folder)
    left = {printable(name) for name in listed.keys() - set(wanted)} | set(ignored)
    return ModelSnapshot(repo, commit, folder, files, tuple(sorted(left)), HubScan(None))


def _differs(repo: str, commit: str, name: str, folder: Path) -> NoReturn:
    raise IncompleteError(
        f"{quoted(name)} in the cache is not what commit {commit} of {repo} has.",
        f"Delete {folder} and pull again with the network.",
    )
