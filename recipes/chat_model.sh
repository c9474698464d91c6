#!/usr/bin/env bash
# A base model becomes one that chats, in the style that is liked, and is served.
#
#   recipes/chat_model.sh [SEED] [FOLDER]
#
# A base model that has read prose (what is on the machine), sft on 1,500 small conversations in two styles, then 400
# preferences for one of them: by DPO, and by plain imitation of the chosen answers. The last line is one JSON object:
# the share of 300 unseen questions that are answered rightly, and in the style that is liked; and the same of 20 of them
# answered by the service.
set -euo pipefail

seed="${1:-0}"
folder="${2:-chat-$seed}"
part="${RECIPE_PART:-test}"
here="$(cd "$(dirname "$0")" && pwd)"
mkdir -p "$folder"
cd "$folder"

make() { [ -f "$3" ] || python "$here/chats.py" "$1" --count "$2" --seed "$seed" -o "$3"; }
make demonstrations 1500 demonstrations.jsonl
make preferences 400 preferences.jsonl
make tuning 200 tuning.jsonl
make test 300 test.jsonl

common=(--seed "$seed" --rl.max-tokens 48 --no-log.samples)
[ -d data ] || inkling prep builtin:python-prose -o data --vocab-size 512 >&2
[ -d runs/base ] || inkling train data -o runs/base --size 0.8m --context 128 --steps 300 --batch-size 32 --seed "$seed" \
  --no-log.samples >&2
[ -d runs/sft ] || inkling tune runs/base demonstrations.jsonl -o runs/sft "${common[@]}" --steps 500 --batch-size 64 \
  --lr 3e-3 >&2
[ -d runs/dpo ] || inkling tune runs/sft preferences.jsonl -o runs/dpo "${common[@]}" --method dpo --steps 40 \
  --batch-size 32 --preference.beta 0.3 --lr 1e-4 >&2
[ -d runs/chosen ] || inkling tune runs/sft preferences.jsonl -o runs/chosen "${common[@]}" --steps 40 --batch-size 32 \
  --lr 1e-4 >&2

python "$here/grade.py" "$part.jsonl" sft dpo chosen --form chat --rewards exact_answer --style format -n 48 \
  --seed "$seed" > graded.json
python - <<'PYTHON'
import json
import subprocess
import time
import urllib.error
import urllib.request

from inkling import rewards

found = json.load(open("graded.json"))
rows = [json.loads(line) for line in open("test.jsonl")][:20]
service = subprocess.Popen(["inkling", "serve", "runs/dpo", "--port", "8765"], stdout=subprocess.DEVNULL)


def ask(question: str) -> str:
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 48, "model": "dpo"}
    where, sort = "http://127.0.0.1:8765/v1/chat/completions", {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(where, json.dumps(body).encode(), sort)) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


try:
    for _ in range(100):
        try:
            urllib.request.urlopen("http://127.0.0.1:8765/v1/models").close()
            break
        except urllib.error.URLError:
            time.sleep(0.2)
    answers = [ask(row["prompt"]) for row in rows]
finally:
    service.terminate()
    service.wait()
right = rewards.load("exact_answer")([row["prompt"] for row in rows], answers, rows)
found["served_right"] = sum(right) / len(rows)
found["served"] = f"{rows[0]['prompt']} {answers[0]}"
print(json.dumps(found))
PYTHON
