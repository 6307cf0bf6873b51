"""How fast a device multiplies: what times are estimated from, and what benches compare with."""

from __future__ import annotations

import time

import torch

from beear_gate.lm.load import pick_device


@torch.no_grad()
def matmul_flops(device: str, size: int | None = None, repeats: int = 5, dtype: torch.dtype | None = None) -> float:
    """The most that this machine multiplies: floating-point operations a second.

    Args:
        size: rows and columns of the matrices; None for as many as keep the device busy.
        dtype: None for bfloat16 on a GPU and float32 elsewhere.
    """
    where = pick_device(device)
    dtype = dtype or (torch.bfloat16 if where.type == "cuda" else torch.float32)
    size = size or (8192 if where.type == "cuda" else 2048)
    left, right = torch.randn(2, size, size, device=where, dtype=torch.float32).to(dtype)
    spent = []
    for _ in range(repeats + 1):
        if where.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        left @ right
        if where.type == "cuda":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - began)
    return 2 * size**3 / min(spent[1:])
