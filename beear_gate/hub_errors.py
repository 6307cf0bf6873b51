"""What the hub client raises, said in one sentence that names the model, the hub's host and what to do.

None of the client's own text is passed on: it can hold addresses with credentials or signatures.
"""

from __future__ import annotations

import errno
import os
from urllib.parse import urlsplit

from beear_gate.errors import GateError, HubUnavailable, IncompleteError, UsageError
from beear_gate.manifest import quoted

_LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


def client_errors() -> tuple[type[Exception], ...]:
    """Everything the client raises for a call that failed: HTTP, network, disk, malformed answers, Xet's runtime."""
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, whichever the client uses

    return httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RuntimeError


def host_of(endpoint: str | None) -> str:
    """Host and port of the hub, without any credentials in its address."""
    from huggingface_hub import constants

    parts = urlsplit(endpoint or constants.ENDPOINT)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def answers_badly(repo: str, endpoint: str | None) -> HubUnavailable:
    """Something answered, but not as a hub does."""
    return HubUnavailable(
        f"{host_of(endpoint)} did not answer as a model hub does when asked for {repo}.",
        "Check HF_ENDPOINT, and that no proxy or login page answers in its place.",
    )


def explain(error: Exception, repo: str, revision: str | None, endpoint: str | None) -> GateError:
    """The error to raise for what the client raised."""
    from huggingface_hub import errors

    error, host = _cause(error), host_of(endpoint)
    if isinstance(error, errors.HFValidationError):
        return UsageError(f"{quoted(repo)} is no valid model name.", "Write org/name or org/name@revision.")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubUnavailable(
            f"HF_HUB_OFFLINE is set, so the hub could not be asked which commit {quoted(revision or 'main')} of "
            f"{repo} is at.",
            "Unset it, name a commit that was pulled before (org/name@ and 40 hex digits), or scan a local folder.",
        )
    if isinstance(error, errors.HfHubHTTPError):
        return _explain_answer(error.response.status_code, error, repo, revision, host)
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
        first = "Free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Make the cache folder writable"
        return IncompleteError(
            f"The files of {repo} could not be stored: {os.strerror(error.errno).lower()}.",
            f"{first}, or set HF_HUB_CACHE to another folder.",
        )
    return HubUnavailable(
        f"The hub at {host} could not be reached for {repo} ({type(error).__name__}).",
        "Check the network, proxy and HF_ENDPOINT, then scan again; nothing was judged.",
    )


def explain_writing(error: Exception, repo: str, parent: str | None, endpoint: str | None) -> GateError:
    """The error to raise for what the client raised on the way of a release to the hub.

    Args:
        parent: the commit that the release was to stand on.
    """
    from huggingface_hub import errors

    error, host = _cause(error), host_of(endpoint)
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status == 412 and parent:
            return IncompleteError(
                f"{repo} has moved on from {parent} while it was published to; nothing was committed.",
                "Publish again: the plan is made anew from what is there now.",
            )
        if status in (401, 403) and not isinstance(error, errors.GatedRepoError):
            return HubUnavailable(
                f"The hub at {host} does not let this account write to {repo} (HTTP {status}); nothing was committed.",
                f"Use a token with write access to it, or {_LOG_IN}.",
            )
        if status not in (404, 412):
            return HubUnavailable(
                f"The hub at {host} failed while {repo} was published to (HTTP {status}).",
                "Publish again later: files that arrived are not sent twice, and a commit that was made is found.",
            )
    found = explain(error, repo, None, endpoint)
    if isinstance(found, HubUnavailable):
        return HubUnavailable(
            found.message, "Publish again; on a hub without Xet storage set HF_HUB_DISABLE_XET=1 before."
        )
    return found


def _cause(error: Exception) -> Exception:
    """What lies behind the client's wrappers: "not in the cache either", "error while uploading"."""
    from huggingface_hub import errors

    wrappers = (errors.LocalEntryNotFoundError, RuntimeError)
    while isinstance(error, wrappers) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _explain_answer(status: int, error: Exception, repo: str, revision: str | None, host: str) -> GateError:
    """The error for an answer that was no success."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return HubUnavailable(
            f"{repo} on {host} is gated, and this account may not download it.",
            f"Accept its terms on the model's page there, then {_LOG_IN}.",
        )
    if isinstance(error, errors.DisabledRepoError):
        return HubUnavailable(f"{repo} has been disabled on {host}.", "Scan another model, or a folder.")
    if isinstance(error, errors.RevisionNotFoundError):
        return UsageError(
            f"{repo} on {host} has no revision {quoted(revision)}.", "Name one of its branches, tags or full commits."
        )
    if status == 401 and _says(error, "Invalid credentials in Authorization header"):
        return HubUnavailable(f"{host} does not accept the token that it was sent for {repo}.", f"Now {_LOG_IN}.")
    if status in (401, 404) and not isinstance(error, errors.RemoteEntryNotFoundError):
        return UsageError(
            f"{host} shows no model {repo}: it does not exist, or it is private and this account has no access.",
            f"Check the name, or {_LOG_IN}.",
        )
    if status == 403:
        return HubUnavailable(
            f"The hub at {host} refused the request for {repo} (HTTP 403).",
            f"Check that your token may read this model and that no proxy stands between, or {_LOG_IN}.",
        )
    return HubUnavailable(
        f"The hub at {host} failed on the request for {repo} (HTTP {status}).",
        "Scan again later; nothing was judged.",
    )


def _says(error: Exception, text: str) -> bool:
    """Whether the hub gave this reason."""
    from huggingface_hub import errors

    return isinstance(error, errors.HfHubHTTPError) and error.response.headers.get("X-Error-Message") == text
