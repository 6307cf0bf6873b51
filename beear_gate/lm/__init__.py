"""One loaded causal language model of any decoder family: load, encode, generate, save."""

from beear_gate.lm.encode import (
    Batch,
    answer_losses,
    decode,
    encode_answer,
    encode_pairs,
    pad_batch,
    prompt_ids,
)
from beear_gate.lm.generate import generate
from beear_gate.lm.load import LM, decoder_layers, describe_device, load_lm
from beear_gate.lm.save import save_lm
from beear_gate.lm.tensor_changes import TensorComparison, compare_tensors

__all__ = [
    "LM",
    "Batch",
    "TensorComparison",
    "answer_losses",
    "compare_tensors",
    "decode",
    "decoder_layers",
    "describe_device",
    "encode_answer",
    "encode_pairs",
    "generate",
    "load_lm",
    "pad_batch",
    "prompt_ids",
    "save_lm",
]
