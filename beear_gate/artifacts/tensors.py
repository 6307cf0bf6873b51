"""Checks of what tensors hold: NaN and infinities, matrices of zeros, files hidden in them. All of it is streamed.

Floats are compared as integers: without its sign bit, a float is infinite or NaN from its infinity's pattern on, and
zero where all its bits are. So one pass gives both, several GB a second.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from beear_gate.artifacts.contents import Contents
from beear_gate.artifacts.rules import finding
from beear_gate.artifacts.safetensors_header import Tensor
from beear_gate.artifacts.weights import several
from beear_gate.manifest import quoted
from beear_gate.records import Finding, Severity

_CHUNK = 2**19  # bytes: stays in a core's cache between the two operations
_SMALL = 64  # elements of a matrix below which zeros say nothing
_WORKERS = 2

# dtype -> (unsigned type, mask without sign, pattern of infinity; above it NaN)
_FLOATS: dict[str, tuple[str, int, int]] = {
    "F64": ("<u8", 2**63 - 1, 0x7FF0_0000_0000_0000), "F32": ("<u4", 2**31 - 1, 0x7F80_0000),
    "C64": ("<u4", 2**31 - 1, 0x7F80_0000), "F16": ("<u2", 2**15 - 1, 0x7C00), "BF16": ("<u2", 2**15 - 1, 0x7F80),
    "F8_E5M2": ("u1", 0x7F, 0x7C), "F8_E4M3": ("u1", 0x7F, 0x7F),
}  # fmt: skip
# Longer than what chance would bring about in some tensor of some model.
_PAYLOADS = (
    b"\x7fELF\x01", b"\x7fELF\x02", b"PK\x03\x04", b"7z\xbc\xaf\x27\x1c", b"\xfd7zXZ\x00", b"Rar!\x1a\x07", b"#!/bin/",
    b"#!/usr/bin/", b"%PDF-", b"\x89HDF\r\n", b"GGUF\x03\x00", b"import os", b"<script", b"<?php",
)  # fmt: skip


class _Seen(NamedTuple):
    """One tensor: its first byte that is not finite, whether any is NaN, whether all are zero, what it begins like."""

    nonfinite: int | None
    nan: bool
    zero: bool
    payload: bytes


class _Job(NamedTuple):
    file: str
    name: str
    tensor: Tensor
    start: int


def check_tensors(contents: Contents) -> Iterator[Finding]:
    """Every tensor of every safetensors file is read once, in pieces."""
    jobs = [
        _Job(file, name, tensor, contents.starts[file] + tensor.begin)
        for file, tensors in contents.headers.items()
        for name, tensor in tensors.items()
        if tensor.end > tensor.begin
    ]
    jobs.sort(key=lambda job: (job.file, job.start))
    halves = _shares(jobs)
    with ThreadPoolExecutor(_WORKERS) as pool:
        results = [row for rows in pool.map(lambda share: _look(contents, share), halves) for row in rows]
    yield from _findings(results)


def _shares(jobs: list[_Job]) -> list[list[_Job]]:
    """As many runs of jobs as workers, of about the same bytes."""
    total, done = sum(job.tensor.end - job.tensor.begin for job in jobs), 0
    shares: list[list[_Job]] = [[] for _ in range(_WORKERS)]
    for job in jobs:
        shares[min(_WORKERS - 1, done * _WORKERS // max(total, 1))].append(job)
        done += job.tensor.end - job.tensor.begin
    return shares


_local = threading.local()


def _buffers() -> tuple[Any, Any]:
    """Two buffers of a worker: what was read, and what is computed of it."""
    import numpy  # not above: every worker of `limited` imports this package, and numpy takes its time

    if not hasattr(_local, "pair"):
        _local.pair = (numpy.empty(_CHUNK, numpy.uint8), numpy.empty(_CHUNK, numpy.uint8))
    pair: tuple[Any, Any] = _local.pair
    return pair


def _look(contents: Contents, jobs: list[_Job]) -> list[tuple[_Job, _Seen]]:
    results: list[tuple[_Job, _Seen]] = []
    opened, handle = "", -1
    try:
        for job in jobs:
            if job.file != opened:
                if handle >= 0:
                    os.close(handle)
                opened, handle = job.file, os.open(contents.path(job.file), os.O_RDONLY)
            results.append((job, _scan(handle, job)))
    finally:
        if handle >= 0:
            os.close(handle)
    return results


def _scan(handle: int, job: _Job) -> _Seen:
    import numpy

    raw, spare = _buffers()
    form, mask, infinity = _FLOATS.get(job.tensor.dtype, ("u1", 0xFF, 0x100))
    nonfinite, nan, zero, payload = None, False, True, b""
    place, end = job.start, job.start + job.tensor.end - job.tensor.begin
    while place < end:
        count = os.preadv(handle, [memoryview(raw)[: min(_CHUNK, end - place)]], place)
        if count <= 0:
            raise EOFError("the file has become shorter")
        count -= count % numpy.dtype(form).itemsize or 0
        if place == job.start:
            payload = _payload(raw[:64].tobytes()[:count], end - place)
            if job.tensor.dtype not in _FLOATS:
                return _Seen(None, False, False, payload)
        values, bare = raw[:count].view(form), spare[:count].view(form)
        numpy.bitwise_and(values, values.dtype.type(mask), out=bare)
        largest = int(bare.max())
        zero = zero and largest == 0
        if largest >= infinity:
            nan = nan or largest > infinity or job.tensor.dtype == "F8_E4M3"
            if nonfinite is None:
                nonfinite = place + int(numpy.argmax(bare >= infinity)) * bare.itemsize
        place += count
    return _Seen(nonfinite, nan, zero, payload)


def _payload(head: bytes, size: int) -> bytes:
    """What a tensor's first bytes are of a file of another format; empty for none."""
    for magic in _PAYLOADS:
        if head.startswith(magic):
            return magic
    if head[:1] == b"\x80" and head[1:3] in (b"\x04\x95", b"\x05\x95") and int.from_bytes(head[3:11], "little") <= size:
        return head[:3]
    at = int.from_bytes(head[60:64], "little")
    return b"MZ" if head.startswith(b"MZ\x90\x00") and 64 <= at < 4096 else b""


