"""Pretended GPUs: tensors that say they are on `pretended:N`, and compute on the CPU. For a process of its own.

They hold real numbers, so what a model says on them can be compared; and as on real ones, an operation whose tensors
are on different devices raises. What no test can learn here is anything about kernels, memory and time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

CPU = torch.device("cpu")
KIND = "pretended"
aten = torch.ops.aten
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)


class Pretended(Tensor):
    """A tensor of the CPU under the name of another device."""

    held: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor, device: torch.device | None = None, requires_grad: bool = False) -> Pretended:
        if isinstance(inner, Pretended):  # accelerate makes parameters anew by their class
            return torch.nn.Parameter(inner, requires_grad)  # type: ignore[return-value]
        made: Pretended = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=device,
        )  # fmt: skip
        made.held = inner
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"{self.held} on {self.device}"

    def data_ptr(self) -> int:
        return self.held.data_ptr()  # by which accelerate knows tied weights

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return run(func, args, kwargs or {})


class _Everything(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operations without any such tensor too: some make one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation on the CPU, with what comes of it where a GPU would leave it.

    Raises:
        RuntimeError: its tensors are on different devices.
    """
    if func is aten._fused_sdp_choice.default:
        return 0  # attention written out: no kernel of a CPU goes by the name of another device
    wanted = kwargs.get("device")
    place = torch.device(wanted) if wanted else _place(func, args, kwargs)
    if wanted and place.type == KIND:
        kwargs = {**kwargs, "device": CPU}
    found = func(*_changed(args, _inner), **{key: _changed(each, _inner) for key, each in kwargs.items()})
    if func._schema.is_mutable and isinstance(args[0], Tensor):
        return args[0]
    if place.type != KIND:
        return found
    place = torch.device(KIND, place.index or 0)
    return _changed(found, lambda each: Pretended(each, place))


def _inner(tensor: Tensor) -> Tensor:
    return tensor.held if isinstance(tensor, Pretended) else tensor


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Every tensor of an argument changed; torch's own tree_map takes three times as long as all the rest."""
    if isinstance(value, Tensor):
        return change(value)
    return type(value)(_changed(each, change) for each in value) if type(value) in (tuple, list) else value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _tensors(each)


def _place(func: Any, args: Any, kwargs: dict[str, Any]) -> torch.device:
    """Where the tensors of an operation are. Single numbers of the CPU, and its indices, go with any device."""
    if func in (aten.copy_.default, aten._to_copy.default):
        return torch.device(args[0].device)
    tensors = [*_tensors(args), *_tensors(tuple(kwargs.values()))]
    there = {each.device for each in tensors if each.device.type != "cpu"}
    bound = _tensors((args[0], args[2:])) if func in INDEXED else (each for each in tensors if each.dim())
    there |= {CPU for each in bound if each.device.type == "cpu"}
    if len(there) > 1:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {there} in {func}")
    return there.pop() if there else CPU


@contextmanager
def pretended_gpus() -> Iterator[None]:
    """They are there for the rest of the process, and compute while the context is open.

    Autograd knows one such device; the CPU by the name of cpu:0 makes a second.
    """
    _setup_privateuseone_for_python_backend(KIND)
    torch.__future__.set_swap_module_params_on_conversion(True)  # Module.to replaces parameters, and would untie them
    with (
        # cpu:0 and cpu are the same place, which accelerate does not know.
        mock.patch("accelerate.utils.modeling.check_device_same", lambda one, two: one.type == two.type),
        mock.patch.dict("os.environ", {"HF_DEACTIVATE_ASYNC_LOAD": "1"}),  # threads know nothing of the mode
        _Everything(),  # type: ignore[no-untyped-call]
    ):
        # Else torch.tensor(..., device=...) copies to the device below the level of dispatch.
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            yield
        finally:
            torch._C._set_only_lift_cpu_tensors(False)
