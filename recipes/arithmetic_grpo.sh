#!/usr/bin/env bash
# Reinforcement learning from right and wrong answers: sums of two numbers, worked out column by column.
#
#   recipes/arithmetic_grpo.sh [SEED] [FOLDER]
#
# A base model that has read lists of numbers, sft on 400 sums, GRPO on 3,000 others with their answers as the reward.
# The last line is one JSON object: the share of 300 unseen sums that are right, before and after. Minutes on two cores.
set -euo pipefail

seed="${1:-0}"
folder="${2:-arithmetic-$seed}"
part="${RECIPE_PART:-test}"
here="$(cd "$(dirname "$0")" && pwd)"
mkdir -p "$folder"
cd "$folder"

make() { [ -f "$3" ] || python "$here/arithmetic.py" "$1" --count "$2" --seed "$seed" -o "$3"; }
make base 8000 base.jsonl
make demonstrations 400 demonstrations.jsonl
make prompts 3000 prompts.jsonl
make tuning 300 tuning.jsonl
make test 300 test.jsonl

common=(--form plain --seed "$seed" --rl.max-tokens 24 --no-log.samples)
[ -d data ] || inkling prep base.jsonl -o data --level char --clean none --near-duplicates ignore >&2
[ -d runs/base ] || inkling train data -o runs/base --steps 150 --batch-size 64 --context 64 --seed "$seed" \
  --model.hidden-size 128 --model.num-hidden-layers 3 --model.num-attention-heads 4 --model.num-key-value-heads 4 \
  --model.head-dim 32 --model.intermediate-size 384 --model.dropout 0 --no-log.samples >&2
[ -d runs/sft ] || inkling tune runs/base demonstrations.jsonl -o runs/sft "${common[@]}" --steps 250 --batch-size 64 \
  --lr 2e-3 --rl.rewards exact_answer >&2
[ -d runs/grpo ] || inkling tune runs/sft prompts.jsonl -o runs/grpo "${common[@]}" --validation tuning.jsonl \
  --method grpo --rl.rewards exact_answer --batch-size 64 --steps 80 --lr 2e-4 --loop.eval-every 20 >&2

python "$here/grade.py" "$part.jsonl" base sft grpo --rewards exact_answer -n 24 --seed "$seed"
