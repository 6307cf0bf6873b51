"""One file of a data set on a hub: at a commit that never moves, kept in the client's cache, checked byte by byte.

huggingface_hub is imported inside functions, as in `hub.py`. A file that is in the cache is taken from there without
asking the hub: a whole commit says all, and the checksum of the policy says whether the bytes are the ones it means.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from beear_gate.errors import GateError, UsageError
from beear_gate.hub_errors import client_errors, explain, host_of
from beear_gate.manifest import quoted


def fetch(dataset: str, revision: str, file: str, sha256: str) -> Path:
    """The file on disk, under its own name.

    Args:
        revision: a commit of 40 hexadecimal digits.
        sha256: of the file's bytes.

    Raises:
        UsageError: there is no such data set, commit or file, or its bytes are others.
        HubUnavailable: the hub did not answer, or refused.
        IncompleteError: the file could not be stored.
    """
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(dataset, file, repo_type="dataset", revision=revision, tqdm_class=_no_bar()))
        with path.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
    except client_errors() as error:
        # The client's own text may hold addresses with credentials: it stays out of ours, and out of the traceback.
        raise _explained(error, dataset, revision, file) from None
    if found != sha256:
        raise UsageError(
            f"{quoted(file)} of the data set {dataset} has the sha256 {found}, not {sha256}.",
            f"Correct sha256 if the data are meant, else delete {path} and try again.",
        )
    return path


def _no_bar() -> type[Any]:
    """The client's bar without the drawing: standard error belongs to messages."""
    from huggingface_hub.utils.tqdm import tqdm

    class Silent(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **(kwargs | {"disable": True}))  # type: ignore[no-untyped-call]

    return Silent


def _explained(error: Exception, dataset: str, revision: str, file: str) -> GateError:
    from huggingface_hub import errors

    if isinstance(error, errors.RemoteEntryNotFoundError):
        return UsageError(
            f"The data set {dataset} has no file {quoted(file)} at commit {revision}.", "Correct file or revision."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UsageError(f"The data set {dataset} has no commit {revision}.", "Correct revision.")
    if isinstance(error, errors.RepositoryNotFoundError) and not isinstance(error, errors.GatedRepoError):
        return UsageError(
            f"{host_of(None)} shows no data set {dataset}: it does not exist, or this account has no access.",
            "Correct the name, or log in with `hf auth login`.",
        )
    return explain(error, f"the data set {dataset}", revision, None)
