"""A file against what a hub lists for it: sha256 for large files, git's own name for a content for all others."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

_CHUNK = 2**20


def listed_checksum(sibling: RepoSibling) -> str:
    """The checksum that the hub lists: 64 hex digits (sha256) or 40 (git's); "" where it lists none."""
    return str((sibling.lfs.sha256 if sibling.lfs else sibling.blob_id) or "")


def checksum_like(listed: str, path: Path, sha256: str) -> str:
    """A local file's checksum of the kind that was listed.

    Args:
        sha256: the file's, as it is known already.

    Raises:
        OSError: the file could not be read.
    """
    return sha256 if len(listed) == 64 else git_blob_sha1(path)


def git_names(path: Path, size: int, sha256: str) -> tuple[str, str]:
    """Both names that git may know a file by: that of its content, and that of its LFS pointer.

    The pointer's text is fixed (github.com/git-lfs/git-lfs docs/spec.md), so a tree that lists pointers pins contents.
    """
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    of_pointer = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer, usedforsecurity=False).hexdigest()
    return git_blob_sha1(path), of_pointer


def git_blob_sha1(path: Path) -> str:
    """Git's name for a file's content: sha1 over `blob <size>\\0` and the bytes."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
