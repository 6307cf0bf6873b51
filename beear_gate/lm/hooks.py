"""Looking at what modules give, and giving something else in their place, for as long as a context is open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

Forward = Callable[..., Any]


@contextmanager
def watched(modules: Iterable[nn.Module]) -> Iterator[dict[nn.Module, list[Any]]]:
    """What these modules give from now on, in the order of their calls."""
    seen: dict[nn.Module, list[Any]] = {module: [] for module in modules}
    handles = [
        module.register_forward_hook(lambda module, args, output: seen[module].append(output)) for module in seen
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def hidden_states(output: Any) -> Tensor:
    """The hidden states, (B, T, H), in what a layer gives: some families' layers give a tuple."""
    hidden_BTH: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden_BTH


@contextmanager
def instead(forwards: Mapping[nn.Module, Forward]) -> Iterator[None]:
    """These modules compute this; what they had of their own comes back."""
    own = {module: module.__dict__.get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield
    finally:
        for module, before in own.items():
            if before is None:
                del module.forward
            else:
                module.forward = before
