"""llama.cpp as a judge: run as a script with a JOB.json, which says what to ask; see `_elsewhere`.

Floats are kept in fp32 wherever llama.cpp lets them be, so that a difference is one of the file and not of the
runtime's short cuts.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

_TIMEOUT_S = 120


def main(job_path: Path) -> None:
    """Ask everything that the job says."""
    import xllamacpp

    job = json.loads(job_path.read_text(encoding="utf-8"))
    server = xllamacpp.Server(_parameters(xllamacpp, job))

    def post(route: str, question: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            server.listening_address + route, json.dumps(question).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found

    answers: dict[str, Any] = {}
    for special in (False, True):
        question: dict[str, Any] = {"add_special": False, "parse_special": special}
        answers["special" if special else "plain"] = [
            post("/tokenize", {"content": text, **question})["tokens"] for text in job["texts"]
        ]
    if job["num_greedy"]:
        question = {
            "prompt": job["prompt_ids"],
            "n_predict": job["num_greedy"],
            "temperature": 0,
            "return_tokens": True,
        }
        answers["greedy"] = post("/completion", {**question, "cache_prompt": False, "samplers": ["temperature"]})[
            "tokens"
        ]
    if job["chat"] is not None:
        answers["chat"] = post("/apply-template", {"messages": job["chat"]})["prompt"]
    table = np.full((len(job["prefix_lengths"]), job["vocab_size"]), -np.inf, np.float32)
    for row, length in enumerate(job["prefix_lengths"]):
        question = {"prompt": job["prompt_ids"][:length], "max_tokens": 1, "temperature": 0, "cache_prompt": False}
        # A token that is whole characters is forced: the probabilities of others are held back with their text.
        question |= {"n_probs": job["vocab_size"], "logit_bias": [[job["whole_token"], 1000]]}
        reply = server.handle_completions(question)
        reply = json.loads(reply) if isinstance(reply, str | bytes) else reply
        for entry in reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            table[row, entry["id"]] = entry["logprob"]
    np.save(job_path.with_name("log_probabilities.npy"), table)
    job_path.with_name("answers.json").write_text(json.dumps(answers), encoding="utf-8")


def _parameters(xllamacpp: Any, job: dict[str, Any]) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = job["model"]
    parameters.n_ctx = job["context"]
    parameters.n_batch = parameters.n_ubatch = 64  # its working memory is for so many tokens at once
    parameters.warmup, parameters.verbosity, parameters.ui = False, 1, False
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = job["num_threads"]
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    return parameters


if __name__ == "__main__":
    main(Path(sys.argv[1]))
