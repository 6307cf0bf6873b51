"""How fast `inspect` reads a safetensors repository from a warm page cache, and how much memory it takes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy

_SIDE = 2048
_SHARDS = 4


class Speed(NamedTuple):
    """One run of `beear-gate inspect` in a process of its own, by the clock and by CPU time; bytes as 10^6."""

    megabytes: float
    seconds: float
    cpu_seconds: float
    peak_megabytes: float


def inspect_speed(megabytes: int = 2000, runs: int = 3) -> list[Speed]:
    """Write a repository of bfloat16 shards, read it once, and inspect it `runs` times."""
    with tempfile.TemporaryDirectory() as folder:
        size = _write(Path(folder), megabytes * 10**6)
        for path in Path(folder).iterdir():
            with path.open("rb") as file:
                while file.read(2**22):
                    pass
        return [_run(folder, size) for _ in range(runs)]


def _write(folder: Path, size: int) -> float:
    """Shards, their index and a configuration; gives all bytes in 10^6."""
    bits = numpy.random.default_rng(0).integers(0, 2**16, (_SIDE, _SIDE), dtype=numpy.uint16)
    data = (bits & 0xBFFF).tobytes()  # without the highest bit of the exponent all are finite
    each = max(1, size // len(data) // _SHARDS)
    weight_map: dict[str, str] = {}
    for shard in range(1, _SHARDS + 1):
        name = f"model-{shard:05}-of-{_SHARDS:05}.safetensors"
        entries = {
            f"layers.{shard}.{number}.weight": {
                "dtype": "BF16",
                "shape": [_SIDE, _SIDE],
                "data_offsets": [number * len(data), (number + 1) * len(data)],
            }
            for number in range(each)
        }
        weight_map |= dict.fromkeys(entries, name)
        header = json.dumps(entries).encode()
        with (folder / name).open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for _ in range(each):
                file.write(data)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


# A process begins with the peak of the one that it was forked from, so a small one stands in between.
_BETWEEN = """
import json, resource, subprocess, sys, time
start = time.monotonic()
command = [sys.executable, "-m", "beear_gate", "inspect", sys.argv[1]]
code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6]))
"""


def _run(folder: str, size: float) -> Speed:
    done = subprocess.run([sys.executable, "-c", _BETWEEN, folder], capture_output=True, text=True, check=True)
    code, seconds, cpu_seconds, peak = json.loads(done.stdout)
    if code not in (0, 1):
        raise RuntimeError(f"inspect ended with {code}")
    return Speed(size, seconds, cpu_seconds, peak)
