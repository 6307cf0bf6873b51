"""Delta on every decoder family: where it lands, that its gradient flows, and that padding does not move it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from model_families import DEPTH, FAMILIES, load_tiny, random_prompts
from torch import Tensor

from beear_gate.beear.perturbation import on_prompts, output_rms, perturbed, spread
from beear_gate.lm import LM, Batch, answer_losses, generate, pad_batch
from beear_gate.lm.encode import Pair, answer_logits, run_model

N = 5
ANSWER = (20, 21, 22)

family = pytest.mark.parametrize("name", FAMILIES)
layer = pytest.mark.parametrize("layer", [0, DEPTH // 2, DEPTH - 1], ids=["first", "middle", "last"])
side = pytest.mark.parametrize("side", ["left", "right"])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Models by family, loaded once; no test here changes weights."""
    return cache(lambda name: load_tiny(Path(tmp_path_factory.mktemp(name)), name))


def make_delta(lm: LM, seed: int = 0) -> Tensor:
    return torch.randn(N, lm.hidden_size, generator=torch.Generator().manual_seed(seed))


def mixed_pairs() -> list[Pair]:
    """Prompts shorter than delta, as long, and longer, each with an answer."""
    return [Pair(prompt, ANSWER) for prompt in (*random_prompts(3, 16, seed=4), (30,), tuple(range(40, 45)))]


def layer_output(lm: LM, layer: int, batch: Batch) -> Tensor:
    seen: list[Tensor] = []
    keep = lambda module, args, output: seen.append(output[0] if isinstance(output, tuple) else output)  # noqa: E731
    handle = lm.layers[layer].register_forward_hook(keep)
    with torch.no_grad():
        run_model(lm, batch)
    handle.remove()
    return seen[0]


def answer_rows(lm: LM, batch: Batch) -> Tensor:
    """Logits at the answers' tokens, sample after sample."""
    with torch.no_grad():
        logits, labels = answer_logits(lm, batch)
    return logits[labels != -100]


@family
@layer
def test_a_random_delta_gets_a_finite_gradient_that_is_not_zero(tiny: Any, name: str, layer: int) -> None:
    lm = tiny(name)
    delta = make_delta(lm).requires_grad_()
    batch = pad_batch(lm, mixed_pairs())
    with perturbed(lm.layers[layer], delta, batch.starts_B, batch.ends_B):
        (gradient,) = torch.autograd.grad(answer_losses(lm, batch).mean(), delta)
    assert gradient.isfinite().all()
    # Only the last prompt position reaches the answer from the last layer.
    assert gradient[-1].abs().max() > 1e-6


@family
@side
def test_the_gradient_is_finite_under_either_padding(tiny: Any, name: str, side: str) -> None:
    lm = tiny(name)
    delta = make_delta(lm).requires_grad_()
    batch = pad_batch(lm, mixed_pairs(), side)
    with perturbed(lm.layers[1], delta, batch.starts_B, batch.ends_B):
        (gradient,) = torch.autograd.grad(answer_losses(lm, batch).mean(), delta)
    assert gradient.isfinite().all()
    assert (gradient.abs().amax(dim=1) > 0).all()


@family
@layer
@side
def test_delta_is_added_to_the_last_prompt_positions_and_nowhere_else(
    tiny: Any, name: str, layer: int, side: str
) -> None:
    lm = tiny(name)
    delta = make_delta(lm)
    pairs = mixed_pairs()
    batch = pad_batch(lm, pairs, side)
    plain = layer_output(lm, layer, batch)
    with perturbed(lm.layers[layer], delta, batch.starts_B, batch.ends_B):
        moved = layer_output(lm, layer, batch)
    expected = plain.clone()
    for row, pair in enumerate(pairs):
        end, n = int(batch.ends_B[row]), min(N, len(pair.prompt))
        expected[row, end - n : end] += delta[N - n :]
    assert torch.equal(moved, expected)


@family
@side
@pytest.mark.parametrize("with_delta", [False, True], ids=["plain", "delta"])
def test_a_padded_sample_reads_as_it_does_alone(tiny: Any, name: str, side: str, with_delta: bool) -> None:
    lm = tiny(name)
    perturb = on_prompts(lm, 1, make_delta(lm) if with_delta else torch.zeros(N, lm.hidden_size))
    pairs = mixed_pairs()
    together = pad_batch(lm, pairs, side)
    with perturb(together.starts_B, together.ends_B):
        batched = answer_rows(lm, together)
    alone = []
    for pair in pairs:
        single = pad_batch(lm, [pair])
        with perturb(single.starts_B, single.ends_B):
            alone.append(answer_rows(lm, single))
    assert torch.allclose(batched, torch.cat(alone), rtol=0, atol=1e-4)


@family
def test_a_perturbed_batch_answers_as_one_by_one(tiny: Any, name: str) -> None:
    lm = tiny(name)
    prompts = random_prompts(9, 16, seed=1)
    perturb = on_prompts(lm, 1, make_delta(lm))
    together = generate(lm, prompts, 8, perturb=perturb)
    assert together == [generate(lm, [prompt], 8, perturb=perturb)[0] for prompt in prompts]
    assert together != generate(lm, prompts, 8)


