"""Models as what tasks ask, and the floors beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from inkling import checkpoint, models
from inkling.commands._hooks import documents
from inkling.data.shards import Dataset
from inkling.errors import InklingError
from inkling.eval.branches import Group, score_groups
from inkling.eval.floors import TrigramModel
from inkling.eval.subject import Likelihood, Ngrams, Writing
from inkling.infer.completing import Completing
from inkling.infer.engine import Engine, EngineLimits
from inkling.infer.sampling import SamplingParams
from inkling.models import LanguageModel
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.chat import chat_ids

_MAX_NGRAM_BYTES = 50 << 20


class ModelSubject:
    """A model that tasks ask. A text begins after an end-of-text token, as in training.

    Args:
        chat: Ask by the tokenizer's chat template: a prompt is what a user says, and what follows it the answer.

    Attributes:
        cut: Texts that did not fit into the context: the ends of prompts and the beginnings of answers were kept.
    """

    def __init__(
        self, name: str, model: LanguageModel, tokenizer: Tokenizer, *, max_sequences: int = 32, chat: bool = False
    ) -> None:
        self.name = name
        self.cut: set[str] = set()
        self._model = model
        self._tokenizer = tokenizer
        self._context = model.config.max_position_embeddings
        self._max_sequences = max_sequences
        self._chat = chat
        self._engine: Engine | None = None

    def write(self, prompts: Sequence[str], how: Writing) -> list[list[str]]:
        """All completions, computed together; each is what it would be alone."""
        if self._engine is None:
            blocks = self._max_sequences * (self._context // 64 + 1)
            limits = EngineLimits(max_sequences=self._max_sequences, num_blocks=blocks)
            self._engine = Engine(self._model, self._tokenizer, limits)
        room = max(1, self._context - max(1, min(how.max_tokens, self._context // 2)) - 1)
        found: list[list[Completing]] = []
        for number, prompt in enumerate(prompts):
            ids = [self._tokenizer.eot_id, *self._end_of(prompt, self._prompt_ids(prompt), room)]
            group = []
            for sample in range(how.samples):
                params = SamplingParams(
                    max_tokens=how.max_tokens,
                    temperature=how.temperature,
                    stop=list(how.stop),
                    seed=how.seed + number * how.samples + sample,
                )
                group.append(Completing(self._model, self._tokenizer, ids, params))
                self._engine.add(group[-1])
            found.append(group)
        while not self._engine.is_idle:
            self._engine.step()
        failure = next((one.failure for group in found for one in group if one.failure), None)
        if failure is not None:
            raise InklingError(failure)
        return [[one.text for one in group] for group in found]

    def _prompt_ids(self, prompt: str) -> list[int]:
        if self._chat:
            return chat_ids(self._tokenizer, [{"role": "user", "content": prompt}])
        return self._tokenizer.encode(prompt)

    def _end_of(self, prompt: str, ids: list[int], room: int) -> list[int]:
        if len(ids) > room:
            self.cut.add(prompt)
        return ids[-room:]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Likelihood]:
        """The likelihood of each second text; what pairs have in common at their beginning is computed once.

        Both texts are encoded together, so that the border is where training would have it, and spaces at the end of
        the first belong to the second, as lm-evaluation-harness has it.
        """
        groups: list[tuple[list[int], list[list[int]]]] = []
        lengths: list[tuple[int, int]] = []
        previous: list[int] | None = None
        for first, second in pairs:
            context, ending = self._encoded_pair(first, second)
            lengths.append((len(second.encode()), len(ending)))
            if context != previous:
                groups.append((context, []))
                previous = context
            groups[-1][1].append(ending)
        scores = score_groups(self._model, [Group(context, endings) for context, endings in groups])
        flat = [one for group in scores for one in group]
        return [Likelihood(one.nats, one.is_greedy, *length) for one, length in zip(flat, lengths, strict=True)]

    def score_texts(self, texts: Sequence[str]) -> list[float]:
        """Nats of each text, negative: each token once, in windows of the whole context.

        The last window reaches back as far as it can, as lm-evaluation-harness has it.
        """
        groups, owners = [], []
        for number, text in enumerate(texts):
            ids = [self._tokenizer.eot_id, *self._tokenizer.encode(text)]
            for start in range(1, len(ids), self._context):
                stop = min(start + self._context, len(ids))
                begin = max(0, stop - 1 - self._context) if start > 1 else 0
                groups.append(Group(ids[begin:start], [ids[start:stop]]))
                owners.append(number)
        found = [0.0] * len(texts)
        for owner, (score,) in zip(owners, score_groups(self._model, groups), strict=True):
            found[owner] += score.nats
        return found

    def _encoded_pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        if self._chat:  # an answer begins with its first word, after the template's own tokens
            context, ending = self._prompt_ids(first), self._tokenizer.encode(second.lstrip(" "))
        else:
            kept = first.rstrip()
            first, second = kept, first[len(kept) :] + second
            whole = self._tokenizer.encode(first + second)
            num_first = len(self._tokenizer.encode(first))
            context, ending = whole[:num_first], whole[num_first:]
            if not ending:  # the border fell inside of a token
                context, ending = whole[:-1], whole[-1:]
        if len(ending) > self._context - 1:
            self.cut.add(second)
            ending = ending[: self._context - 1]
        return [self._tokenizer.eot_id, *self._end_of(first, context, self._context - len(ending))], ending


def subject_of_run(run: Path, model: LanguageModel, tokenizer: Tokenizer, *, chat: bool = False) -> ModelSubject:
    """The model of a run."""
    return ModelSubject(str(run), model, tokenizer, chat=chat)


def random_subject(model: LanguageModel, tokenizer: Tokenizer, seed: int, *, chat: bool = False) -> ModelSubject:
    """A model of the same shape with random weights."""
    module = models.load(model.config.model_type)
    fresh = module.Model(module.Config.from_dict(model.config.to_dict()))
    with torch.no_grad():
        fresh.init_weights(torch.Generator().manual_seed(seed))
        for parameter in fresh.parameters():  # weights that begin at zero would say the same to everything
            if parameter.ndim > 1 and not parameter.any():
                parameter.normal_(0, 0.02, generator=torch.Generator().manual_seed(seed + 1))
    return ModelSubject("random weights of the same shape", fresh.eval().to(model.device), tokenizer, chat=chat)


def ngram_subject(run: Path, tokenizer: Tokenizer) -> Ngrams | None:
    """Byte trigrams of the text that the run was trained on; None where that text is not here."""
    try:
        dataset = Dataset.open(Path(checkpoint.read_run(checkpoint.run_of(run)).data["folder"]))
        dataset.check_tokenizer(tokenizer)
    except (InklingError, KeyError, OSError):
        return None

    def some() -> Iterator[bytes]:
        left = _MAX_NGRAM_BYTES
        for document in documents(dataset.train, tokenizer):
            yield document
            left -= len(document)
            if left < 0:
                return

    return Ngrams(TrigramModel(some()))
