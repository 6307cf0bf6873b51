"""Loading a checked snapshot, and finding its decoder layers by structure.

Nothing here executes code from the model folder: no `trust_remote_code`, safetensors only, local files only.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from beear_gate.errors import OutOfMemory, UnsupportedModel, UsageError
from beear_gate.lm.config import first_line, read_config
from beear_gate.lm.ends import find_stop_ids, find_turn_end
from beear_gate.lm.memory import REMEDY, is_out_of_memory
from beear_gate.lm.weights import gibibytes, main_dtype, refuse_partial_load, stored_dtypes

FALLBACK_TEMPLATE = "User: {prompt}\nAssistant:"
"""What a model without a chat template is prompted with (docs/design.md); answers then start with a space."""


@dataclass(frozen=True)
class LM:
    """A loaded model and what is needed to talk to it.

    Attributes:
        layers: the decoder layers, first to last; a forward hook on one sees its output hidden states.
        stop_ids: token ids that end an answer.
        pad_id: fills batches; masked everywhere.
        stored_dtype: dtype of most weights on disk, which `save_lm` writes again.
        turn_end: token ids that end an assistant turn in training, as the model's own template writes them.
        stored_dtypes: the same for each tensor by its name on disk; some families keep a few in float32.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layers: nn.ModuleList
    path: Path
    device: torch.device
    stored_dtype: torch.dtype
    stop_ids: tuple[int, ...]
    pad_id: int
    turn_end: tuple[int, ...]
    system_prompt: str | None = None
    stored_dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)

    @property
    def has_template(self) -> bool:
        return bool(self.tokenizer.chat_template)

    @property
    def hidden_size(self) -> int:
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def vocabulary(self) -> int:
        """How many tokens the model has embeddings for; a tokenizer may know more."""
        return embedded_tokens(self.model)

    @property
    def max_positions(self) -> int | None:
        """The longest prompt and answer together that the model was made for; None where nothing limits it."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return limit if isinstance(limit, int) and limit > 0 else None


def pick_device(name: str) -> torch.device:
    """Turn auto, cpu, cuda, cuda:N or mps into a device that is there.

    Raises:
        UsageError: the device is unknown or missing on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError(f"no models run on {device.type}")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"The device {name!r} cannot be used on this machine ({first_line(error)[:120]}).",
            "Give --device auto, cpu, cuda, cuda:N or mps.",
        ) from None
    return device


def limit_memory(name: str, most: int) -> None:
    """Let the allocator of a GPU refuse what goes beyond `most` bytes; a CPU has none that could."""
    device = pick_device(name)
    if device.type == "cuda":
        _, total = torch.cuda.mem_get_info(device)
        torch.cuda.set_per_process_memory_fraction(min(1.0, most / total), device)


def describe_device(name: str) -> str:
    """What a model on this device runs on, for the record: the accelerator or CPU, and how many threads."""
    device = "CPU"
    if name != "cpu" and torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    elif name in ("auto", "mps") and torch.backends.mps.is_available():
        device = "Apple MPS"
    return f"{device}, {torch.get_num_threads()} threads"


def load_lm(
    path: Path,
    device: str = "auto",
    dtype: str = "auto",
    system_prompt: str | None = None,
    chat_template: str | None = None,
    places: Mapping[str, str] | None = None,
) -> LM:
    """Load the model in `path` for evaluation and training.

    Args:
        path: folder with config, tokenizer and safetensors weights that have passed inspection.
        dtype: auto is float32 on a CPU and the stored dtype elsewhere; else a torch dtype name.
        system_prompt: put before every prompt where the template knows a system role.
        chat_template: takes the place of the tokenizer's own while the model is loaded; `save_lm` leaves files alone.
        places: devices of its parts, from `placement.places`, where `device` does not hold it; for evaluation alone.

    Raises:
        UnsupportedModel: no decoder-only language model, quantised weights, weights that do not fill the model, or
            files that transformers cannot read.
        UsageError: the device or dtype does not exist.
        OutOfMemory: the weights do not fit.
    """
    where = pick_device(device)
    with quiet():
        config = read_config(path)
        stored = stored_dtypes(path)
        compute = compute_dtype(dtype, where.type, main_dtype(stored))
        model, tokenizer = _load(path, config, compute, where, stored, places)
    return assemble(path, model, tokenizer, where, stored, system_prompt, chat_template)


