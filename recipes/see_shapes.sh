#!/usr/bin/env bash
# A model that sees, from nothing: shapes, colours, counts and places in pictures drawn here, and handwritten digits.
#
#   recipes/see_shapes.sh [SEED] [FOLDER]
#
# A small model of text learns what is asked and what is answered, without seeing anything: the floor `text_only`. It is
# given eyes, with which it is `random` at first; they learn alone, the decoder held still, and then all of it learns.
# The last line is one JSON object: the share of held-out questions that are answered rightly, by the likeliest answers.
# Needs scikit-learn. About 14 minutes on two cores.
set -euo pipefail

seed="${1:-0}"
folder="${2:-see_shapes-$seed}"
here="$(cd "$(dirname "$0")" && pwd)"
mkdir -p "$folder"
cd "$folder"

[ -f train.jsonl ] || python "$here/pictures.py" . --seed "$seed"
[ -d data ] || inkling prep text.txt -o data --vocab-size 400 --clean none --near-duplicates ignore >&2
[ -d runs/text ] || inkling train data -o runs/text --steps 150 --batch-size 16 --context 128 --seed "$seed" \
  --model.hidden-size 128 --model.num-hidden-layers 3 --model.num-attention-heads 4 --model.num-key-value-heads 4 \
  --model.head-dim 32 --model.intermediate-size 384 --model.dropout 0 --no-log.samples >&2
common=(--seed "$seed" --no-log.samples --batch-size 64 --val-fraction 0.02)
tune() { # NAME FROM ROWS …: a run, unless it is there
  local name="$1" from="$2" rows="$3"
  shift 3
  [ -d "runs/$name" ] || inkling tune "runs/$from" "$rows" -o "runs/$name" "${common[@]}" "$@" >&2
}
tune text_only text blind.jsonl --steps 200 --lr 2e-3
[ -d runs/eyes ] || inkling grow runs/text_only -o runs/eyes --pictures 32 --patch 8 --vision-width 128 \
  --vision-layers 4 --seed "$seed" >&2
# What begins at random is learnt in far fewer steps with muon: docs/decisions/2026-12-01-muon-in-tuning.md
learn=(--optimizer muon --schedule.warmup-steps 50)
tune sees_a_little eyes train.jsonl --learn eyes --steps 300 "${learn[@]}"
tune sees sees_a_little train.jsonl --steps "${SEE_STEPS:-2000}" "${learn[@]}"

python - "$seed" <<'PYTHON'
import json
import pathlib
import subprocess
import sys

SAMPLE = ["--rewards", "exact_answer", "--temperature", "0", "-n", "12"]


def score(run: str, part: str) -> float:
    asked = ["inkling", "sample", f"runs/{run}", f"{part}.jsonl", *SAMPLE, "--json"]
    return round(json.loads(subprocess.check_output(asked, text=True))["reward"], 4)


def blind_score(run: str, part: str) -> float:
    """The answer to a question is the same for all pictures."""
    rows = [json.loads(line) for line in open(f"{part}.jsonl")]
    pathlib.Path("asked.jsonl").write_text(
        "".join(json.dumps({"question": asked}) + "\n" for asked in sorted({row["question"] for row in rows}))
    )
    pathlib.Path("answered.jsonl").unlink(missing_ok=True)
    command = ["inkling", "sample", f"runs/{run}", "asked.jsonl", "--rewards", "length=0", *SAMPLE[2:]]
    subprocess.run([*command, "-o", "answered.jsonl"], check=True, stdout=subprocess.DEVNULL)
    answers = {row["prompt"]: row["completion"].strip() for row in map(json.loads, open("answered.jsonl"))}
    return round(sum(answers[row["question"]] == row["answer"] for row in rows) / len(rows), 4)


parts = ("shapes", "digits")
found = {"seed": int(sys.argv[1]), **{part: score("sees", part) for part in parts}}
found["text_only"] = {part: blind_score("text_only", part) for part in parts}
found["random"] = {part: score("eyes", part) for part in parts}
print(json.dumps(found))
PYTHON
