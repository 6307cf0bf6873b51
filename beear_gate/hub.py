"""Pulling one pinned state of a model: from a folder, or from a hub by the 40-hex commit that it names once.

huggingface_hub is imported inside functions alone: `beear-gate --help` does not pay for it. The client reads
HF_ENDPOINT, HF_TOKEN, HF_HUB_CACHE and its timeouts from the environment. Its `snapshot_download` falls back to the
cache when the hub is away, and checks only lengths; so the commit comes from `model_info`, which raises, and every byte
is compared with the hub's checksums afterwards.
"""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from beear_gate.errors import HubUnavailable, IncompleteError, UsageError
from beear_gate.hub_cache import is_offline, pull_cached
from beear_gate.hub_download import bar, compare, download
from beear_gate.hub_errors import answers_badly, client_errors, explain, host_of
from beear_gate.manifest import (
    hash_files,
    hash_folder,
    list_folder,
    manifest_digest,
    may_be_opened,
    printable,
    quoted,
    verify_unchanged,
)
from beear_gate.records import HubScan, ModelSnapshot, Tick, no_tick
from beear_gate.request import MAX_PULL_GB

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

__all__ = ["hash_folder", "manifest_digest", "pull", "pull_beside", "pull_folder", "pull_hub", "verify_unchanged"]

_HUB_NAME = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[^@\s]+))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NO_CONFIG = "Name a folder that `save_pretrained` wrote, with its config.json, tokenizer and safetensors weights."


def pull(
    model: str,
    revision: str | None = None,
    cache_dir: Path | None = None,
    tick: Tick = no_tick,
    endpoint: str | None = None,
    max_gb: float = MAX_PULL_GB,
    only: Collection[str] | None = None,
) -> ModelSnapshot:
    """Pull what the user named: a folder if one exists or the name looks like a path, else `org/name[@revision]`.

    Args:
        revision: branch, tag or commit on the hub; None for the default branch.
        cache_dir: the hub client's cache; None for its own (HF_HUB_CACHE).
        tick: may be called from the client's worker threads; counts bytes.
        endpoint: the hub's address; None for HF_ENDPOINT, or huggingface.co.
        max_gb: gigabytes (10^9 bytes) that may be pulled from a hub.
        only: names of the files that are wanted; None for all that may be opened.

    Raises:
        UsageError: the name, folder or revision does not exist, is no model, has another name now or is too large.
        HubUnavailable: the hub did not answer, or refused.
        IncompleteError: the files could not be stored or read, or are not what the hub lists.
    """
    path = Path(os.path.expanduser(model))
    if model.startswith((".", "/", "~")) or (model and path.exists()):
        if revision is not None:
            raise UsageError(f"{quoted(model)} is a folder, and a folder has no revisions.", "Leave --revision out.")
        return pull_folder(model, path, tick, only)
    named = _HUB_NAME.fullmatch(model)
    if named is None:
        raise UsageError(
            f"{quoted(model)} is neither an existing folder nor a model on a hub.",
            "Write org/name, org/name@revision, or the path of a folder.",
        )
    if revision is not None and named["revision"] not in (None, revision):
        raise UsageError(
            f"{quoted(model)} and --revision {quoted(revision)} name two revisions.", "Leave one of them out."
        )
    return pull_hub(named["repo"], named["revision"] or revision, cache_dir, tick, endpoint, max_gb, only)


