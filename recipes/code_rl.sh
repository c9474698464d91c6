#!/usr/bin/env bash
# Reinforcement learning from execution feedback: one-line functions, rewarded when they pass their tests.
#
#   recipes/code_rl.sh [SEED] [FOLDER]
#
# A base model that has read Python (what is on the machine), sft on 120 functions, GRPO on other functions with nothing
# but their tests, run in the sandbox. The last line is one JSON object: the share of unseen functions that pass all of
# their tests, before and after. About a quarter of an hour on two cores.
set -euo pipefail

seed="${1:-0}"
folder="${2:-code_rl-$seed}"
part="${RECIPE_PART:-test}"
here="$(cd "$(dirname "$0")" && pwd)"
mkdir -p "$folder"
cd "$folder"

make() { [ -f "$3" ] || python "$here/functions.py" "$1" --count "$2" --seed "$seed" -o "$3"; }
make demonstrations 120 demonstrations.jsonl
make prompts 2000 prompts.jsonl
make tuning 200 tuning.jsonl
make test 300 test.jsonl

common=(--form plain --seed "$seed" --rl.max-tokens 40 --no-log.samples)
[ -d data ] || inkling prep builtin:python-small -o data --vocab-size 1024 >&2
[ -d runs/base ] || inkling train data -o runs/base --size 0.8m --context 128 --steps 250 --batch-size 32 \
  --seed "$seed" --no-log.samples >&2
[ -d runs/sft ] || inkling tune runs/base demonstrations.jsonl -o runs/sft "${common[@]}" --steps 80 --batch-size 32 \
  --lr 1e-3 --rl.rewards unit_tests >&2
[ -d runs/grpo ] || inkling tune runs/sft prompts.jsonl -o runs/grpo "${common[@]}" --validation tuning.jsonl \
  --method grpo --rl.rewards unit_tests --batch-size 32 --steps 60 --lr 2e-4 --loop.eval-every 20 >&2

python "$here/grade.py" "$part.jsonl" base sft grpo --rewards unit_tests -n 40 --seed "$seed"
