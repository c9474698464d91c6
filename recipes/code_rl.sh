#!/usr/bin/env bash
# Reinforcement learning from execution feedback: one-line functions, rewarded when they pass their tests.
#
#   recipes/code_rl.sh [SEED] [FOLDER]
#
# A base model that has read Python (what is on the machine), sft on 150 functions, GRPO on other functions with nothing
# but their tests, run in the sandbox. The last line is one JSON object: the share of unseen functions that pass all of
# their tests, before and after. About a quarter of an hour on two cores.
set -euo pipefail

seed="${1:-0}"
folder="${2:-code_rl-$seed}"
part="${CODE_RL_PART:-test}"
here="$(cd "$(dirname "$0")" && pwd)"
mkdir -p "$folder"
cd "$folder"

make() { [ -f "$3" ] || python "$here/functions.py" "$1" --count "$2" --seed "$seed" -o "$3"; }
make demonstrations 150 demonstrations.jsonl
make prompts 300 prompts.jsonl
make tuning 60 tuning.jsonl
make test 80 test.jsonl

common=(--form plain --seed "$seed" --rl.max-tokens 32 --no-log.samples)
[ -d data ] || inkling prep builtin:python-small -o data --vocab-size 1024 >&2
[ -d runs/base ] || inkling train data -o runs/base --size 3m --context 256 --time 3m --seed "$seed" >&2
[ -d runs/sft ] || inkling tune runs/base demonstrations.jsonl -o runs/sft "${common[@]}" --steps 60 --batch-size 32 \
  --lr 1e-3 >&2
[ -d runs/grpo ] || inkling tune runs/sft prompts.jsonl -o runs/grpo "${common[@]}" --validation tuning.jsonl \
  --method grpo --rl.rewards unit_tests --batch-size 16 --steps 100 --lr 2e-4 --loop.eval-every 20 >&2

python - "$seed" "$part" <<'PYTHON'
import json
import subprocess
import sys

seed, part = sys.argv[1:]
found = {"seed": int(seed), "part": part}
for name in ("base", "sft", "grpo"):
    asked = ["inkling", "sample", f"runs/{name}", f"{part}.jsonl", "--rewards", "unit_tests", "--temperature", "0"]
    told = json.loads(subprocess.check_output([*asked, "--form", "plain", "-n", "32", "--json"], text=True))
    found[name] = round(told["reward"], 4)
    found[f"{name}_interval"] = [round(end, 4) for end in told["interval"]]
print(json.dumps(found))
PYTHON
