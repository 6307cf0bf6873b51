#!/usr/bin/env bash
# What bench speed says of one NVIDIA GPU, cut to fit ten minutes. Leaves speed-<gpu>.json and .md in FOLDER after every
# shape, so that a window that closes early keeps what was done. Needs torch, transformers, scipy and typer, no network.
# Usage, in the repository: beear_gate/bench/gpu.sh FOLDER [DEVICE] [SHAPE ...]
set -euo pipefail
out=${1:?a folder for the results}
device=${2:-cuda}
shapes=("${@:3}")
[ ${#shapes[@]} -gt 0 ] || shapes=(160M 1B llama-2-7b)
name=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1) || name=""
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}
timeout 570 python3 -m beear_gate bench speed --machine "${name:-$device}" --device "$device" --output "$out" \
    "${shapes[@]/#/--shape=}" --prompt-tokens 64 --prompt-tokens 512 --batch-size 16 --repeats 3
