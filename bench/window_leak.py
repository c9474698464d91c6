"""What a validation split of overlapping windows measures: a reference system's training summary, with ours beside it.

    python bench/window_leak.py books.txt -o result.json [--steps 1400] [--size 4m] [--lines 1000]

The reference cuts about 200 KB of text (the first thousand lines of four books, three Python files three times over)
into windows one token apart, and keeps one in twenty for validation: nearly all of these have a training window one
token away. Here the same is done with stand-in text and our own model and loss; beside its "validation" stand text of
the same books further on and other Python files, the leak check, and both code suites with their floors.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from inkling import models
from inkling.commands._subjects import ModelSubject, random_subject
from inkling.data.leakage import LEAKED_SHARE, leaked_shares
from inkling.data.loader import windows_of_ids
from inkling.data.shards import ShardInfo, TokenSplit
from inkling.eval import tasks
from inkling.eval.perplexity import bytes_per_token, evaluate
from inkling.eval.subject import Repeated
from inkling.models import LanguageModel
from inkling.sandbox import Sandbox
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.train import train_bpe

BLOCK, BATCH, VOCABULARY = 128, 8, 8000
SENTENCE = "Hello world. This is a test sentence for evaluating perplexity."
"""By which the reference judges its checkpoints."""
SHAPES = {
    "4m": {"hidden_size": 192, "num_hidden_layers": 4, "intermediate_size": 768},
    "27m": {"hidden_size": 512, "num_hidden_layers": 6, "intermediate_size": 2048},
}


def corpus(books: Path, num_lines: int) -> tuple[str, str, str]:
    """The training text with so many lines of each book, unseen text of the same books, and unseen Python."""
    texts = books.read_text(encoding="utf-8").split("<|endoftext|>")
    long = sorted((text for text in texts if text.count("\n") > 3000), key=len)[:4]
    folder = Path(sysconfig.get_paths()["stdlib"])
    code = [(folder / name).read_text(encoding="utf-8") for name in ("heapq.py", "bisect.py", "queue.py")]
    train = "\n".join("\n".join(text.splitlines()[:num_lines]) for text in long) + "\n" + "\n".join(code * 3)
    unseen = "\n".join("\n".join(text.splitlines()[2000:2300]) for text in long)
    other = "\n".join((folder / name).read_text(encoding="utf-8") for name in ("textwrap.py", "calendar.py"))
    return train, unseen, other


def split_of(folder: Path, name: str, pieces: list[np.ndarray]) -> TokenSplit:
    """Pieces of tokens as the split of a data folder, for the leak check."""
    tokens = np.concatenate(pieces).astype("<u2")
    tokens.tofile(folder / f"{name}.bin")
    np.cumsum([len(piece) for piece in pieces]).astype("<u8").tofile(folder / f"{name}.idx")
    return TokenSplit(folder, [ShardInfo(name, len(pieces), len(tokens), 0, "")], np.dtype("<u2"))


def perplexity(model: LanguageModel, tokenizer: Tokenizer, text: str) -> tuple[float, float]:
    """Of text that was never trained on: per token, and bits per byte."""
    ids = np.array([tokenizer.eot_id, *tokenizer.encode(text)])
    lengths = bytes_per_token(tokenizer.token_bytes, model.config.vocab_size)
    score = evaluate(model, windows_of_ids(ids, BLOCK, 32, tokenizer.eot_id), bytes_of_token=lengths)
    return score.perplexity, score.bits_per_byte


@torch.inference_mode()
def leaky_perplexity(model: LanguageModel, windows: np.ndarray) -> float:
    """As the reference measures it: the mean loss of at most 50 batches of its own validation windows."""
    model.eval()
    losses = []
    for start in range(0, min(len(windows), 50 * BATCH), BATCH):
        rows = torch.from_numpy(windows[start : start + BATCH].astype(np.int64))
        losses.append(F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten()).item())
    return math.exp(sum(losses) / len(losses))


def train(
    model: LanguageModel,
    ids: np.ndarray,
    starts: list[int],
    validation: np.ndarray,
    texts: dict[str, str],
    tokenizer: Tokenizer,
    arguments: argparse.Namespace,
) -> list[dict[str, Any]]:
    """The reference's loop over its windows; what its validation says, and what text says that it has not seen."""
    optimizer = torch.optim.AdamW(model.parameters(), arguments.lr, betas=(0.9, 0.95), weight_decay=0.01)
    rows: list[dict[str, Any]] = []
    for step in range(1, arguments.steps + 1):
        model.train()
        optimizer.param_groups[0]["lr"] = arguments.lr * min(1.0, step / 100)
        first = (step * BATCH) % (len(starts) - BATCH)
        windows = np.stack([ids[s : s + BLOCK + 1] for s in starts[first : first + BATCH]]).astype(np.int64)
        batch = torch.from_numpy(windows)
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 200 == 0:
            row: dict[str, Any] = {"step": step, "its_validation": leaky_perplexity(model, validation)}
            row["one_sentence"] = perplexity(model, tokenizer, SENTENCE)[0]
            for name, text in texts.items():
                row[name], row[f"{name}_bits_per_byte"] = perplexity(model, tokenizer, text)
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def leaks(ids: np.ndarray, trained: list[int], held: list[int], texts: list[list[int]]) -> dict[str, list[int]]:
    """How many of the reference's validation windows, and of unseen texts, the leak check finds in training."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        of_training = split_of(folder, "train", [ids[s : s + BLOCK + 1] for s in trained[:: BLOCK // 2]])
        its_own = split_of(folder, "val", [ids[s : s + BLOCK + 1] for s in held[:200]])
        ours = split_of(folder, "unseen", [np.array(text) for text in texts])
        found = {}
        for what, split in (("its_windows", its_own), ("unseen_text", ours)):
            shares = leaked_shares(of_training, split)
            found[f"leaked_{what}"] = [int((shares >= LEAKED_SHARE).sum()), len(shares)]
        return found


def suites(model: LanguageModel, tokenizer: Tokenizer) -> dict[str, Any]:
    """Both code suites: the trained model, random weights, constant answers."""
    found: dict[str, Any] = {}
    with Sandbox() as box:
        options = tasks.Options(sandbox=box)
        for task_name in ("code_suite", "code_suite_fair"):
            task = tasks.load(task_name)
            items = task.read(options)
            subjects = {"trained": ModelSubject("", model.eval(), tokenizer)}
            subjects |= {f"random {seed}": random_subject(model, tokenizer, seed) for seed in range(4)}
            subjects |= {f"always {word!r}": Repeated(word) for word in ("item", " the")}
            found[task_name] = {
                label: {metric: one.value for metric, one in task.grade(items, subject, options).metrics.items()}
                for label, subject in subjects.items()
            }
    return found


def main() -> None:
    """Reads the options, trains, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("books", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--size", choices=sorted(SHAPES), default="4m")
    parser.add_argument("--lines", type=int, default=1000, help="of each book; fewer are known by heart sooner")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    train_text, unseen, other = corpus(arguments.books, arguments.lines)
    tokenizer = train_bpe([train_text], VOCABULARY)
    ids = np.array(tokenizer.encode(train_text))
    starts = list(range(len(ids) - BLOCK))
    random.Random(arguments.seed).shuffle(starts)
    held, chosen = starts[: len(starts) // 20], starts[len(starts) // 20 :]
    module = models.load("llama")
    values = {**SHAPES[arguments.size], "num_attention_heads": 8, "max_position_embeddings": 256}
    model = module.Model(module.Config.from_dict({**values, "model_type": "llama", "vocab_size": tokenizer.vocab_size}))
    model.init_weights(torch.Generator().manual_seed(arguments.seed))
    validation = np.stack([ids[start : start + BLOCK + 1] for start in held])
    started_s = time.perf_counter()
    texts = {"unseen_books": unseen, "unseen_python": other}
    curve = train(model, ids, chosen, validation, texts, tokenizer, arguments)
    found: dict[str, Any] = {
        "seed": arguments.seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": len(ids),
        "seconds": time.perf_counter() - started_s,
        "curve": curve,
        **leaks(ids, chosen, held, [tokenizer.encode(text) for text in texts.values()]),
        **suites(model, tokenizer),
    }
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
