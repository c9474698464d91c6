#!/usr/bin/env bash
# A base model becomes one that chats, in the style that is liked, and is served.
#
#   recipes/chat_model.sh [SEED] [FOLDER]
#
# A base model that has read prose (what is on the machine), sft on 1,500 small conversations in two styles, then 400
# preferences for one of them: by DPO, and by plain imitation of the chosen answers. The last line is one JSON object:
# the share of 200 unseen questions that are answered rightly, and in the style that is liked; and what the service says.
set -euo pipefail

seed="${1:-0}"
folder="${2:-chat-$seed}"
here="$(cd "$(dirname "$0")" && pwd)"
mkdir -p "$folder"
cd "$folder"

make() { [ -f "$3" ] || python "$here/chats.py" "$1" --count "$2" --seed "$seed" -o "$3"; }
make demonstrations 1500 demonstrations.jsonl
make preferences 400 preferences.jsonl
make test 200 test.jsonl

common=(--seed "$seed" --rl.max-tokens 48 --no-log.samples)
[ -d data ] || inkling prep builtin:python-prose -o data --vocab-size 512 >&2
[ -d runs/base ] || inkling train data -o runs/base --size 0.8m --context 128 --time 90s --seed "$seed" >&2
[ -d runs/sft ] || inkling tune runs/base demonstrations.jsonl -o runs/sft "${common[@]}" --steps 500 --batch-size 64 \
  --lr 3e-3 >&2
[ -d runs/dpo ] || inkling tune runs/sft preferences.jsonl -o runs/dpo "${common[@]}" --method dpo --steps 40 \
  --batch-size 32 --preference.beta 0.3 --lr 1e-4 >&2
[ -d runs/chosen ] || inkling tune runs/sft preferences.jsonl -o runs/chosen "${common[@]}" --steps 40 --batch-size 32 \
  --lr 1e-4 >&2

python - "$seed" <<'PYTHON'
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request

found = {"seed": int(sys.argv[1])}
for name in ("sft", "dpo", "chosen"):
    for what, reward, temperature in (("right", "exact_answer", "0"), ("style", "format", "1")):
        asked = ["inkling", "sample", f"runs/{name}", "test.jsonl", "--rewards", reward, "--temperature", temperature]
        told = json.loads(subprocess.check_output([*asked, "-n", "48", "--json"], text=True))
        found[f"{name}_{what}"] = round(told["reward"], 4)
service = subprocess.Popen(["inkling", "serve", "runs/dpo", "--port", "8765"], stdout=subprocess.DEVNULL)
body = {"model": "dpo", "messages": [{"role": "user", "content": "Sort 41 7 19."}], "temperature": 0, "max_tokens": 48}
request = urllib.request.Request(
    "http://127.0.0.1:8765/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
)
try:
    for _ in range(100):
        try:
            with urllib.request.urlopen(request) as answer:
                found["served"] = json.load(answer)["choices"][0]["message"]["content"]
            break
        except urllib.error.URLError:
            time.sleep(0.2)
finally:
    service.terminate()
    service.wait()
print(json.dumps(found))
PYTHON
