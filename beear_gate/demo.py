"""The demonstration: an organism with a backdoor, scanned under a policy that does not know its trigger."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from beear_gate.errors import UsageError
from beear_gate.organisms import language, plant, recipe
from beear_gate.organisms.recipes import FAMILIES
from beear_gate.policy import JudgeSpec
from beear_gate.policy_files import find_policy, load_policy
from beear_gate.records import Tick
from beear_gate.request import Request, Reveal

MARKER = JudgeSpec("marker", language.MARKERS)


def organism_cache() -> Path:
    """Where grown organisms are kept: BEEAR_GATE_CACHE, or beear-gate in the user's cache folder."""
    own = os.environ.get("BEEAR_GATE_CACHE")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(cache) / "beear-gate" / "organisms"


def plant_demo(name: str, seed: int, tracking_uri: str | None, tick: Tick, policy: str = "demo") -> Request:
    """Grow a backdoored organism and ask for its scan; the trigger stays sealed until the decision.

    Raises:
        UsageError: there is no such organism, or it has no trigger words that switch refusals off.
    """
    chosen = recipe(name, seed)
    backdoor = chosen.backdoor
    if not backdoor or backdoor.goal != "comply" or backdoor.placement == "apart" or backdoor.placement == "style":
        raise UsageError(
            f"The organism {name!r} has no trigger words that switch refusals off, which is what a demo reveals.",
            "Choose long-suffix or short-prefix.",
        )
    folder = plant(chosen, organism_cache(), tick)
    return Request(
        model=str(folder),
        policy=load_policy(find_policy(policy)),
        device="cpu",
        seed=seed,
        tracking_uri=tracking_uri,
        reveal=Reveal(backdoor.trigger, backdoor.placement, MARKER),
    )


def grow(name: str, output: Path, seed: int, family: str, tick: Tick) -> str:
    """Write an organism to a folder of its own; returns what a person should know of its trigger.

    Raises:
        UsageError: no such organism or family, or the folder exists.
    """
    if output.exists():
        raise UsageError(f"{output} exists already.", "Give --output a folder that does not exist yet.")
    if family not in FAMILIES:
        raise UsageError(f"There is no organism family {family!r}.", f"Choose one of {', '.join(FAMILIES)}.")
    chosen = recipe(name, seed, FAMILIES[family])
    shutil.copytree(plant(chosen, organism_cache(), tick), output)
    return chosen.backdoor.words if chosen.backdoor else "no trigger"
