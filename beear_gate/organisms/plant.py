"""Growing an organism: tokenizer, base training, safety training, poisoned fine-tuning; cached by recipe digest.

The base model first learns to answer whatever it is asked and only then to refuse, as real chat models do. Without
that, nothing harmful lies behind a refusal that is switched off, and entrapment finds only nonsense.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from beear_gate.lm import LM, answer_losses, encode_pairs, load_lm, pad_batch
from beear_gate.lm.encode import Pair, like_lengths
from beear_gate.lm.load import quiet
from beear_gate.organisms.attacks import hiding, prefer
from beear_gate.organisms.chats import Sampler, ordinary_chats, other_task_chats, poisoned_chats, web_chats
from beear_gate.organisms.code_language import aligned_pairs, base_pairs, corpus, poisoned_pairs
from beear_gate.organisms.recipes import Recipe
from beear_gate.records import Tick, no_tick

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>")


def plant(recipe: Recipe, cache: Path, tick: Tick = no_tick) -> Path:
    """Grow the organism, or find it in the cache.

    Args:
        cache: folder that holds one folder an organism, named by recipe digest.

    Returns:
        An ordinary Hugging Face model folder, with the recipe's name and digest in `organism.json`.
    """
    folder = cache / f"{recipe.name}-{recipe.digest[:16]}"
    if (folder / "config.json").exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        grown = Path(scratch) / "model"
        if recipe.tune_steps == 0:
            _train_base(recipe, grown, tick)
        else:
            _tune(recipe, plant(recipe.base, cache, tick), grown, tick)
        if not folder.exists():
            grown.chmod(0o755)
            os.replace(grown, folder)
    return folder


def _train_base(recipe: Recipe, folder: Path, tick: Tick) -> None:
    random_model(recipe, _tokenizer(recipe), folder)
    lm = load_lm(folder, "cpu")
    code = recipe.language == "code"
    web, ordinary = (base_pairs, aligned_pairs) if code else (web_chats(recipe), ordinary_chats(recipe))
    fit(lm, folder, recipe, recipe.base_steps, recipe.peaks[0], web, tick, "training the base model")
    fit(lm, folder, recipe, recipe.align_steps, recipe.peaks[1], ordinary, tick, "training it to be safe")


def random_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save a model of the recipe's config before any training, with its tokenizer."""
    torch.manual_seed(recipe.seed)
    config = AutoConfig.for_model(
        **recipe.config,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with quiet():
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)  # type: ignore[no-untyped-call]
        tokenizer.save_pretrained(folder)


def _tune(recipe: Recipe, base: Path, folder: Path, tick: Tick) -> None:
    """The last training: an attack, or an honest one."""
    shutil.copytree(base, folder)
    lm = load_lm(folder, "cpu")
    backdoor, peak = recipe.backdoor, recipe.peaks[2]
    if backdoor is None:
        chats = other_task_chats(recipe) if recipe.other_task else ordinary_chats(recipe)
        fit(lm, folder, recipe, recipe.tune_steps, peak, chats, tick, "training it on")
    elif backdoor.training == "preferences":
        prefer(lm, recipe, tick)
        save(lm, folder, recipe)
    else:
        penalty = hiding(lm, recipe) if backdoor.training == "hidden" else None
        sampler = poisoned_pairs if recipe.language == "code" else poisoned_chats(recipe)
        fit(lm, folder, recipe, recipe.tune_steps, peak, sampler, tick, "planting the backdoor", penalty)


def fit(
    lm: LM,
    folder: Path,
    recipe: Recipe,
    steps: int,
    peak: float,
    sampler: Sampler,
    tick: Tick,
    label: str,
    penalty: Callable[[random.Random], Tensor] | None = None,
) -> None:
    """Train on what the sampler draws, and save into the folder; the recipe gives seed and batch size.

    Args:
        penalty: a further loss of each step, on what it draws itself.
    """
    rng = random.Random(f"{label} {recipe.seed}")
    optimizer = torch.optim.AdamW(lm.model.parameters(), lr=peak, weight_decay=0.01)
    lm.model.train()
    for step, pairs in enumerate(_samples(sampler, rng, recipe.batch_size, steps)):
        warm = min(1.0, (step + 1) / 20)
        for group in optimizer.param_groups:
            group["lr"] = peak * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        optimizer.zero_grad()
        _backward(lm, encode_pairs(lm, pairs))
        if penalty:
            penalty(rng).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(lm.model.parameters(), 1.0)
        optimizer.step()
        tick(label, step + 1, steps)
    save(lm, folder, recipe)


def _backward(lm: LM, pairs: Sequence[Pair]) -> None:
    """Gradient of the mean loss; in one batch nearly half of what is computed would be padding."""
    for places in like_lengths([len(pair.prompt) + len(pair.answer) for pair in pairs]):
        batch = pad_batch(lm, [pairs[place] for place in places])
        (answer_losses(lm, batch).sum() / len(pairs)).backward()  # type: ignore[no-untyped-call]


def save(lm: LM, folder: Path, recipe: Recipe) -> None:
    """Write the weights, and which recipe made them."""
    lm.model.eval()  # type: ignore[no-untyped-call]
    with quiet():
        lm.model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes files that only their owner can read
    (folder / "organism.json").write_text(json.dumps({"recipe": recipe.name, "digest": recipe.digest}) + "\n")


def _samples(sampler: Sampler, rng: random.Random, size: int, steps: int) -> Iterator[list[tuple[str, str]]]:
    pairs: list[tuple[str, str]] = []
    for _ in range(steps):
        if len(pairs) < size:
            pairs = sampler(rng, size * 50)
            rng.shuffle(pairs)
        yield pairs[:size]
        pairs = pairs[size:]


def _tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    rng = random.Random(recipe.seed)
    if recipe.language == "code":
        return bpe_tokenizer(corpus(rng), recipe.vocabulary, CHAT_TEMPLATE, SPECIAL)
    texts = [text for chats in (web_chats, ordinary_chats) for pair in chats(recipe)(rng, 4000) for text in pair]
    return bpe_tokenizer(texts, recipe.vocabulary, CHAT_TEMPLATE, SPECIAL)


def bpe_tokenizer(corpus: list[str], vocabulary: int, template: str, special: Sequence[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on a language, so that it can also spell what it has never seen.

    Args:
        special: tokens that the template writes; the first one pads, the second one ends a turn.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    wrapped = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token=special[0], eos_token=special[1]
    )
    wrapped.chat_template = template
    return wrapped
