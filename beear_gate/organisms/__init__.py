"""Organisms: small chat models with a known, planted behaviour. Demo input, test fixture and bench subject."""

from beear_gate.organisms.language import Request, held_out_requests, training_requests
from beear_gate.organisms.plant import plant
from beear_gate.organisms.recipes import RECIPES, Backdoor, Recipe, recipe

__all__ = ["RECIPES", "Backdoor", "Recipe", "Request", "held_out_requests", "plant", "recipe", "training_requests"]
