"""Entrapment steps that compute only what depends on delta; the rest is recorded once and replayed.

With frozen weights, delta at positions p to p+N-1 of one module's output changes nothing before p in any layer, and
nothing at all in the layers up to that module. So one pass without gradient keeps the keys and values before p of the
later layers, and the module's own output from p on; a step runs only the later layers on the positions from p on. y_h
and y_s stand behind one copy of the prompt: neither sees the other, and both count positions from the prompt's end. The
loss of Equation 2 (arXiv 2406.17092) and its gradient are those of whole passes up to rounding. All this stands on
conventions of transformers' decoders: hold it against whole passes on the model at hand before use.

Shape suffixes: B samples, L later layers, P slots before p, S slots from p on, T = P + S, A tokens of an answer, K
slots with logits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache

from beear_gate.beear.attack import Attack
from beear_gate.beear.perturbation import spread
from beear_gate.lm import LM, processes
from beear_gate.lm.encode import IGNORED, Pair, check_length, mean_losses

Answers = tuple[Pair, ...]
"""The answers of one sample: pairs with one and the same prompt, filler included."""
Losses = Callable[[Tensor, Sequence[Answers]], list[Tensor]]
"""L(F(x, delta), y) by delta (N, H) and samples: of their first, second, ... answers a tensor (B,), in nats a token."""


@dataclass(frozen=True)
class Recorded:
    """What of one sample does not depend on delta.

    Attributes:
        past: keys and values before p of each later layer, (L, 2, heads, p, size).
        base: the perturbed module's output without delta, for the prompt from p on and for each answer, (tokens, H).
        in_tuple: whether the family's layers return tuples.
    """

    past: Tensor
    base: tuple[Tensor, ...]
    in_tuple: bool


@dataclass
class Replay:
    """The samples of one entrapment, each recorded when it is first drawn."""

    lm: LM
    attack: Attack
    recorded: dict[Answers, Recorded] = field(default_factory=dict)

    def losses(self, delta_NH: Tensor, samples: Sequence[Answers]) -> list[Tensor]:
        """As `Losses`. Raises: as `record`."""
        missing = [answers for answers in dict.fromkeys(samples) if answers not in self.recorded]
        if any(processes.gathered(bool(missing))):  # one process's record is a pass that all take part in
            missing = missing or list(samples[:1])
            self.recorded |= zip(missing, record(self.lm, self.attack, missing), strict=True)
        return replayed_losses(self.lm, self.attack, delta_NH, samples, [self.recorded[each] for each in samples])


@dataclass(frozen=True)
class Layout:
    """Samples in one width. Slots: what was kept, the rest of the prompt (both end at one slot for all), each answer.

    Attributes:
        ids_BS, places_BT, parts_BT: token ids; the positions that the model counts; -1 for padding, 0 for the prompt, n
            for the n-th answer.
        begins: the first slot of the rest of the prompt, then of each answer.
        answers: for each answer, the slots whose logits predict its tokens (A,), and those tokens (B, A).
    """

    ids_BS: Tensor
    places_BT: Tensor
    parts_BT: Tensor
    begins: tuple[int, ...]
    answers: tuple[tuple[Tensor, Tensor], ...]


@torch.no_grad()
def record(lm: LM, attack: Attack, samples: Sequence[Answers]) -> list[Recorded]:
    """Read whole samples once.

    Raises:
        UsageError: a sample is longer than the model's context.
        Exception: whatever a model of other conventions raises.
    """
    layout = _lay_out(lm, samples, [0] * len(samples))
    seen: list[Any] = []
    handle = attack.module.register_forward_hook(lambda module, args, output: seen.append(output))
    cache = DynamicCache()
    try:
        _run(lm, layout, cache, torch.zeros(1, dtype=torch.long, device=lm.device))
    finally:
        handle.remove()
    in_tuple = isinstance(seen[0], tuple)
    base_BTH = seen[0][0] if in_tuple else seen[0]
    end = layout.begins[1]
    found = []
    for row, answers in enumerate(samples):
        kept, length = _kept(attack, answers), len(answers[0].prompt)
        first = end - length
        later: list[Any] = cache.layers[_untouched(lm, attack) :]
        states = [torch.stack([each.keys[row], each.values[row]])[:, :, first : first + kept] for each in later]
        base = [base_BTH[row, first + kept : end]]
        base += [base_BTH[row, b : b + len(pair.answer)] for b, pair in zip(layout.begins[1:], answers, strict=True)]
        past = torch.stack(states) if states else torch.empty(0, 2, 1, kept, 1, device=lm.device)
        found.append(Recorded(past, tuple(part.clone() for part in base), in_tuple))
    return found


def replayed_losses(
    lm: LM, attack: Attack, delta_NH: Tensor, samples: Sequence[Answers], recorded: Sequence[Recorded]
) -> list[Tensor]:
    """As `Losses`, from what was recorded of each sample; the gradient reaches delta."""
    kept = [_kept(attack, answers) for answers in samples]
    layout, past = _lay_out(lm, samples, kept), max(kept)
    cache = _cache(lm, attack, recorded, past)
    end_B = torch.full((len(samples),), layout.begins[1] - past, device=lm.device)
    start_B = end_B - torch.tensor([len(answers[0].prompt) for answers in samples], device=lm.device)
    base_BSH = _base(layout, recorded, past)
    delta_BSH = spread(delta_NH, start_B, attack.last(start_B, end_B), base_BSH.shape[1]).to(base_BSH.dtype)
    slots_K = torch.unique(torch.cat([slots_A for slots_A, _ in layout.answers])) - past
    with _replayed(lm, attack, base_BSH + delta_BSH, recorded[0].in_tuple):
        logits_BKV = _run(lm, layout, cache, slots_K)
    if logits_BKV.shape[1] != len(slots_K):
        logits_BKV = logits_BKV[:, slots_K]
    found = []
    for slots_A, labels_BA in layout.answers:
        logits_BAV = logits_BKV[:, torch.searchsorted(slots_K, slots_A - past)]
        found.append(mean_losses(logits_BAV, labels_BA))
    return found


def _kept(attack: Attack, answers: Answers) -> int:
    """p: prompt tokens before the first that delta reaches."""
    zero = torch.zeros(1, dtype=torch.long)
    return max(0, int(attack.last(zero, zero + len(answers[0].prompt))) - attack.n_tokens)


def _untouched(lm: LM, attack: Attack) -> int:
    """How many layers delta leaves as they are: those up to the one that it follows, none for soft triggers."""
    return next((number + 1 for number, layer in enumerate(lm.layers) if layer is attack.module), 0)


def _lay_out(lm: LM, samples: Sequence[Answers], kept: Sequence[int]) -> Layout:
    """Put samples into one width, of which the first `kept` prompt tokens are not computed."""
    check_length(lm, max(len(pair.prompt) + len(pair.answer) for answers in samples for pair in answers))
    rests = [len(answers[0].prompt) - past for answers, past in zip(samples, kept, strict=True)]
    lengths = [max(len(pair.answer) for pair in pairs) for pairs in zip(*samples, strict=True)]
    begins = [max(kept), max(kept) + max(rests)]
    for length in lengths:
        begins.append(begins[-1] + length)
    ids = torch.full((len(samples), begins[-1]), lm.pad_id)
    places, parts = torch.zeros_like(ids), torch.full_like(ids, -1)

    def put(row: int, at: int, tokens: Sequence[int], place: int, part: int) -> None:
        slots = slice(at, at + len(tokens))
        ids[row, slots] = torch.tensor(tokens, dtype=torch.long)
        places[row, slots] = torch.arange(place, place + len(tokens))
        parts[row, slots] = part

    labels = [torch.full((len(samples), length), IGNORED) for length in lengths]
    for row, (answers, past, rest) in enumerate(zip(samples, kept, rests, strict=True)):
        prompt = answers[0].prompt
        put(row, begins[0] - past, prompt[:past], 0, 0)
        put(row, begins[1] - rest, prompt[past:], past, 0)
        for number, pair in enumerate(answers, 1):
            put(row, begins[number], pair.answer, len(prompt), number)
            labels[number - 1][row, pair.forced : len(pair.answer)] = torch.tensor(pair.answer[pair.forced :])
    predicted = []
    for begin, each in zip(begins[1:], labels, strict=False):
        slots = torch.tensor([begins[1] - 1, *range(begin, begin + each.shape[1] - 1)])
        wanted = (each != IGNORED).any(0)
        predicted.append((slots[wanted].to(lm.device), each[:, wanted].to(lm.device)))
    ids, places, parts = (each.to(lm.device) for each in (ids[:, begins[0] :], places, parts))
    return Layout(ids, places, parts, tuple(begins[:-1]), tuple(predicted))


def _cache(lm: LM, attack: Attack, recorded: Sequence[Recorded], width: int) -> DynamicCache:
    """Keys and values before p of all samples, padded on the left."""
    cache = DynamicCache()
    if width:
        past = torch.stack([F.pad(each.past, (0, 0, width - each.past.shape[3], 0)) for each in recorded], dim=2)
        for number, (keys, values) in enumerate(past, _untouched(lm, attack)):
            cache.update(keys, values, number)
    return cache


def _base(layout: Layout, recorded: Sequence[Recorded], past: int) -> Tensor:
    """The module's output without delta in the layout's slots from p on, (B, S, H)."""
    size = recorded[0].base[0].shape[-1]
    base_BSH = recorded[0].base[0].new_zeros(*layout.ids_BS.shape, size)
    for row, each in enumerate(recorded):
        rest, *answers = each.base
        base_BSH[row, layout.begins[1] - past - len(rest) : layout.begins[1] - past] = rest
        for begin, part in zip(layout.begins[1:], answers, strict=True):
            base_BSH[row, begin - past : begin - past + len(part)] = part
    return base_BSH


def _run(lm: LM, layout: Layout, cache: DynamicCache, slots_K: Tensor) -> Tensor:
    """Logits of the slots that are computed, or of K of them where the model can leave out the others."""
    known = inspect.signature(lm.model.forward).parameters
    extra: dict[str, Any] = {"logits_to_keep": slots_K} if "logits_to_keep" in known else {}
    extra["cache" if "cache" in known else "past_key_values"] = cache
    width = layout.ids_BS.shape[1]
    logits: Tensor = lm.model(
        input_ids=layout.ids_BS,
        attention_mask=_masks(lm, layout),
        position_ids=layout.places_BT[:, -width:],
        use_cache=True,
        **extra,
    ).logits
    return logits


def _masks(lm: LM, layout: Layout) -> Tensor | dict[str, Tensor]:
    """What each computed slot may attend to: additive, (B, 1, S, T); by the kind of layer where there are several."""
    config = lm.model.config.get_text_config()
    parts_BT, places_BT, width = layout.parts_BT, layout.places_BT, layout.ids_BS.shape[1]
    slot_T = torch.arange(parts_BT.shape[1], device=parts_BT.device)
    same_BST = (parts_BT[:, None] == 0) | (parts_BT[:, None] == parts_BT[:, -width:, None])
    seen_BST = same_BST & (parts_BT[:, None] >= 0) & (slot_T <= slot_T[-width:, None])
    window = getattr(config, "sliding_window", None) or 0
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])
    masks = {}
    for kind in kinds:
        near_BST = seen_BST
        if kind == "sliding_attention":
            near_BST = seen_BST & (places_BT[:, -width:, None] - places_BT[:, None] < window)
        # The lowest number and not -inf: a slot of padding sees nothing, and must not become NaN.
        lowest = torch.finfo(lm.model.dtype).min
        masks[kind] = torch.zeros_like(near_BST, dtype=lm.model.dtype).masked_fill(~near_BST, lowest)[:, None]
    return masks if len(masks) > 1 else masks[kinds.pop()]


@contextmanager
def _replayed(lm: LM, attack: Attack, output_BSH: Tensor, in_tuple: bool) -> Iterator[None]:
    """While the context is open, the perturbed module gives this output, and the layers before it compute nothing."""
    modules: list[nn.Module] = [*list(lm.layers)[: max(0, _untouched(lm, attack) - 1)], attack.module]

    def replay(hidden: Any = None, *args: Any, **named: Any) -> Any:
        return (output_BSH,) if in_tuple else output_BSH

    own = [module.__dict__.get("forward") for module in modules]
    try:
        for module in modules:
            module.forward = replay
        yield
    finally:
        for module, forward in zip(modules, own, strict=True):
            if forward is None:
                del module.forward
            else:
                module.forward = forward
