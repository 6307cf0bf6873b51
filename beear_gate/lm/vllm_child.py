"""Runs under an interpreter that has vLLM: `PYTHON -I vllm_child.py ASKED TOLD`, two JSON files. Knows no beear-gate.

Greedy answers to prompts that come as token ids, so that the words of a prompt are those of the scan.
"""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer what the first file asks, into the second one."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    asked: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    import vllm

    engine = vllm.LLM(
        **asked["engine"],
        skip_tokenizer_init=True,
        trust_remote_code=False,
        load_format="safetensors",
        generation_config="vllm",  # nothing that a repository sets
        seed=0,
    )
    settings = vllm.SamplingParams(
        temperature=0.0, max_tokens=asked["max_new_tokens"], stop_token_ids=asked["stop_ids"], detokenize=False
    )
    prompts = [{"prompt_token_ids": ids} for ids in asked["prompts"]]
    given = engine.generate(prompts, settings, use_tqdm=False)
    answers = [list(each.outputs[0].token_ids) for each in given]
    Path(sys.argv[2]).write_text(json.dumps({"version": vllm.__version__, "answers": answers}), encoding="utf-8")


def _end_with_parent() -> None:
    """Standard input ends when the scan is gone."""
    while os.read(0, 1):
        pass
    os._exit(3)


if __name__ == "__main__":
    main()
