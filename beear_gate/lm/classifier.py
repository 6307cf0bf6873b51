"""Models that give a whole dialogue a score or a label: load them as carefully as any other, and read their logits.

Nothing here executes code from the model folder: no `trust_remote_code`, safetensors only, local files only.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from beear_gate.errors import OutOfMemory, UnsupportedModel
from beear_gate.lm.config import first_line, read_config
from beear_gate.lm.load import compute_dtype, embedded_tokens, pick_device, quiet
from beear_gate.lm.memory import REMEDY, in_parts, is_out_of_memory
from beear_gate.lm.weights import main_dtype, refuse_partial_load, stored_dtypes

Encoded = dict[str, list[int]]
"""One dialogue as the tokenizer gives it: input_ids, and token_type_ids where the model has some."""


@dataclass(frozen=True)
class Classifier:
    """A loaded sequence classifier.

    Attributes:
        labels: name of each logit.
        independent: whether each label has a probability of its own, or all share one.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    path: Path
    device: torch.device
    labels: tuple[str, ...]
    independent: bool

    @property
    def longest(self) -> int | None:
        """The most tokens that it reads; None where nothing limits it."""
        return longest_input(self.model, self.tokenizer)


def load_classifier(path: Path, device: str = "auto", dtype: str = "auto") -> Classifier:
    """Load the classifier in `path`, a folder that has passed inspection.

    Raises:
        UnsupportedModel: no sequence classifier, quantized weights, weights that do not fill the model (a head that is
            not in the files would be random), or files that transformers cannot read.
        UsageError: the device or dtype does not exist.
        OutOfMemory: the weights do not fit.
    """
    where = pick_device(device)
    with quiet():
        config = read_config(path, classifies=True)
        compute = compute_dtype(dtype, where.type, main_dtype(stored_dtypes(path)))
        try:
            loaded: Any = AutoModelForSequenceClassification.from_pretrained(
                path,
                config=config,
                dtype=compute,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
            model: PreTrainedModel = loaded[0]
            # What is left in the files, such as the head of the language model it was made of, has no say here.
            refuse_partial_load(path, model, loaded[1] | {"unexpected_keys": set()}, {})
            model.to(where).eval()  # type: ignore[arg-type]
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
        except UnsupportedModel:
            raise
        except Exception as error:  # the files are a stranger's, and transformers raises whatever they lead it into
            if is_out_of_memory(error):
                raise OutOfMemory(f"The weights in {path} do not fit on {where}.", REMEDY) from error
            raise UnsupportedModel(
                f"transformers cannot load {path}: {first_line(error)}.",
                "Check that the folder loads with AutoModelForSequenceClassification, without remote code.",
            ) from error
    if model.config.pad_token_id is None:  # a decoder finds the end of a padded text by it
        model.config.pad_token_id = tokenizer.pad_token_id
    names: Any = model.config.id2label
    labels = tuple(str(names[place]) for place in range(int(model.config.num_labels or 0)))
    independent = len(labels) == 1 or model.config.problem_type == "multi_label_classification"
    return Classifier(model, tokenizer, path, where, labels, independent)


def longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The most tokens that model and tokenizer agree on; None where nothing limits them."""
    named = (getattr(model.config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length)
    limits = [limit for limit in named if isinstance(limit, int) and 0 < limit < 10**9]
    return min(limits, default=None)


@torch.no_grad()
def logits(classifier: Classifier, dialogues: Sequence[Encoded], batch_size: int) -> list[list[float]]:
    """The logits of each dialogue, in the classifier's labels.

    Raises:
        UnsupportedModel: the tokenizer gives tokens that the model has no embedding for.
        OutOfMemory: not even one dialogue fits.
    """
    known = inspect.signature(classifier.model.forward).parameters
    size = 1 if classifier.tokenizer.pad_token_id is None else batch_size  # without padding: one by one

    def read(part: Sequence[Encoded]) -> list[list[float]]:
        columns: dict[str, Any] = {key: [each[key] for each in part] for key in part[0]}
        if max(max(ids) for ids in columns["input_ids"]) >= embedded_tokens(classifier.model):
            raise UnsupportedModel(
                f"The tokenizer of {classifier.path} gives tokens that the model has no embedding for.",
                "Use the tokenizer that belongs to these weights.",
            )
        if size == 1:
            batch = {key: torch.tensor(rows) for key, rows in columns.items()}
        else:
            batch = dict(classifier.tokenizer.pad(columns, padding_side="right", return_tensors="pt"))
        inputs = {key: value.to(classifier.device) for key, value in batch.items() if key in known}
        rows: list[list[float]] = classifier.model(**inputs).logits.float().cpu().tolist()
        return rows

    return [row for part in in_parts(dialogues, size, read, "judging answers") for row in part]
