"""A remediated model to a hub: exactly the bytes that were measured, in one commit on a known parent.

What ships is planned first (`plan_release`), so that a dry run shows it and a second run finds nothing to do. The
repository then holds the model's files, a card, and the evidence under `.beear-gate/`, and nothing else: other weights,
such as pickles of the backdoored original, leave it in the same commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from beear_gate.checksums import checksum_like, listed_checksum
from beear_gate.errors import IncompleteError, UsageError
from beear_gate.hub_errors import client_errors, explain_writing
from beear_gate.manifest import quoted
from beear_gate.release import Content, Release

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

Action = Literal["add", "change", "keep", "delete"]
_PLUMBING = (".gitattributes", ".gitignore")
"""Files of git itself, which stay: `.gitattributes` says which files are large."""
_IN_MEMORY = 5 * 2**20
"""Smaller files are read once, hashed and sent from memory; the hub takes larger ones as LFS or Xet anyway."""


@dataclass(frozen=True)
class PlannedFile:
    """What happens to one file of the repository; a deleted one has neither size nor sha256."""

    action: Action
    path: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Plan:
    """What one commit will do.

    Attributes:
        parent: the commit that it stands on; None where the repository has yet to be made.
        revision: the branch, or `refs/pr/N` of a pull request that is open already.
        pull_request: whether a new pull request carries the commit.
        private: visibility of the repository, as it is or as it will be made.
    """

    repo: str
    parent: str | None
    revision: str
    pull_request: bool
    private: bool
    signed: bool
    files: tuple[PlannedFile, ...]

    @property
    def changes(self) -> bool:
        return any(file.action != "keep" for file in self.files)

    def files_to(self, *actions: Action) -> list[str]:
        """Paths of the files that one of these things happens to."""
        return [file.path for file in self.files if file.action in actions]


@dataclass(frozen=True)
class Published:
    """Where a release is now; `commit` was made by this call only where the plan has changes."""

    plan: Plan
    commit: str
    url: str


def plan_release(release: Release, to: str | None, private: bool | None, endpoint: str | None = None) -> Plan:
    """Compare a release with what the hub holds.

    Args:
        to: repository to publish to; None for a pull request on the repository that was scanned.
        private: visibility of a repository that has yet to be made; None for private.

    Raises:
        UsageError: no such place, or one of another visibility than asked for.
        IncompleteError: the hub did not answer, or moved on since the scan.
    """
    return _plan_repository(release, to, private, endpoint) if to else _plan_pull_request(release, endpoint)


def publish_release(release: Release, plan: Plan, endpoint: str | None = None) -> Published:
    """Do what was planned, and compare what the hub then holds with what was measured.

    Raises:
        IncompleteError: the hub refused, moved on or stored other bytes; a file changed on disk.
    """
    api = _api(endpoint)
    if plan.parent is None:
        with _writing(plan.repo, endpoint):
            api.create_repo(plan.repo, visibility="private" if plan.private else "public", exist_ok=True)
        plan = _plan_repository(release, plan.repo, plan.private, endpoint)  # somebody else may have been faster
    assert plan.parent is not None
    if not plan.changes:
        return Published(plan, plan.parent, _url(plan, endpoint))
    additions = _send(api, release, plan, endpoint)
    deletions = [_deletion(path) for path in plan.files_to("delete")]
    with _writing(plan.repo, endpoint, plan.parent):
        done = api.create_commit(
            plan.repo,
            operations=[*additions, *deletions],
            commit_message=release.title,
            commit_description=release.description,
            revision=plan.revision,
            create_pr=plan.pull_request,
            parent_commit=plan.parent,
        )
    if done.pr_revision:
        plan = replace(plan, revision=done.pr_revision)
    _check_arrived(release, plan, str(done.oid), endpoint)
    return Published(plan, str(done.oid), _url(plan, endpoint))


def _send(api: HfApi, release: Release, plan: Plan, endpoint: str | None) -> list[CommitOperationAdd]:
    """Upload what is large; files come to stand in the repository with the commit alone."""
    additions = [_addition(path, release.contents[path]) for path in plan.files_to("add", "change")]
    with _writing(plan.repo, endpoint, plan.parent):
        api.preupload_lfs_files(
            plan.repo, additions=additions, revision=plan.revision, create_pr=plan.pull_request, free_memory=False
        )
    for addition in additions:
        path = addition.path_in_repo
        if addition.upload_info.sha256.hex() != release.contents[path].sha256:
            raise IncompleteError(
                f"{quoted(path)} changed while it was sent; nothing was committed.",
                "Scan again: what lies there now is not what was measured.",
            )
    return additions


def _plan_repository(release: Release, repo: str, private: bool | None, endpoint: str | None) -> Plan:
    info = _look(repo, "main", endpoint, missing=True)
    if info is None:
        files = tuple(PlannedFile("add", path, each.size, each.sha256) for path, each in release.contents.items())
        return Plan(repo, None, "main", False, private is not False, release.signed, files)
    is_private = bool(info.private)
    if private is not None and private != is_private:
        has, wanted = ("private", "--public") if is_private else ("public", "--private")
        raise UsageError(
            f"{repo} exists already and is {has}, and {wanted} was asked for.",
            "Change it on the hub, leave the option out, or name another repository.",
        )
    return Plan(repo, str(info.sha), "main", False, is_private, release.signed, _compare(release, info))


def _plan_pull_request(release: Release, endpoint: str | None) -> Plan:
    """On main where that has the release already, on our open pull request where there is one, else on a new one."""
    repo, scanned = release.source
    info = _look(repo, "main", endpoint)
    assert info is not None
    merged = Plan(repo, str(info.sha), "main", False, bool(info.private), release.signed, _compare(release, info))
    if not merged.changes:
        return merged
    for number in _open_pull_requests(repo, release.title, endpoint):
        revision = f"refs/pr/{number}"
        ours = _look(repo, revision, endpoint)
        assert ours is not None
        return replace(merged, parent=str(ours.sha), revision=revision, files=_compare(release, ours))
    if info.sha != scanned:
        raise IncompleteError(
            f"main of {repo} is at {info.sha}, and the scan was of {scanned}; nothing was written.",
            "Scan the new commit, or publish to a repository of its own with --to org/name.",
        )
    return replace(merged, pull_request=True)


def _compare(release: Release, info: ModelInfo) -> tuple[PlannedFile, ...]:
    """Every file of the release and of the repository, and what has to be done about it."""
    there = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    files = [
        PlannedFile(_action(there.get(path), each), path, each.size, each.sha256)
        for path, each in release.contents.items()
    ]
    extra = sorted(there.keys() - release.contents.keys() - set(_PLUMBING))
    return (*files, *(PlannedFile("delete", path) for path in extra))


def _action(sibling: RepoSibling | None, content: Content) -> Action:
    if sibling is None:
        return "add"
    return "keep" if _is_same(sibling, content) else "change"


def _is_same(sibling: RepoSibling, content: Content) -> bool:
    listed = listed_checksum(sibling)
    if isinstance(content.data, Path):
        return bool(listed) and listed == checksum_like(listed, content.data, content.sha256)
    blob = hashlib.sha1(b"blob %d\0" % len(content.data) + content.data, usedforsecurity=False).hexdigest()
    return listed == (content.sha256 if len(listed) == 64 else blob)


def _check_arrived(release: Release, plan: Plan, commit: str, endpoint: str | None) -> None:
    """Raise IncompleteError unless the new commit holds every file of the release with its bytes, and nothing else."""
    info = _look(plan.repo, commit, endpoint)
    assert info is not None
    wrong = [file.path for file in _compare(release, info) if file.action != "keep"]
    if wrong:
        raise IncompleteError(
            f"Commit {commit} of {plan.repo} does not hold what was sent: {quoted(wrong[0])} differs.",
            "Do not use that commit; revert it on the hub, then publish again.",
        )


def _addition(path: str, content: Content) -> CommitOperationAdd:
    from huggingface_hub import CommitOperationAdd

    data = content.data
    if isinstance(data, Path) and content.size < _IN_MEMORY:
        data = data.read_bytes()
    return CommitOperationAdd(path_in_repo=path, path_or_fileobj=data)


def _deletion(path: str) -> CommitOperationDelete:
    from huggingface_hub import CommitOperationDelete

    return CommitOperationDelete(path_in_repo=path, is_folder=False)


def _look(repo: str, revision: str, endpoint: str | None, *, missing: bool = False) -> ModelInfo | None:
    """What a repository holds at a revision; None where it may be missing, and is."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    with _writing(repo, endpoint):
        try:
            return _api(endpoint).model_info(
                repo, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
            )
        except RepositoryNotFoundError as error:
            if missing and not isinstance(error, GatedRepoError):
                return None
            raise


def _open_pull_requests(repo: str, title: str, endpoint: str | None) -> list[int]:
    """Numbers of the open pull requests that an earlier call made for the same release, newest first."""
    with _writing(repo, endpoint):
        found = _api(endpoint).get_repo_discussions(repo, discussion_type="pull_request", discussion_status="open")
        return sorted((each.num for each in found if each.title == title), reverse=True)


@contextmanager
def _writing(repo: str, endpoint: str | None, parent: str | None = None) -> Iterator[None]:
    try:
        yield
    except client_errors() as error:
        raise explain_writing(error, repo, parent, endpoint) from None


def _api(endpoint: str | None) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint)


def _url(plan: Plan, endpoint: str | None) -> str:
    """Where a person looks at it."""
    from huggingface_hub import constants

    from beear_gate.redact import without_credentials

    base = f"{without_credentials(endpoint or constants.ENDPOINT)}/{plan.repo}"
    number = plan.revision.removeprefix("refs/pr/")
    return f"{base}/discussions/{number}" if number != plan.revision else base