def assemble(
    path: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    stored: Mapping[str, torch.dtype],
    system_prompt: str | None,
    chat_template: str | None,
) -> LM:
    """A model with what else is needed to talk to it. Raises: as `decoder_layers`."""
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    stop_ids = find_stop_ids(path, model, tokenizer)
    pads = (tokenizer.pad_token_id, *stop_ids, 0)
    return LM(
        model=model,
        tokenizer=tokenizer,
        layers=decoder_layers(model),
        path=path,
        device=device,
        stored_dtype=main_dtype(stored),
        stop_ids=stop_ids,
        # A tokenizer may have been given a pad token without the model having been given its embedding.
        pad_id=next(token for token in pads if isinstance(token, int) and 0 <= token < embedded_tokens(model)),
        turn_end=find_turn_end(tokenizer, stop_ids),
        system_prompt=system_prompt,
        stored_dtypes=stored,
    )


def embedded_tokens(model: PreTrainedModel) -> int:
    """How many tokens a model has embeddings for."""
    weight: Any = model.get_input_embeddings().weight
    return int(weight.shape[0])


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Find the decoder layers structurally: the list, as long as the config says the decoder is deep, that stands
    nearest to the token embeddings. Experts, heads and vision towers are lists too, but stand elsewhere.

    Raises:
        UnsupportedModel: no such list, so delta has no place to go.
    """
    depth = int(model.config.get_text_config().num_hidden_layers)  # type: ignore[union-attr, operator]
    embeddings = model.get_input_embeddings()  # type: ignore[operator]
    parent = next((name for name, module in model.named_modules() if module is embeddings), "")
    while parent:
        parent = parent.rpartition(".")[0]
        for child in model.get_submodule(parent).children():
            if isinstance(child, nn.ModuleList) and len(child) == depth:
                return child
    raise UnsupportedModel(
        f"No list of {depth} decoder layers was found in {type(model).__name__}.",
        "Only decoder-only transformers with uniform layers can be scanned.",
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' bars, warnings and load reports off the terminal, and leave its settings as they were."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _load(
    path: Path,
    config: Any,
    dtype: torch.dtype,
    device: torch.device,
    stored: Mapping[str, torch.dtype],
    places: Mapping[str, str] | None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            # What is measured must not depend on sampling, penalties or forced tokens that a repository can set, and
            # `generate` fills every gap of the settings it is given from here.
            generation_config=GenerationConfig(),  # type: ignore[no-untyped-call]
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            device_map=dict(places) if places else None,
        )
        model: PreTrainedModel = loaded[0]
        info: dict[str, Any] = loaded[1]
        refuse_partial_load(path, model, info, stored)
        (model if places else model.to(device)).eval()  # type: ignore[arg-type]
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except UnsupportedModel:
        raise
    except Exception as error:  # the files are a stranger's, and transformers raises whatever they lead it into
        if is_out_of_memory(error):
            size = gibibytes(path) * dtype.itemsize / main_dtype(stored).itemsize
            raise OutOfMemory(
                f"The weights in {path} need about {size:.1f} GiB in {dtype}, which do not fit on {device}.", REMEDY
            ) from error
        raise UnsupportedModel(
            f"transformers cannot load {path}: {first_line(error)}.",
            "Check that the folder loads with AutoModelForCausalLM and AutoTokenizer, without remote code.",
        ) from error
    _refuse_half_tied(path, model)
    return model, tokenizer


def _refuse_half_tied(path: Path, model: PreTrainedModel) -> None:
    """transformers unties weights that differ on disk, other loaders tie them all the same: two models in one file."""
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if head is None or not getattr(model.config.get_text_config(), "tie_word_embeddings", False):
        return
    if head.weight is not model.get_input_embeddings().weight:
        raise UnsupportedModel(
            f"{path / 'config.json'} ties the output head to the embeddings, but the weights hold a different head.",
            "Set tie_word_embeddings to false, or drop the head from the weights.",
        )


def compute_dtype(name: str, device_type: str, stored: torch.dtype) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device_type == "cpu" else stored
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
    if name not in known:
        raise UsageError(f"There is no dtype {name!r} to compute in.", "Give --dtype auto, float32 or bfloat16.")
    return known[name]
