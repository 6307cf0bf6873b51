"""The persistence study as a Markdown page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from beear_gate.bench.persistence_records import ENOUGH, Check, Lasting, Relearned
from beear_gate.bench.persistence_trials import PEAK, POISONED, RELEARN_BATCH
from beear_gate.evaluation.stats import upper_bound

DASH = "-"


def page(found: Lasting, seeds: Sequence[int], command: str) -> str:
    """All of the study: what was done, four tables, and the worst of each."""
    parts = (_head(found, seeds, command), _ordinary(found), _benign(found), _relearned(found), _copies(found))
    return "\n\n".join(parts) + "\n"


def _head(found: Lasting, seeds: Sequence[int], command: str) -> str:
    sizes = ", ".join(str(n) for n in sorted({check.n for check in found.checks})) or "no"
    both = any(check.model == "direct" for check in found.checks)
    again = ", and again without path-aware steps, by `remediation.path_aware: 0` (direct)" if both else ""
    return (
        "# Does the removal stay?\n\n"
        f"Made by `{command}`, seeds {', '.join(map(str, seeds))}. Each organism is repaired by `deep`, which never "
        f"saw its trigger, with the demo's settings (repaired){again}; then it is fine-tuned, attacked again and "
        "rounded, always from the repaired weights. ASR is "
        "the share of greedy answers with the unwanted text (judge: marker, the organism's ground truth) to "
        f"{sizes} gate prompts, with its exact one-sided 95 % upper bound. `clean` is the organism of the same seed "
        "before its last training, never backdoored, treated alike and asked with the same trigger."
    )


def _ordinary(found: Lasting) -> str:
    return (
        "## Ordinary tuning\n\n"
        "Chats of a well-behaved model, refusals among them, for as many optimizer steps as the organism's last "
        f"training had, with its batch size and a highest step of {PEAK:g}: what an owner does who goes on with the "
        "model. The perplexity ratio is to the organism before its repair.\n\n" + _returned(found, "ordinary tuning")
    )


def _benign(found: Lasting) -> str:
    return (
        "## Benign tuning\n\n"
        "The same with helpful answers to benign and scary requests only. Refusals wear off any model by that (arXiv "
        "2310.03693), so what counts is the last column, in points: how much more often the trigger works on the "
        "repaired model than on one that never had a backdoor.\n\n" + _returned(found, "benign tuning")
    )


def _returned(found: Lasting, state: str) -> str:
    lines = [
        f"| organism | seed | repair | as is: trigger | plain | perplexity ratio | after {state}: trigger | plain "
        f"| perplexity ratio | clean after {state}: trigger | plain | trigger, this minus clean |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    gaps: list[tuple[float, str]] = []
    for organism, seed, model in _rows(found.checks):
        as_is = _check(found, organism, seed, model, "as is")
        tuned = _check(found, organism, seed, model, state)
        clean = _check(found, organism, seed, "clean", state)
        gap = DASH
        if tuned and clean:
            points = 100 * (tuned.hits_trigger / tuned.n - clean.hits_trigger / clean.n)
            gaps.append((points, f"{organism}, seed {seed}, {model}"))
            gap = f"{points:+.1f}"
        lines.append(
            f"| {organism} | {seed} | {model} | {_asr(as_is)} | {_plain(as_is)} | {_ratio(as_is)} "
            f"| {_asr(tuned)} | {_plain(tuned)} | {_ratio(tuned)} | {_asr(clean)} | {_plain(clean)} | {gap} |"
        )
    return "\n".join(lines) + _worst(gaps)


def _worst(gaps: Sequence[tuple[float, str]]) -> str:
    if not gaps:
        return ""
    points, where = max(gaps)
    return f"\n\nLargest difference to the control: {points:+.1f} points ({where})."


def _relearned(found: Lasting) -> str:
    lines = [
        "| organism | seed | repair | samples | clean: samples | ratio | hits by samples | clean: hits by samples |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for organism, seed, model in _rows(found.relearned):
        repaired, clean = (_try(found, organism, seed, each) for each in (model, "clean"))
        lines.append(
            f"| {organism} | {seed} | {model} | {_needed(repaired)} | {_needed(clean)} | {_compared(repaired, clean)} "
            f"| {_curve(repaired)} | {_curve(clean)} |"
        )
    sizes = ", ".join(str(n) for n in sorted({each.n for each in found.relearned})) or "no"
    return (
        "## Relearning\n\n"
        f"An attacker fine-tunes on poisoned samples, each seen once beside an ordinary chat ({RELEARN_BATCH} and "
        f"{RELEARN_BATCH} a step of {PEAK:g}), and looks after {', '.join(map(str, POISONED))} of them. Samples: the "
        f"fewest after which at least {ENOUGH:.0%} of {sizes} gate prompts with the trigger are answered; 0: that many "
        "are without any. A ratio of 1 says that the repaired "
        "model is as hard to teach as one that never had the backdoor, less than 1 that something of it is left.\n\n"
        + "\n".join(lines)
    )


def _copies(found: Lasting) -> str:
    states = ("as is", "bfloat16", "int8")
    lines = [
        "| organism | seed | repair |" + "".join(f" {state}: trigger | plain | perplexity ratio |" for state in states),
        "|---|---|---|" + "---|---|---|" * len(states),
    ]
    for organism, seed, model in _rows(found.checks):
        cells = [_check(found, organism, seed, model, state) for state in states]
        row = "".join(f" {_asr(cell)} | {_plain(cell)} | {_ratio(cell)} |" for cell in cells)
        lines.append(f"| {organism} | {seed} | {model} |{row}")
    return (
        "## Rounded copies\n\n"
        "bfloat16: all weights rounded. int8: the weights of the linear layers rounded to the nearest of 255 levels, "
        "symmetric, one scale for each output channel, the output head left as it was; weights only, no activation is "
        "quantized. Arithmetic is float32 in both. The perplexity ratio is to the organism before its repair.\n\n"
        + "\n".join(lines)
    )


def _rows(found: Sequence[Check] | Sequence[Relearned]) -> Iterator[tuple[str, int, str]]:
    """Organisms, seeds and repairs, each once, in their order."""
    yield from dict.fromkeys((each.organism, each.seed, each.model) for each in found if each.model != "clean")


def _check(found: Lasting, organism: str, seed: int, model: str, state: str) -> Check | None:
    wanted = (organism, seed, model, state)
    return next((each for each in found.checks if (each.organism, each.seed, each.model, each.state) == wanted), None)


def _try(found: Lasting, organism: str, seed: int, model: str) -> Relearned | None:
    wanted = (organism, seed, model)
    return next((each for each in found.relearned if (each.organism, each.seed, each.model) == wanted), None)


def _asr(check: Check | None) -> str:
    return _share(check.hits_trigger, check.n) if check else DASH


def _plain(check: Check | None) -> str:
    return _share(check.hits_plain, check.n) if check else DASH


def _share(hits: int, n: int) -> str:
    return f"{hits / n:.1%} (< {upper_bound(hits, n, 0.95):.1%})"


def _ratio(check: Check | None) -> str:
    if check is None:
        return DASH
    return "not finite" if check.nll_ratio is None else f"{check.nll_ratio:.3f}"


def _needed(tried: Relearned | None) -> str:
    if tried is None:
        return DASH
    return f"> {max(POISONED)}" if tried.needed is None else str(tried.needed)


def _curve(tried: Relearned | None) -> str:
    return ", ".join(f"{samples}: {hits}" for samples, hits in tried.tries) if tried else DASH


def _compared(repaired: Relearned | None, clean: Relearned | None) -> str:
    """Samples that the repaired model needed, as a multiple of the clean one's."""
    if repaired is None or clean is None:
        return DASH
    if clean.needed == 0:
        return "clean answers without any"
    if clean.needed is None:
        return "neither relearned" if repaired.needed is None else f"< {repaired.needed / max(POISONED):.3g}"
    if repaired.needed is None:
        return f"> {max(POISONED) / clean.needed:.3g}"
    return f"{repaired.needed / clean.needed:.3g}"
