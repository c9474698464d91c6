#!/usr/bin/env bash
# Character-level Shakespeare, the lowest loss within ten minutes of two CPU cores: first 90 % of the text to train, last
# 10 % to validate, loss over all of the latter in windows of 256.
#
#   recipes/shakespeare_best.sh tinyshakespeare.txt [FOLDER] [SEED]
#
# Trains for eight minutes, everything included less than ten. The last line printed is one JSON object:
# val_nats_per_char, params, train_chars, cpu_seconds, train_seconds, run. A token is a character here, so nats per token
# are nats per character. The architecture is our research one, which no other program opens.
set -euo pipefail
text=${1:?usage: recipes/shakespeare_best.sh FILE [FOLDER] [SEED]}
folder=${2:-runs/shakespeare_best-$(date +%Y%m%d-%H%M%S)}
seed=${3:-1}

inkling prep "$text" -o "$folder/data" --level char --split tail --clean none >&2
python3 - "$folder" "$seed" <<'PYTHON'
import json, resource, subprocess, sys
folder, seed = sys.argv[1:]
context, batch = 256, 16
command = f"inkling train {folder}/data --out {folder}/run --no-resume --json --seed {seed}".split()
command += ["--preset", "shakespeare-best"]
output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
result = json.loads(output.splitlines()[-1])
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "val_nats_per_char": result["validation"]["val_loss"],
    "params": result["params"],
    "train_chars": context * batch * result["steps"],
    "cpu_seconds": usage.ru_utime + usage.ru_stime,
    "train_seconds": result["train_seconds"],
    "run": result["run"],
}))
PYTHON
