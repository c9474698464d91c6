#!/usr/bin/env bash
# Character-level Shakespeare within the budget of nanoGPT's CPU run: 1.54 million training characters, at most 0.82 million
# parameters. First 90 % of the text to train, last 10 % to validate, loss over all of the latter in windows of 256.
#
#   recipes/shakespeare_budget.sh tinyshakespeare.txt [FOLDER] [SEED]
#
# Takes about two minutes of CPU time. The last line printed is one JSON object: val_nats_per_char, params, train_chars,
# cpu_seconds, train_seconds, run. A token is a character here, so nats per token are nats per character.
set -euo pipefail
text=${1:?usage: recipes/shakespeare_budget.sh FILE [FOLDER] [SEED]}
folder=${2:-runs/shakespeare_budget-$(date +%Y%m%d-%H%M%S)}
seed=${3:-1}
context=256 batch=3 steps=2005

inkling prep "$text" -o "$folder/data" --level char --split tail --clean none >&2
python3 - "$folder" "$seed" "$context" "$batch" "$steps" <<'PYTHON'
import json, resource, subprocess, sys
folder, seed, context, batch, steps = sys.argv[1:]
command = f"inkling train {folder}/data --out {folder}/run --no-resume --json --seed {seed} --context {context}".split()
command += f"--batch-size {batch} --steps {steps} --size 0.8m --no-model.tie_word_embeddings".split()
command += "--model.intermediate_size 314 --model.dropout 0 --optimizer muon --muon.lr 0.01".split()
command += "--muon.embedding_lr 0.02 --schedule.cooldown 0.9 --arch speedrun --machine.threads 1 --machine.precision bf16".split()
command += "--machine.micro_batch 3 --machine.compile no --log.eval_tokens 1000000".split()
command += f"--loop.eval_every {steps} --no-log.samples".split()
output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
result = json.loads(output.splitlines()[-1])
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "val_nats_per_char": result["validation"]["val_loss"],
    "params": result["params"],
    "train_chars": int(context) * int(batch) * int(steps),
    "cpu_seconds": usage.ru_utime + usage.ru_stime,
    "train_seconds": result["train_seconds"],
    "run": result["run"],
}))
PYTHON