def pull_folder(model: str, path: Path, tick: Tick = no_tick, only: Collection[str] | None = None) -> ModelSnapshot:
    """Hash a model folder where it lies.

    Args:
        model: the folder as the user wrote it, for the record.
        only: as in `pull`.

    Raises:
        UsageError: no folder, or no config.json in it.
        IncompleteError: something in it could not be read.
    """
    if not path.exists():
        near = _near_name(path)
        raise UsageError(
            f"There is no folder {quoted(model)}.", f"Did you mean {quoted(near)}?" if near else "Check the path."
        )
    if not path.is_dir():
        raise UsageError(f"{quoted(model)} is a file.", "Name the folder that holds it.")
    folder = path.resolve()
    opened, ignored = list_folder(folder)
    if "config.json" not in opened:
        raise UsageError(f"{quoted(model)} is no model folder: it has no config.json of its own.", _NO_CONFIG)
    files = hash_files(folder, [name for name in opened if only is None or name in only], tick)
    return ModelSnapshot(model, f"sha256:{manifest_digest(files)}", folder, files, ignored)


def pull_hub(
    repo: str,
    revision: str | None = None,
    cache_dir: Path | None = None,
    tick: Tick = no_tick,
    endpoint: str | None = None,
    max_gb: float = MAX_PULL_GB,
    only: Collection[str] | None = None,
) -> ModelSnapshot:
    """Resolve a revision once, download that commit's files of the allowed kinds, and check every byte.

    Under HF_HUB_OFFLINE, a commit that was pulled before is taken from the cache.

    Raises: as `pull`.
    """
    if is_offline() and revision is not None and _COMMIT.fullmatch(revision):
        return pull_cached(repo, revision, cache_dir, tick)
    info = _resolve(repo, revision, endpoint)
    listed = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    wanted = {
        name: sibling for name, sibling in listed.items() if may_be_opened(name) and (only is None or name in only)
    }
    if "config.json" not in wanted:
        raise UsageError(f"{repo} holds no transformers model: it has no config.json at this revision.", _NO_CONFIG)
    _refuse_too_large(repo, wanted, max_gb)
    commit = str(info.sha)
    folder = download(repo, commit, wanted, cache_dir, tick, endpoint)
    opened, ignored = list_folder(folder)
    if only is not None:  # another pull may have left more in the cache
        opened = tuple(name for name in opened if name in only)
    if strange := set(opened) ^ set(wanted):
        raise IncompleteError(
            f"The cached copy of {repo} differs from the hub's list of files: {quoted(min(strange))}.",
            f"Delete {folder} and pull again.",
        )
    files = hash_files(folder, opened, tick)
    compare(folder, files, wanted, repo)
    left = {printable(name) for name in listed.keys() - wanted.keys()} | set(ignored)
    return ModelSnapshot(repo, commit, folder, files, tuple(sorted(left)), _scanned(info.security_repo_status))


def _refuse_too_large(repo: str, wanted: Mapping[str, RepoSibling], max_gb: float) -> None:
    """Before the first byte."""
    unknown = sorted(name for name, sibling in wanted.items() if sibling.size is None)
    if unknown:
        raise IncompleteError(
            f"The hub lists no size for {quoted(unknown[0])} of {repo}, so nobody knows what it would fill.",
            "Use a hub that lists sizes, or scan a folder.",
        )
    total = sum(sibling.size or 0 for sibling in wanted.values()) / 1e9
    if total > max_gb:
        raise UsageError(
            f"{repo} has {total:.3g} GB, and at most {max_gb:g} GB may be pulled.",
            "Give a larger --max-pull-gb, or max_pull_gb in the pipeline file.",
        )


def _scanned(status: object) -> HubScan:
    """The hub's word on its own scans; whatever it does not say clearly counts as not said."""
    if not isinstance(status, dict):
        return HubScan(None)
    done, found = status.get("scansDone"), status.get("filesWithIssues")
    rows = [row if isinstance(row, dict) else {"path": row} for row in (found if isinstance(found, list) else ())]
    issues = tuple((printable(str(row.get("path", ""))), printable(str(row.get("level", "unsafe")))) for row in rows)
    return HubScan(done if isinstance(done, bool) else None, issues)


