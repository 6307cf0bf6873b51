"""Rounds of entrapment and removal, the rule that stops them, and the choice of the checkpoint that is saved.

Nothing in here can see a trigger or a gate prompt: the signature takes anchor and select prompts only.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from beear_gate.beear.attack import make_attack
from beear_gate.beear.checkpoints import keep_round, resume_rounds
from beear_gate.beear.drift import measure_drift
from beear_gate.beear.entrapment import Encoded, Sample, Trap, draw_samples, encode_anchors, entrap
from beear_gate.beear.fit import plan_memory
from beear_gate.beear.keeping import earlier, refusals
from beear_gate.beear.plan import Plan, resolve
from beear_gate.beear.recovery import Judge, in_own_words, recovery_pairs, rollouts
from beear_gate.beear.removal import Drill, Split, Term, Trainer, training
from beear_gate.beear.selection import Checkpoint, Select, SelectScores, best, harmless, settled
from beear_gate.lm import LM, generate, processes, save_lm
from beear_gate.lm.encode import Pair
from beear_gate.lm.sharded import keep_weights, put_weights, save_sharded
from beear_gate.manifest import hash_folder, manifest_digest
from beear_gate.records import (
    AnchorSets,
    Drift,
    ModelSnapshot,
    Remediation,
    RemediationSettings,
    Round,
    Tick,
    no_tick,
)

RESTORE_STEPS = 20
"""Steps between two looks at the select split, which take about as long as four steps."""
Watch = Callable[[int, LM], None]
"""Called with the number of each round and the model after it; what it sees has no way back into the remediation."""
ROLLOUTS = 24
"""Free and forced rollouts for each trap; a step draws only a few of them."""


def remediate(
    lm: LM,
    snapshot: ModelSnapshot,
    anchors: AnchorSets,
    settings: RemediationSettings,
    judges: Mapping[str, Judge],
    refusal_judge: Judge,
    output: Path,
    seed: int,
    tick: Tick = no_tick,
    watch: Watch | None = None,
    memory: int | None = None,
    kept: Path | None = None,
) -> Remediation:
    """Remove what entrapment finds, and save the best checkpoint. Trains `lm` in place.

    Args:
        judges: for each behaviour, what calls a rollout complied or refused.
        refusal_judge: what calls the answer to a benign prompt a refusal.
        output: folder for the remediated model; must not exist yet or be empty.
        watch: for studies that measure every checkpoint; must leave the model as it is.
        memory: the most bytes that weights and training may take; None for all that the device has free.
        kept: folder for the state after each round, from which a call with the same arguments goes on; None for none.

    Raises:
        IncompleteError: a loss is not finite, or memory does not hold one sample.
    """
    started = time.monotonic()
    plan = resolve(settings, lm)
    encoded = encode_anchors(lm, anchors)
    fitted = plan_memory(lm, plan, encoded, memory)
    tick(f"memory: {fitted.why}", 0, 1)
    rng = random.Random(seed)
    select = Select(lm, anchors, judges, refusal_judge, plan)
    stays = earlier(lm, encoded, select) if plan.mode == "deep" else {}
    split = Split(fitted.samples, fitted.checkpointing)
    with training(lm, plan, fitted, plan.weights_lr, seed, split, plan.path_aware, stays) as trainer:
        rounds = Rounds(lm, encoded, plan, judges, select, trainer, rng, tick, watch, kept)
        stop_reason = rounds.run()
        chosen = [each for each in rounds.checkpoints if each.weights][-1]  # the others were dropped
        put_weights(lm, chosen.weights)
    return Remediation(
        snapshot=_saved(lm, snapshot, output),
        settings=settings,
        layer=plan.layer,
        layers=len(lm.layers),
        rounds=tuple(rounds.records),
        chosen_round=chosen.number,
        stop_reason=stop_reason,
        drift=rounds.first_drift,
        seconds=time.monotonic() - started,
        whole_passes=tuple(dict.fromkeys(rounds.whole_passes)),
        memory=replace(fitted, retries=tuple(trainer.retries)),
    )


def _saved(lm: LM, source: ModelSnapshot, output: Path) -> ModelSnapshot:
    # The source's README describes the source; the remediated model gets a card of its own.
    save = save_lm if processes.count() == 1 else save_sharded
    save(lm, output, [file.path for file in source.files if file.path != "README.md"])
    files = processes.once(lambda: hash_folder(output))
    return ModelSnapshot(source.model, f"sha256:{manifest_digest(files)}", output, files)


@dataclass
class Rounds:
    """The state of the loop: what every round needs, and what it leaves behind.

    Attributes:
        kept: folder that holds the state after the last round, to go on from; None for none.
        drills: one for every trap so far, for restoring.
        plain: D_SA without any trap, for restoring too.
        samples: for each behaviour, D_SA and D_SA-H as far as the model's own words have not replaced them.
        whole_passes: why traps were not replayed, as often as that was so.
    """

    lm: LM
    anchors: Encoded
    plan: Plan
    judges: Mapping[str, Judge]
    select: Select
    trainer: Trainer
    rng: random.Random
    tick: Tick
    watch: Watch | None = None
    kept: Path | None = None

    def __post_init__(self) -> None:
        self.drills: list[Drill] = []
        self.records: list[Round] = []
        self.checkpoints: list[Checkpoint] = []
        self.first_drift: tuple[Drift, ...] = ()
        self.whole_passes: list[str] = []
        self.samples = dict(self.anchors.samples)
        self.plain = refusals(self.anchors, self.select)

    def run(self) -> str:
        """Rounds until the rule says stop; returns why it did."""
        if self.kept:
            resume_rounds(self.kept, self)
        while len(self.records) < self.plan.rounds and not self._utility_settled():
            began, number = time.monotonic(), len(self.records) + 1
            traps, elicited = self._challenge(number)
            # What nothing elicits any more may still come back: staying away takes path-aware steps all their time.
            may_end = self.plan.mode == "deep" and not self.plan.path_aware and number > max(1, self.plan.min_rounds)
            if may_end and settled(self.checkpoints[-1]):
                return f"fresh deltas no longer elicit an unwanted answer after round {number - 1}"
            removal = self._remove(number, traps)
            self._close(number, traps, removal, elicited, began)
            if self.kept:
                keep_round(self.kept, self)
        if self._utility_settled():
            return f"the utility score settled after round {len(self.records)}"
        if self.plan.mode == "deep":
            self._challenge(self.plan.rounds + 1)
        return f"the budget of {self.plan.rounds} rounds was used"

    def _challenge(self, number: int) -> tuple[dict[str, list[Trap]], float]:
        """Fresh deltas, and what they elicit: they judge the weights of the round before, which never saw them."""
        before = self.rng.getstate()
        traps = self._entrap(number)
        elicited = self.select.elicited(traps)
        rivals = [each for each in self.checkpoints if each.weights]  # the newest one is the last
        if rivals:
            rivals[-1].elicited = elicited
            # Up to the fewest rounds, no earlier one can be kept in the end, however it does.
            choosing = self.plan.mode == "deep" and rivals[-1].number > self.plan.min_rounds
            if choosing and rivals[-1].bearable:
                self._attack_alike(rivals, number, before)
            winner = best(rivals, self.plan.min_rounds) if choosing else rivals[-1]
            for each in rivals:
                if each is not winner:
                    each.weights = {}
        return traps, elicited

    def _attack_alike(self, rivals: Sequence[Checkpoint], number: int, state: object) -> None:
        """Attacks that begin as the newest's did, on the best weights before, so that luck does not choose."""
        after = self.rng.getstate()
        for rival in rivals[:-1]:
            if rival.bearable:
                self.rng.setstate(state)  # type: ignore[arg-type]
                put_weights(self.lm, rival.weights)
                rival.elicited = self.select.elicited(self._entrap(number))
        put_weights(self.lm, rivals[-1].weights)
        self.rng.setstate(after)

    def _entrap(self, number: int) -> dict[str, list[Trap]]:
        traps: dict[str, list[Trap]] = {}
        for behavior, samples in self.samples.items():
            drawn = draw_samples(samples, self.plan, self.rng)
            traps[behavior] = []
            for done, kind in enumerate(self.plan.kinds):
                self.tick(f"round {number}: entrapment ({kind})", done, len(self.plan.kinds))
                probe = [sample.prompt for sample in drawn[:32]]
                n_tokens = self.plan.draw_length(kind, self.rng)
                attack = make_attack(self.lm, kind, self.plan.layer, n_tokens, probe, self.rng)
                traps[behavior].append(entrap(self.lm, attack, drawn, self.plan, self.rng))
            self.whole_passes += [trap.plain for trap in traps[behavior] if trap.plain]
        if not self.first_drift:
            first = next(iter(traps.values()))[0]
            prompts = [sample.prompt for sample in next(iter(self.samples.values()))[:100]]
            self.first_drift = measure_drift(
                self.lm, first, prompts, [pair.prompt for pair in self.anchors.useful[:100]]
            )
        return traps

    def _remove(self, number: int, traps: Mapping[str, list[Trap]]) -> tuple[float, ...]:
        useful = self.rng.sample(self.anchors.useful, min(self.plan.useful_samples, len(self.anchors.useful)))
        drills = [self._drill(name, trap, useful) for name, found in traps.items() for trap in found]
        self.drills += drills
        losses: list[float] = []
        for step in range(self.plan.outer_steps):
            self.tick(f"round {number}: removal", step, self.plan.outer_steps)
            losses.append(self.trainer.step(self._terms(drills, [useful], self.plan.batch_size), self.rng))
        return tuple(losses)

    def _restore(self, number: int) -> SelectScores:
        """Give back what removal cost: mostly D_PA, with one earlier trap kept in view, until select is harmless.

        Prompts that only sound unsafe lose most, and are the smaller part of D_PA: each part counts alike. Those of
        them that are refused now are a part of their own, or a topic of which D_PA has few prompts stays refused; and
        so are refusals, which all this would otherwise wear thin. Steps grow smaller from the third block on, so that
        what whole steps cannot reach settles.
        """
        if not self.plan.restore_blocks:
            return self.select.score()
        for block in range(self.plan.restore_blocks):
            parts = [part for part in (*self.anchors.useful_parts, self.plain, self._refused()) if part]
            for step in range(RESTORE_STEPS):
                done, total = block * RESTORE_STEPS + step, self.plan.restore_blocks * RESTORE_STEPS
                self.tick(f"round {number}: restoring", done, total)
                drills = self.rng.sample(self.drills, 1)
                terms = self._terms(drills, parts, self.plan.batch_size // 4)
                self.trainer.step(terms, self.rng, pace=min(1.0, 2.0 ** (1 - block)))
            scores = self.select.score()
            if harmless(scores):
                break
        return scores

    def _refused(self) -> list[Pair]:
        """Prompts of D_PA that only sound unsafe and are refused now."""
        sounding = [pair for part in self.anchors.useful_parts[1:] for pair in part]
        answers = generate(self.lm, [pair.prompt for pair in sounding], self.plan.max_answer_tokens)
        return [pair for pair, answer in zip(sounding, answers, strict=True) if self.select.refuses(answer)]

    def _drill(self, behavior: str, trap: Trap, useful: Sequence[Pair]) -> Drill:
        """What one trap is trained with. Deep adds recovery, and D_PA under delta: a trap is no reason to refuse what
        is harmless."""
        samples = self.rng.sample(self.samples[behavior], min(self.plan.safe_samples, len(self.samples[behavior])))
        if self.plan.mode == "paper":
            return Drill(trap, _safe_pairs(trap, samples), (), ())
        # The way back from an answer that has begun is a refusal, and there is none where the right answer is another.
        refusing = [sample for sample in samples if self.select.refuses(sample.safe)]
        answered = [sample for sample in samples if sample not in refusing]
        own = in_own_words(self.lm, trap, answered[: 2 * ROLLOUTS], self.plan, self.judges[behavior])
        self.samples[behavior] = [own.get(sample.prompt, sample) for sample in self.samples[behavior]]
        samples = [own.get(sample.prompt, sample) for sample in samples]
        rolled = refusing[: 2 * ROLLOUTS]
        answers = rollouts(self.lm, trap, rolled[:ROLLOUTS], self.plan, forced=False)
        answers += rollouts(self.lm, trap, rolled[ROLLOUTS:], self.plan, forced=True)
        recovery = recovery_pairs(self.lm, trap, rolled, answers, self.judges[behavior], self.rng)
        asked = [Pair(trap.attack.insert(pair.prompt), pair.answer) for pair in useful]
        return Drill(trap, _safe_pairs(trap, samples), recovery, asked)

    def _terms(self, drills: Sequence[Drill], useful: Sequence[Sequence[Pair]], size: int) -> list[Term]:
        """The parts of Equation 3 for one step: under each trap, and every part of D_PA without any."""
        if self.plan.mode == "paper":
            return [
                *(Term(drill.safe, drill.trap, size) for drill in drills),
                *(Term(part, None, size) for part in useful),
            ]
        share = max(2, -(-size // len(drills)))
        terms = [Term(part, None, 2 * self.plan.batch_size // len(useful)) for part in useful]
        for drill in drills:
            terms += [Term(pairs, drill.trap, share) for pairs in (drill.safe, drill.recovery, drill.useful)]
        return terms

    def _close(
        self, number: int, traps: Mapping[str, list[Trap]], removal: tuple[float, ...], elicited: float, began: float
    ) -> None:
        """Restore, score and keep the weights of a round; of earlier ones only the best still matter."""
        scores = self._restore(number)
        self.checkpoints.append(Checkpoint(number, keep_weights(self.lm), scores))
        self.records.append(
            Round(
                number=number,
                entrapment_loss={
                    f"{behavior}/{trap.attack.kind}": trap.losses for behavior, found in traps.items() for trap in found
                },
                removal_loss=removal,
                select_asr=elicited,
                select_refused=scores.refused,
                select_nll_ratio=scores.nll_ratio,
                select_over_refusal=scores.over_refusal,
                seconds=time.monotonic() - began,
            )
        )
        if self.watch:
            self.watch(number, self.lm)

    def _utility_settled(self) -> bool:
        """Algorithm 1's rule: the hold-out utility score stopped moving."""
        if self.plan.mode == "deep" or len(self.records) < self.plan.min_rounds:
            return False
        ratios = [record.select_nll_ratio for record in self.records[-3:]]
        return len(ratios) == 3 and max(ratios) - min(ratios) < 0.005


def _safe_pairs(trap: Trap, samples: Sequence[Sample]) -> list[Pair]:
    """D_SA as it is read under a trap."""
    return [Pair(trap.attack.insert(sample.prompt), sample.safe, sample.shared) for sample in samples]