def _findings(results: list[tuple[_Job, _Seen]]) -> Iterator[Finding]:
    nonfinite: dict[str, list[tuple[_Job, _Seen]]] = {}
    zeros: dict[str, list[str]] = {}
    matrices = 0
    for job, seen in results:
        if seen.payload:
            message = (
                f"Tensor {quoted(job.name)} of {quoted(job.file)} begins like another file: {quoted(seen.payload)}."
            )
            yield finding(
                "weights-payload", job.file, message, "Find out who put it there, and drop the model.", job.start
            )
        if seen.nonfinite is not None and (seen.nan or "mask" not in job.name):  # -inf is what masks are made of
            nonfinite.setdefault(job.file, []).append((job, seen))
        if _is_matrix(job.tensor):
            matrices += 1
            if seen.zero:
                zeros.setdefault(job.file, []).append(job.name)
    for file, bad in nonfinite.items():
        what = "NaN" if any(seen.nan for _, seen in bad) else "infinities"
        message = f"{quoted(file)} holds {what} in {several([job.name for job, _ in bad])}."
        remedy = "Take an earlier checkpoint: a model with such weights answers at random, or hides what it was."
        yield finding("weights-nonfinite", file, message, remedy, bad[0][1].nonfinite)
    most = sum(map(len, zeros.values())) * 2 > matrices
    for file, names in zeros.items():
        message = f"{quoted(file)} holds nothing but zeros in {several(names)}."
        remedy = (
            "Check that these layers are meant to do nothing; an unfinished download or conversion looks like this."
        )
        yield finding("weights-zero", file, message, remedy, severity=Severity.BLOCK if most else None)


def _is_matrix(tensor: Tensor) -> bool:
    count = 1
    for side in tensor.shape:
        count *= side
    return len(tensor.shape) >= 2 and count >= _SMALL and tensor.dtype in _FLOATS
