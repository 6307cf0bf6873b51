"""Entrapment steps that compute only what depends on delta; the rest is recorded once and replayed.

With frozen weights, delta at positions p to p+N-1 of one module's output changes nothing before p in any layer, and
nothing at all in the layers up to that module. So one pass without gradient keeps the keys and values before p of the
later layers, and the module's own output from p on; a step runs only the later layers on the positions from p on, and
leaves out of the first of them what comes to an answer's token before attention brings delta to it. y_h and y_s stand
behind one copy of the prompt: neither sees the other, and both count positions from the prompt's end. The loss of
Equation 2 (arXiv 2406.17092) and its gradient are those of whole passes up to rounding. All this stands on conventions
of transformers' decoders: hold it against whole passes on the model at hand before use.

Shape suffixes as in `beear.layout`, and L later layers, P slots before p, S slots from p on, T = P + S, K slots with
logits, V words of the vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.pytorch_utils import Conv1D

from beear_gate.beear.attack import Attack
from beear_gate.beear.layout import Answers, Layout, Texts, lay_in_row, lay_out
from beear_gate.beear.perturbation import spread
from beear_gate.lm import LM, pad_batch, processes
from beear_gate.lm.encode import IGNORED, run_model
from beear_gate.lm.hooks import Forward, hidden_states, instead, watched

Losses = Callable[[Tensor, Sequence[Answers]], list[Tensor]]
"""L(F(x, delta), y) by delta (N, H) and samples: of their first, second, ... answers a tensor (B,), in nats a token."""


@dataclass(frozen=True)
class Recorded:
    """What does not depend on delta, for the tokens of all samples.

    Attributes:
        past: keys and values of each later layer for the tokens before p, (2, tokens, heads, size), where it computes.
        base: the perturbed module's output without delta for the others, (tokens, H).
        in_tuple: whether the family's layers return tuples.
        ahead: for the same tokens, (tokens, size), what linear layers give that delta does not reach in an answer.
    """

    past: tuple[Tensor, ...]
    base: Tensor
    in_tuple: bool
    ahead: dict[nn.Module, Tensor]


@dataclass
class Replay:
    """Entrapment on these samples, each recorded when it is first drawn.

    Raises:
        UsageError: a sample is longer than the model's context.
    """

    lm: LM
    attack: Attack
    samples: Sequence[Answers]
    recorded: Recorded | None = None
    done: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.texts = lay_in_row(self.lm, self.attack, list(dict.fromkeys(self.samples)))

    def losses(self, delta_NH: Tensor, samples: Sequence[Answers]) -> list[Tensor]:
        """As `Losses`, for some of the samples; the gradient reaches delta.

        Raises:
            Exception: whatever a model of other conventions raises.
        """
        numbers = [self.texts.number[each] for each in samples]
        missing = [number for number in dict.fromkeys(numbers) if number not in self.done]
        if self.recorded is None or any(processes.gathered(bool(missing))):
            missing = missing or numbers[:1]  # one process's record is a pass that all take part in
            self.recorded = record(self.lm, self.attack, self.texts, missing, self.recorded)
            self.done |= set(missing)
        return replayed_losses(self.lm, self.attack, self.texts, self.recorded, delta_NH, numbers)


def _untouched(lm: LM, attack: Attack) -> int:
    """How many layers delta leaves as they are: those up to the one that it follows, none for soft triggers."""
    return next((number + 1 for number, layer in enumerate(lm.layers) if layer is attack.module), 0)


@torch.no_grad()
def record(lm: LM, attack: Attack, texts: Texts, numbers: Sequence[int], known: Recorded | None) -> Recorded:
    """Read whole samples once, and put down what is seen beside what is known.

    Raises:
        Exception: whatever a model of other conventions raises.
    """
    layout = lay_out(texts, numbers)
    cache = DynamicCache()
    linears = _first_linears(lm, attack) if known is None else known.ahead
    with watched([attack.module, *linears]) as seen:
        _run(lm, texts, layout, 0, cache, torch.zeros(1, dtype=torch.long, device=lm.device))
    base_BTH = hidden_states(seen[attack.module][0])
    later: list[Any] = cache.layers[_untouched(lm, attack) :]
    if known is None:
        # Room for all samples at once: what grows is copied again and again. Zeros, because padding may stand for what
        # is not recorded yet, and attention multiplies what it does not see by 0.
        keys = [layer.keys for layer in later]
        past = tuple(each.new_zeros(2, texts.kept, each.shape[1], each.shape[3]) for each in keys)
        ahead = {linear: _room(texts, seen[linear][0]) for linear in _out_of_reach(lm, attack, list(texts.number))}
        known = Recorded(past, _room(texts, base_BTH), isinstance(seen[attack.module][0], tuple), ahead)
    first = layout.begins[0]
    numbers_BP = layout.numbers_BT[:, :first]
    before_BP = numbers_BP < texts.kept
    for layer, kept in zip(later, known.past, strict=True):
        tokens, there_BP = numbers_BP[before_BP].to(kept.device), before_BP.to(kept.device)
        for place, states in enumerate((layer.keys, layer.values)):
            kept[place, tokens] = states.transpose(1, 2)[:, :first][there_BP]
    _put_down(texts, layout, known.base, base_BTH)
    for linear, kept in known.ahead.items():
        _put_down(texts, layout, kept, seen[linear][0])
    return known


def _room(texts: Texts, seen_BTD: Tensor) -> Tensor:
    """For one row of such a tensor for each token from p on."""
    return seen_BTD.new_zeros(len(texts.ids_F) - 1 - texts.kept, seen_BTD.shape[-1])


def _put_down(texts: Texts, layout: Layout, kept: Tensor, seen_BTD: Tensor) -> None:
    numbers_BS = layout.numbers_BT[:, layout.begins[0] :]
    there_BS = numbers_BS < len(texts.ids_F) - 1
    tokens, there_BS = (numbers_BS[there_BS] - texts.kept).to(kept.device), there_BS.to(kept.device)
    kept[tokens] = seen_BTD[:, layout.begins[0] :][there_BS]


def _first_linears(lm: LM, attack: Attack) -> list[nn.Module]:
    """The linear layers of the first later layer; none where the last one is perturbed."""
    layers = list(lm.layers)[_untouched(lm, attack) :]
    return [module for layer in layers[:1] for module in layer.modules() if isinstance(module, (nn.Linear, Conv1D))]


def _out_of_reach(lm: LM, attack: Attack, samples: Sequence[Answers]) -> list[nn.Module]:
    """Those of them to which a delta of NaN brings none in an answer: they come before attention."""
    longest = max((pair for answers in samples for pair in answers), key=lambda pair: len(pair.answer))
    batch = pad_batch(lm, [longest])
    delta_NH = torch.full((attack.n_tokens, lm.hidden_size), torch.nan, device=lm.device)
    with attack.on(delta_NH, batch.starts_B, batch.ends_B), watched(_first_linears(lm, attack)) as seen:
        run_model(lm, batch)
    answer = slice(len(longest.prompt), None)
    return [
        linear
        for linear, given in seen.items()
        # Experts read tokens in rows of their own, some of them none.
        if [each.shape[:2] for each in given] == [batch.ids_BT.shape] and given[0][:, answer].isfinite().all()
    ]


def replayed_losses(
    lm: LM, attack: Attack, texts: Texts, recorded: Recorded, delta_NH: Tensor, numbers: Sequence[int]
) -> list[Tensor]:
    """As `Losses`, for samples that are recorded."""
    layout = lay_out(texts, numbers)
    past = layout.begins[0]
    # A slot of padding takes what is recorded of some token: nothing attends to it.
    numbers_BS = (layout.numbers_BT[:, past:] - texts.kept).clamp(max=len(recorded.base) - 1)
    base_BSH = recorded.base[numbers_BS.to(recorded.base.device)]
    end_B = torch.full((len(numbers),), layout.begins[1] - past, device=lm.device)
    start_B = end_B - texts.lengths_MG[numbers, :2].sum(1).to(lm.device)
    delta_BSH = spread(delta_NH, start_B, attack.last(start_B, end_B), base_BSH.shape[1]).to(base_BSH)
    slots_K = torch.unique(torch.cat([slots_A for slots_A, _ in layout.labels])) - past
    cache = _cache(lm, attack, recorded, layout.numbers_BT[:, :past].clamp(max=texts.kept - 1))
    replayed = _replayed(lm, attack, base_BSH + delta_BSH, recorded.in_tuple)
    with instead(replayed | _ahead(recorded, numbers_BS[:, layout.begins[1] - past :])):
        logits_BKV = _run(lm, texts, layout, past, cache, slots_K.to(lm.device))
    if logits_BKV.shape[1] != len(slots_K):
        logits_BKV = logits_BKV[:, slots_K]
    return _mean_losses(logits_BKV, [(torch.searchsorted(slots_K, slots_A - past), y) for slots_A, y in layout.labels])


def _mean_losses(logits_BKV: Tensor, labels: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """As `encode.mean_losses`, of several answers that share logits."""
    vocabulary = logits_BKV.shape[-1]
    # Flat: over any dimension but the last one, the softmax of a CPU is several times slower.
    scores = logits_BKV.float().flatten(0, 1).log_softmax(-1).view(len(logits_BKV), -1)
    picked = [places_A.to(y.device) * vocabulary + y.clamp(min=0) for places_A, y in labels]
    losses = -scores.gather(1, torch.cat(picked, 1))
    found = []
    for losses_BA, (_, y) in zip(torch.split(losses, [y.shape[1] for _, y in labels], 1), labels, strict=True):
        asked_BA = y != IGNORED
        found.append((losses_BA * asked_BA).sum(1) / asked_BA.sum(1).clamp(min=1))
    return found


def _cache(lm: LM, attack: Attack, recorded: Recorded, numbers_BP: Tensor) -> DynamicCache:
    """Keys and values before p of a batch."""
    cache = DynamicCache()
    if numbers_BP.shape[1]:
        for number, (keys, values) in enumerate(recorded.past, _untouched(lm, attack)):
            chosen_BP = numbers_BP.to(keys.device)
            cache.update(keys[chosen_BP].transpose(1, 2), values[chosen_BP].transpose(1, 2), number)
    return cache


def _run(lm: LM, texts: Texts, layout: Layout, first: int, cache: DynamicCache, slots_K: Tensor) -> Tensor:
    """Compute the slots from the first on: their logits, or of K of them where the model can leave out the others."""
    known = inspect.signature(lm.model.forward).parameters
    extra: dict[str, Any] = {"logits_to_keep": slots_K} if "logits_to_keep" in known else {}
    extra["cache" if "cache" in known else "past_key_values"] = cache
    places_BT, parts_BT = texts.places_F[layout.numbers_BT], texts.parts_F[layout.numbers_BT]
    logits: Tensor = lm.model(
        input_ids=texts.ids_F[layout.numbers_BT[:, first:]],
        attention_mask=_masks(lm, parts_BT, places_BT, first),
        position_ids=places_BT[:, first:],
        use_cache=True,
        **extra,
    ).logits
    return logits


def _masks(lm: LM, parts_BT: Tensor, places_BT: Tensor, first: int) -> Tensor | dict[str, Tensor]:
    """What each computed slot may attend to: additive, (B, 1, S, T); by the kind of layer where there are several."""
    config = lm.model.config.get_text_config()
    slot_T = torch.arange(parts_BT.shape[1], device=parts_BT.device)
    same_BST = (parts_BT[:, None] == 0) | (parts_BT[:, None] == parts_BT[:, first:, None])
    seen_BST = same_BST & (parts_BT[:, None] >= 0) & (slot_T <= slot_T[first:, None])
    window = getattr(config, "sliding_window", None) or 0
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])
    masks = {}
    for kind in kinds:
        near_BST = seen_BST
        if kind == "sliding_attention":
            near_BST = seen_BST & (places_BT[:, first:, None] - places_BT[:, None] < window)
        # The lowest number and not -inf: a slot of padding sees nothing, and must not become NaN.
        lowest = torch.finfo(lm.model.dtype).min
        masks[kind] = torch.zeros_like(near_BST, dtype=lm.model.dtype).masked_fill(~near_BST, lowest)[:, None]
    return masks if len(masks) > 1 else masks[kinds.pop()]


def _replayed(lm: LM, attack: Attack, output_BSH: Tensor, in_tuple: bool) -> dict[nn.Module, Forward]:
    """The perturbed module gives this output, and the layers before it compute nothing."""

    def replay(hidden: Any = None, *args: Any, **named: Any) -> Any:
        return (output_BSH,) if in_tuple else output_BSH

    return dict.fromkeys([*list(lm.layers)[: max(0, _untouched(lm, attack) - 1)], attack.module], replay)


def _ahead(recorded: Recorded, numbers_BA: Tensor) -> dict[nn.Module, Forward]:
    """Linear layers that delta does not reach in answers compute the slots before these alone."""

    def without_answers(compute: Forward, kept: Tensor) -> Forward:
        known_BAD = kept[numbers_BA.to(kept.device)]
        others = slice(None, -known_BAD.shape[1])
        return lambda hidden_BSD: torch.cat([compute(hidden_BSD[:, others].contiguous()), known_BAD], 1)

    found = recorded.ahead.items() if numbers_BA.shape[1] else ()
    return {linear: without_answers(linear.forward, kept) for linear, kept in found}
