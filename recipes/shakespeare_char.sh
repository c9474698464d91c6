#!/usr/bin/env bash
# Character-level Shakespeare: first 90 % of the text to train, last 10 % to validate, loss over all of the latter.
#
#   recipes/shakespeare_char.sh tinyshakespeare.txt [FOLDER] [SEED]
#
# Takes about three minutes of training on two cores. The last line printed is one JSON object:
# val_nats_per_char, params, train_seconds, run. A token is a character here, so nats per token are nats per character.
set -euo pipefail
text=${1:?usage: recipes/shakespeare_char.sh FILE [FOLDER] [SEED]}
folder=${2:-runs/shakespeare_char-$(date +%Y%m%d-%H%M%S)}
seed=${3:-1}

inkling prep "$text" -o "$folder/data" --level char --split tail --clean none >&2
inkling train "$folder/data" --out "$folder/run" --no-resume --preset shakespeare-char --seed "$seed" --json |
    python3 -c '
import json, sys
result = json.loads(sys.stdin.readlines()[-1])
print(json.dumps({
    "val_nats_per_char": result["validation"]["val_loss"],
    "params": result["params"],
    "train_seconds": result["train_seconds"],
    "run": result["run"],
}))'