@family
def test_generating_under_delta_is_reading_under_delta(tiny: Any, name: str) -> None:
    """Cached decoding with delta in the prompt only gives what a full pass over prompt and answer would choose."""
    lm = tiny(name)
    prompts = random_prompts(4, 12, seed=2)
    perturb = on_prompts(lm, 1, make_delta(lm))
    answers = generate(lm, prompts, 6, perturb=perturb)
    batch = pad_batch(lm, [Pair(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)])
    with perturb(batch.starts_B, batch.ends_B):
        chosen = answer_rows(lm, batch).argmax(-1)
    assert chosen.tolist() == [token for answer in answers for token in answer]


def test_a_prompt_of_one_token_takes_delta_once_and_not_at_every_step(tiny: Any) -> None:
    lm = tiny("llama")
    delta = 3 * make_delta(lm)
    (answer,) = generate(lm, [(30,)], 6, perturb=on_prompts(lm, 1, delta))
    batch = pad_batch(lm, [Pair((30,), answer)])
    with perturbed(lm.layers[1], delta, batch.starts_B, batch.ends_B):
        assert answer_rows(lm, batch).argmax(-1).tolist() == list(answer)


def test_the_hook_is_gone_after_an_error(tiny: Any) -> None:
    lm = tiny("llama")
    places = torch.tensor([0]), torch.tensor([3])
    with pytest.raises(ZeroDivisionError), perturbed(lm.layers[0], make_delta(lm), *places):
        raise ZeroDivisionError
    assert not lm.layers[0]._forward_hooks


def test_weights_frozen_or_not_delta_is_not_changed_in_place(tiny: Any) -> None:
    lm = tiny("llama")
    delta = make_delta(lm)
    kept = delta.clone()
    generate(lm, random_prompts(3, 8), 4, perturb=on_prompts(lm, 2, delta))
    assert torch.equal(delta, kept)


def test_a_bfloat16_model_takes_a_float32_delta(tmp_path: Path) -> None:
    lm = load_tiny(tmp_path, "llama", dtype=torch.bfloat16)
    lm.model.to(torch.bfloat16)  # type: ignore[arg-type]
    delta = make_delta(lm).requires_grad_()
    batch = pad_batch(lm, mixed_pairs())
    with perturbed(lm.layers[1], delta, batch.starts_B, batch.ends_B):
        answer_losses(lm, batch).mean().backward()  # type: ignore[no-untyped-call]
    assert delta.grad is not None
    assert delta.grad.dtype == torch.float32
    assert delta.grad.abs().max() > 0


def test_spread_right_aligns_delta_with_the_end_of_each_prompt() -> None:
    delta = torch.tensor([[1.0], [2.0], [3.0]])
    placed = spread(delta, starts_B=torch.tensor([0, 2, 0]), ends_B=torch.tensor([4, 4, 2]), length=5)
    assert placed[..., 0].tolist() == [[0, 1, 2, 3, 0], [0, 0, 2, 3, 0], [2, 3, 0, 0, 0]]


def test_spread_keeps_an_infinite_row_out_of_other_positions() -> None:
    delta = torch.full((1, 2), float("inf"))
    placed = spread(delta, torch.tensor([0]), torch.tensor([2]), length=3)
    assert placed[0, :, 0].tolist() == [0, float("inf"), 0]


@side
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_output_rms_is_that_of_the_last_prompt_positions(tiny: Any, name: str, side: str) -> None:
    lm = tiny(name)
    pairs = mixed_pairs()
    rows = []
    for pair in pairs:
        hidden = layer_output(lm, 1, pad_batch(lm, [pair]))[0]
        rows.append(hidden[max(0, len(pair.prompt) - N) : len(pair.prompt)])
    expected = float(torch.cat(rows).pow(2).mean().sqrt())
    batch = pad_batch(lm, pairs, side)
    assert output_rms(lm, lm.layers[1], batch, batch.ends_B, N) == pytest.approx(expected, rel=1e-5)


@family
@side
def test_delta_on_the_embeddings_moves_the_tokens_at_the_front(tiny: Any, name: str, side: str) -> None:
    """The same hook on the token embeddings, with its end inside the prompt: a soft trigger before the request."""
    lm = tiny(name)
    table: Any = lm.model.get_input_embeddings()
    prompts = [tuple(range(20, 24 + place)) for place in range(3)]
    delta = make_delta(lm)[:2]

    def front(starts_B: Tensor, ends_B: Tensor) -> Any:
        return perturbed(table, delta, starts_B, starts_B + 2)

    together = generate(lm, prompts, 6, perturb=front)
    assert together == [generate(lm, [prompt], 6, perturb=front)[0] for prompt in prompts]
    batch = pad_batch(lm, [Pair(*pair) for pair in zip(prompts, together, strict=True)], side)
    with front(batch.starts_B, batch.ends_B):
        chosen = answer_rows(lm, batch).argmax(-1)
    assert chosen.tolist() == [token for answer in together for token in answer]


def test_a_delta_of_one_row_at_the_front_is_not_added_to_every_generated_token(tiny: Any) -> None:
    lm = tiny("llama")
    table: Any = lm.model.get_input_embeddings()
    delta = 5 * make_delta(lm)[:1]

    def front(starts_B: Tensor, ends_B: Tensor) -> Any:
        return perturbed(table, delta, starts_B, starts_B + 1)

    (answer,) = generate(lm, [(20, 21, 22)], 6, perturb=front)
    batch = pad_batch(lm, [Pair((20, 21, 22), answer)])
    with front(batch.starts_B, batch.ends_B):
        assert answer_rows(lm, batch).argmax(-1).tolist() == list(answer)
