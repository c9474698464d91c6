#!/usr/bin/env bash
# From text to rewards on a task of its own: chains of operations in words, written as a Python expression.
#
#   recipes/op_chain.sh [SEED] [FOLDER]
#
# A base model that has read expressions; sft on 500 demonstrations; then, from prompts with tests alone (their answers
# are run in the sandbox): preferences by naive DPO, by DPO with its default supervised term, plain imitation of the
# right answers of the same pairs, and GRPO. The last line is one JSON object: the share of 300 unseen prompts that each
# answers rightly, without chance. About eight minutes on two cores. Settings were chosen on the `tuning` part.
set -euo pipefail

seed="${1:-0}"
folder="${2:-op_chain-$seed}"
part="${RECIPE_PART:-test}"
here="$(cd "$(dirname "$0")" && pwd)"
mkdir -p "$folder"
cd "$folder"

make() { [ -f "$3" ] || python "$here/op_chain.py" "$1" --count "$2" --seed "$seed" -o "$3"; }
make base 4000 base.jsonl
make demonstrations 500 demonstrations.jsonl
make prompts 2000 prompts.jsonl
make tuning 300 tuning.jsonl
make test 300 test.jsonl

common=(--form plain --seed "$seed" --rl.max-tokens 24 --no-log.samples)
tune() { # NAME FROM ROWS …: a run, unless it is there
  local name="$1" from="$2" rows="$3"
  shift 3
  [ -d "runs/$name" ] || inkling tune "runs/$from" "$rows" -o "runs/$name" "${common[@]}" "$@" >&2
}

[ -d data ] || inkling prep base.jsonl -o data --level char --clean none --near-duplicates ignore >&2
[ -d runs/base ] || inkling train data -o runs/base --steps 200 --batch-size 64 --context 96 --seed "$seed" \
  --model.hidden-size 128 --model.num-hidden-layers 3 --model.num-attention-heads 4 --model.num-key-value-heads 4 \
  --model.head-dim 32 --model.intermediate-size 384 --model.dropout 0 --no-log.samples >&2
tune sft base demonstrations.jsonl --steps 200 --batch-size 64 --lr 3e-3 --val-fraction 0.08

[ -f pairs.jsonl ] || inkling sample runs/sft prompts.jsonl --form plain --rewards unit_tests --samples 8 -n 24 \
  --write pairs --pairs 4 --seed "$seed" -o pairs.jsonl >&2
tune dpo_naive sft pairs.jsonl --method dpo --preference.sft-weight 0 --lr 3e-4 --batch-size 32 --steps 150
tune dpo sft pairs.jsonl --method dpo --preference.beta 0.3 --lr 3e-4 --batch-size 32 --steps 150
tune chosen sft pairs.jsonl --method sft --lr 3e-4 --batch-size 32 --steps 150
tune grpo sft prompts.jsonl --validation tuning.jsonl --method grpo --rl.rewards unit_tests --batch-size 32 \
  --steps 100 --lr 3e-4 --loop.eval-every 25

python "$here/grade.py" "$part.jsonl" base sft dpo_naive dpo chosen grpo --rewards unit_tests -n 24 --seed "$seed"
