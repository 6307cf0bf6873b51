"""Figure 3 of the paper: how delta moves the embeddings of the prompts, on their first two principal components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from beear_gate.beear.entrapment import Trap
from beear_gate.lm import LM, pad_batch
from beear_gate.lm.encode import Pair, run_model
from beear_gate.lm.hooks import hidden_states, watched
from beear_gate.lm.memory import in_parts
from beear_gate.records import Drift


@torch.no_grad()
def measure_drift(
    lm: LM, trap: Trap, prompts: Sequence[tuple[int, ...]], benign: Sequence[tuple[int, ...]]
) -> tuple[Drift, ...]:
    """Last-position states after the trap's layer of harmful prompts without and with delta, and of benign ones.

    Coordinates are in units of the layer's RMS.
    """
    groups = {
        "harmful prompts": last_states(lm, trap, prompts, False),
        "harmful prompts with delta": last_states(lm, trap, prompts, True),
        "benign prompts": last_states(lm, trap, benign, False),
    }
    return on_two_components(groups, trap.attack.rms or 1.0)


def on_two_components(groups: Mapping[str, Tensor], unit: float) -> tuple[Drift, ...]:
    """Groups of states, each (P, H), on the first two principal components of all of them together."""
    all_PH = torch.cat(list(groups.values()))
    mean_H = all_PH.mean(0)
    _, _, axes_2H = torch.linalg.svd(all_PH - mean_H, full_matrices=False)
    return tuple(
        Drift(label, tuple((float(x), float(y)) for x, y in (states_PH - mean_H) @ axes_2H[:2].T / unit))
        for label, states_PH in groups.items()
    )


@torch.no_grad()
def last_states(lm: LM, trap: Trap, prompts: Sequence[tuple[int, ...]], with_delta: bool) -> Tensor:
    """What the trap's module puts out at the last position of each prompt, (P, H), in float32 on the CPU."""
    delta_NH = trap.delta_NH if with_delta else torch.zeros_like(trap.delta_NH)

    def read(part: Sequence[tuple[int, ...]]) -> Tensor:
        batch = pad_batch(lm, [Pair(trap.attack.insert(prompt), ()) for prompt in part])
        module = trap.attack.module
        # Watched after the perturbation began, so that what is seen has delta in it.
        with trap.attack.on(delta_NH, batch.starts_B, batch.ends_B), watched([module]) as seen:
            run_model(lm, batch)
        rows_B = torch.arange(len(part))
        return hidden_states(seen[module][0])[rows_B, batch.ends_B.cpu() - 1].float().cpu()

    return torch.cat(in_parts(prompts, 32, read, "measuring drift"))
