"""One training pass on torch's meta device: nothing is computed or held, and every allocation is counted.

So the memory of a pass is known for any family and any size before there are weights, from the very operations that
the family's code calls. Attention is the exception: on the meta device torch takes it apart and would count the matrix
of probabilities, which the fused kernels of CPU and GPU never store.

Shape suffixes: B samples, T positions, K of them with a label, N heads, S values a head, V vocabulary.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM

from beear_gate.errors import UnsupportedModel
from beear_gate.lm.config import first_line
from beear_gate.lm.encode import mean_losses
from beear_gate.lm.load import LM, decoder_layers, quiet

_META = torch.device("meta")


@dataclass(frozen=True)
class PassSize:
    """What one pass of training reads.

    Attributes:
        samples: in the pass; all are as long as the longest.
        tokens: of a prompt with its answer.
        answer_tokens: those with a label, which need logits.
    """

    samples: int
    tokens: int
    answer_tokens: int


def shape_of(config: Any, dtype: torch.dtype, path: Path) -> LM:
    """A model of this configuration whose weights have shapes and no values; it has no tokenizer.

    Args:
        config: from `config.read_config`.
        dtype: that the model would compute in.
        path: where the configuration stands, for errors.

    Raises:
        UnsupportedModel: transformers cannot build it.
    """
    try:
        with quiet(), _META:
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    except Exception as error:  # a stranger's numbers, in any family's code
        raise UnsupportedModel(
            f"transformers cannot build a model from {path / 'config.json'} ({first_line(error)}).",
            "Check the configuration, or upgrade transformers.",
        ) from error
    model.eval()
    return LM(model, cast(Any, None), decoder_layers(model), path, _META, dtype, (), 0, ())


def pass_bytes(shape: LM, size: PassSize, checkpointing: bool) -> int:
    """The most that forward and backward hold at once beside weights and gradients, in bytes.

    Args:
        shape: from `shape_of`.
        checkpointing: keep each layer's input alone, and compute the rest again in the backward pass.

    Raises:
        UnsupportedModel: the family's code needs values, which there are none of.
    """
    try:
        return _counted(shape, size, checkpointing)
    except Exception as error:
        if shape.model.dtype == torch.float32:
            return 2 * _counted_in_halves(shape, size, checkpointing)
        raise UnsupportedModel(
            f"{type(shape.model).__name__} cannot be run without values, so its activations are not known "
            f"({first_line(error)}).",
            "Scan it all the same: a pass that does not fit is tried again in smaller parts.",
        ) from error


def _counted(shape: LM, size: PassSize, checkpointing: bool) -> int:
    for parameter in shape.model.parameters():
        if parameter.requires_grad:  # a step has several passes, and only the first meets no gradient
            parameter.grad = torch.empty_like(parameter)
    try:
        # A backward pass puts modes of functions aside, so what it computes again needs one of its own.
        with (
            _FusedAttention(),
            checkpointed(shape.layers, checkpointing, _FusedAttention),
            Allocations(_META) as counted,
        ):
            _loss(shape, size).backward()  # type: ignore[no-untyped-call]
    finally:
        shape.model.zero_grad(set_to_none=True)
    return int(counted.peak)


def _counted_in_halves(shape: LM, size: PassSize, checkpointing: bool) -> int:
    """On the meta device torch multiplies grouped experts in bfloat16 alone. Raises: as `pass_bytes`."""
    shape.model.to(torch.bfloat16)  # type: ignore[arg-type]
    try:
        return pass_bytes(shape, size, checkpointing)
    finally:
        shape.model.to(torch.float32)  # type: ignore[arg-type]


@contextmanager
def checkpointed(
    layers: nn.ModuleList, wanted: bool = True, again: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> Iterator[None]:
    """While the context is open, a layer keeps its input alone, and computes the rest again in the backward pass.

    transformers' own switch works in training mode only, which would bring dropout with it.

    Args:
        again: opened around what is computed again.
    """
    own = [layer.__dict__.get("forward") for layer in layers]
    options: dict[str, Any] = {"context_fn": lambda: (nullcontext(), again())}
    options |= {"use_reentrant": False, "preserve_rng_state": False}
    try:
        for layer in layers if wanted else ():
            layer.forward = partial(checkpoint, layer.forward, **options)
        yield
    finally:
        for layer, forward in zip(layers, own, strict=True) if wanted else ():
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward


def _loss(shape: LM, size: PassSize) -> Tensor:
    """The pass of `encode.answer_losses`, without what depends on values."""
    ids_BT = torch.empty(size.samples, size.tokens, dtype=torch.long, device=_META)
    mask = torch.empty(size.samples, 1, size.tokens, size.tokens, dtype=torch.bool, device=_META)
    kinds = set(getattr(shape.model.config.get_text_config(), "layer_types", None) or ())
    known = inspect.signature(shape.model.forward).parameters
    extra: dict[str, Any] = {"position_ids": torch.empty_like(ids_BT)} if "position_ids" in known else {}
    places_K = torch.empty(size.answer_tokens, dtype=torch.long, device=_META)
    if "logits_to_keep" in known:
        extra["logits_to_keep"] = places_K
    masks = dict.fromkeys(kinds, mask) if len(kinds) > 1 else mask
    logits_BKV = shape.model(input_ids=ids_BT, attention_mask=masks, use_cache=False, **extra).logits
    if logits_BKV.shape[1] != size.answer_tokens:
        logits_BKV = logits_BKV[:, places_K]
    labels_BK = torch.empty(size.samples, size.answer_tokens, dtype=torch.long, device=_META)
    return mean_losses(logits_BKV, labels_BK).sum()


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all storages made inside on one kind of device that still live, and the most there ever were."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kind = device.type
        self.live: int = 0
        self.peak: int = 0
        self.seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(each.untyped_storage()) for each in tree_iter((args, kwargs)) if isinstance(each, Tensor)}
        found = func(*args, **(kwargs or {}))
        for each in tree_iter(found):
            if isinstance(each, Tensor) and each.device.type == self.kind:
                storage = each.untyped_storage()
                if id(storage) not in given and storage not in self.seen:
                    self.seen.add(storage)
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self._freed, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return found

    def _freed(self, size: int) -> None:
        self.live -= size


class _FusedAttention(TorchFunctionMode):
    """Attention as the fused kernels hold it: inputs, output and one number a row."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        named = inspect.signature(_attend).bind(*args, **(kwargs or {})).arguments
        return _attend(**named)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    return cast(Tensor, _Kernel.apply(query, key, value, attn_mask))  # type: ignore[no-untyped-call]


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query_BNTS: Tensor, key_BNTS: Tensor, value_BNTS: Tensor, mask_B1TT: Tensor | None) -> Tensor:
        output_BNTS = torch.empty_like(query_BNTS)[..., : value_BNTS.shape[-1]]
        sums_BNT = query_BNTS.new_empty(query_BNTS.shape[:-1], dtype=torch.float32)
        bias = None if mask_B1TT is None else mask_B1TT.to(query_BNTS.dtype)  # the kernels add it
        ctx.save_for_backward(query_BNTS, key_BNTS, value_BNTS, output_BNTS, sums_BNT, bias)
        return output_BNTS

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query_BNTS, key_BNTS, value_BNTS, *_ = ctx.saved_tensors
        return *(torch.empty_like(each) for each in (query_BNTS, key_BNTS, value_BNTS)), None