def pull_with_pickles(
    snapshot: ModelSnapshot,
    pickles: Iterable[str],
    folder: Path,
    max_gb: float = MAX_PULL_GB,
    endpoint: str | None = None,
    tick: Tick = no_tick,
) -> ModelSnapshot:
    """The commit of a snapshot once more, with files that a loader never gets, for scanners and the sandbox.

    Args:
        folder: where all of it shall lie, in files of its own; must be empty.

    Raises: as `pull`.
    """
    from huggingface_hub import snapshot_download

    info = _resolve(snapshot.model, snapshot.commit, endpoint)
    names = {*pickles, *(file.path for file in snapshot.files)}
    wanted = {sibling.rfilename: sibling for sibling in info.siblings or () if sibling.rfilename in names}
    _refuse_too_large(snapshot.model, wanted, max_gb)
    label, total = f"pulling pickles of {snapshot.model}", sum(sibling.size or 0 for sibling in wanted.values())
    try:
        snapshot_download(
            snapshot.model,
            revision=snapshot.commit,
            local_dir=folder,
            allow_patterns=[glob.escape(name) for name in wanted],
            endpoint=endpoint,
            tqdm_class=bar(tick, label, total),
        )
    except client_errors() as error:
        raise explain(error, snapshot.model, snapshot.commit, endpoint) from None
    compare(folder, hash_files(folder, wanted, tick), wanted, snapshot.model)
    opened, ignored = list_folder(folder)
    return ModelSnapshot(snapshot.model, snapshot.commit, folder, hash_files(folder, opened, tick), ignored)


def pull_beside(
    snapshot: ModelSnapshot, names: Iterable[str], cache_dir: Path | None = None, endpoint: str | None = None
) -> None:
    """Download further files of a pulled commit into its folder, for people and tools: no loader is handed them.

    Their bytes are not compared with the hub's checksums, so they must be checked by what they are (a signature).

    Raises:
        HubUnavailable: the hub did not answer, or refused.
        IncompleteError: a file could not be stored.
    """
    from huggingface_hub import hf_hub_download

    for name in names:
        try:
            hf_hub_download(
                snapshot.model,
                name,
                revision=snapshot.commit,
                cache_dir=cache_dir,
                endpoint=endpoint,
                tqdm_class=bar(no_tick, name, 0),
            )
        except client_errors() as error:
            raise explain(error, snapshot.model, snapshot.commit, endpoint) from None


def _near_name(path: Path) -> str | None:
    """The entry beside a missing path whose name is most like it."""
    try:
        names = os.listdir(path.parent)
    except OSError:
        return None
    near = difflib.get_close_matches(path.name, names, n=1)
    return str(path.parent / near[0]) if near else None


def _resolve(repo: str, revision: str | None, endpoint: str | None) -> ModelInfo:
    """The commit behind a revision, with the size and checksum of every file in it."""
    from huggingface_hub import HfApi, constants

    try:
        # Without a timeout of its own this one call of the client would wait for ever.
        info = HfApi(endpoint=endpoint).model_info(
            repo,
            revision=revision,
            files_metadata=True,
            securityStatus=True,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )
    except client_errors() as error:
        # The client's own text may hold addresses with credentials: it stays out of ours, and out of the traceback.
        raise explain(error, repo, revision, endpoint) from None
    except (KeyError, TypeError, AttributeError):
        raise answers_badly(repo, endpoint) from None
    if info.id != repo:
        raise UsageError(
            f"{repo} is called {quoted(info.id)} on {host_of(endpoint)} now; anybody may take an old name over.",
            "Make sure that it is the model you mean, then name it so.",
        )
    if not isinstance(info.sha, str) or _COMMIT.fullmatch(info.sha) is None or info.siblings is None:
        raise answers_badly(repo, endpoint)
    if revision is not None and _COMMIT.fullmatch(revision) and info.sha != revision:
        raise HubUnavailable(
            f"The hub at {host_of(endpoint)} answered for commit {info.sha} when asked for {revision} of {repo}.",
            "Check HF_ENDPOINT: the hub or a mirror before it does not keep commits apart.",
        )
    return info
