"""onnxruntime as a judge: run as a script with a JOB.json, which says what to ask; see `_elsewhere`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

Past = list[np.ndarray]


class _Runner:
    """The graph, one sequence at a time."""

    def __init__(self, path: str, past_shapes: list[list[int]]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.disable_prepacking", "1")  # which holds all weights twice
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._names = [entry.name for entry in self._session.get_inputs()][2:]
        self._shapes = past_shapes

    def empty(self) -> Past:
        """Before the first token."""
        return [np.zeros(shape, np.float32) for shape in self._shapes]

    def __call__(self, ids: list[int], past: Past) -> tuple[np.ndarray, Past]:
        """Logits after each of `ids`, (T, V), and keys and values of all tokens so far."""
        mask = np.ones((1, past[0].shape[2] + len(ids)), np.int64)
        inputs = {"input_ids": np.array([ids], np.int64), "attention_mask": mask}
        logits, *present = self._session.run(None, {**inputs, **dict(zip(self._names, past, strict=True))})
        return logits[0], present


def main(job_path: Path) -> None:
    """Ask for the prompt at once, for it token by token, and for greedy tokens after it."""
    job = json.loads(job_path.read_text(encoding="utf-8"))
    runner = _Runner(job["model"], job["past_shapes"])
    places = np.array(job["prefix_lengths"]) - 1
    prompt_ids: list[int] = job["prompt_ids"]
    logits, past = runner(prompt_ids, runner.empty())
    greedy: list[int] = []
    new = int(logits[-1].argmax())
    while len(greedy) < job["num_greedy"] and new != job["end_id"]:
        greedy.append(new)
        after, past = runner([new], past)
        new = int(after[-1].argmax())
    past, rows = runner.empty(), []
    for token in prompt_ids:
        after, past = runner([token], past)
        rows.append(after[-1])
    tables = np.stack([_log_softmax(found[places]) for found in (logits, np.stack(rows))])  # (2, P, V)
    np.save(job_path.with_name("log_probabilities.npy"), tables)
    job_path.with_name("answers.json").write_text(json.dumps({"greedy": greedy}), encoding="utf-8")


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    exact = logits.astype(np.float64)
    exact -= exact.max(axis=1, keepdims=True)
    table: np.ndarray = exact - np.log(np.exp(exact).sum(axis=1, keepdims=True))
    return table


if __name__ == "__main__":
    main(Path(sys.argv[1]))
