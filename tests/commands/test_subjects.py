"""A model as what tasks and the harness ask."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from conftest import SMALL_SHAPE, random_checkpoint, words
from inkling import checkpoint, cli
from inkling.commands._subjects import ModelSubject, random_subject
from inkling.eval.subject import Writing
from inkling.infer.generate import generate
from inkling.infer.sampling import SamplingParams
from inkling.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def run(small_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(
        tmp_path_factory.mktemp("asked") / "run", {"model_type": "llama", **SMALL_SHAPE}, small_tokenizer
    )


@pytest.fixture(scope="module")
def subject(run: Path) -> ModelSubject:
    return ModelSubject("", *checkpoint.load_model(run))


def nats_of(run: Path, ids: list[int], count: int) -> float:
    """Of the last `count` tokens, from the whole model at once."""
    model, _ = checkpoint.load_model(run)
    with torch.inference_mode():
        table = model(torch.tensor([ids]))[0, :-1].double().log_softmax(-1)
    return float(table.gather(1, torch.tensor(ids[1:])[:, None])[-count:].sum())


def test_pairs_are_encoded_together(run: Path, subject: ModelSubject, small_tokenizer: Tokenizer) -> None:
    pairs = [("the cat", " sat"), ("the cat", " we read"), ("the cat ", "sat"), ("", "the cat"), ("t", "he cat")]
    found = subject.score(pairs)
    for (first, second), one in zip(pairs, found, strict=True):
        whole = small_tokenizer.encode(first + second)
        count = one.num_tokens
        assert one.nats == pytest.approx(nats_of(run, [small_tokenizer.eot_id, *whole], count), abs=1e-4)
        if first != "t":  # where the border falls into a token, the harness counts tokens as if it did not
            assert small_tokenizer.decode(whole[-count:]).strip() == second.strip()
        assert one.num_bytes == len(second)
    assert found[0].nats == pytest.approx(found[2].nats)  # the space belongs to what follows it


def test_what_is_too_long_keeps_its_end(subject: ModelSubject, small_tokenizer: Tokenizer) -> None:
    long = words(1, 2000).rstrip()
    endings = [" the end", " the cat"]
    assert all(math.isfinite(one.nats) for one in subject.score([(long, ending) for ending in endings]))
    assert subject.cut == {long}  # once, for all its endings
    assert subject.write([long + "."], Writing(5))[0][0] is not None
    assert subject.cut == {long, long + "."}
    ending = " " + words(2, 2000)
    assert math.isfinite(subject.score([("the cat", ending)])[0].nats)
    assert ending in subject.cut


def test_each_token_of_a_text_is_predicted_once(run: Path, subject: ModelSubject, small_tokenizer: Tokenizer) -> None:
    texts = ["the cat sat", words(2, 900), ""]
    context = SMALL_SHAPE["max_position_embeddings"]
    for text, nats in zip(texts, subject.score_texts(texts), strict=True):
        ids = [small_tokenizer.eot_id, *small_tokenizer.encode(text)]
        wanted = 0.0
        for start in range(1, len(ids), context):
            stop = min(start + context, len(ids))
            window = ids[max(0, stop - 1 - context) : stop] if start > 1 else ids[:stop]
            wanted += nats_of(run, window, stop - start)
        assert nats == pytest.approx(wanted, abs=1e-3)


def test_it_writes_what_generation_writes(run: Path, subject: ModelSubject) -> None:
    model, tokenizer = checkpoint.load_model(run)
    (plain,) = subject.write(["the cat"], Writing(8))
    assert plain == ["".join(generate(model, tokenizer, "the cat", SamplingParams(temperature=0, max_tokens=8)))]
    (several,) = subject.write(["the cat"], Writing(8, samples=3, temperature=1.0, seed=5))
    assert len(set(several)) == 3
    assert [several] == subject.write(["the cat"], Writing(8, samples=3, temperature=1.0, seed=5))


def test_questions_by_the_chat_template(run: Path, small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    model, tokenizer = checkpoint.load_model(run)
    assert cli.main(["eval", str(run), "--task", "copying", "--limit", "2", "--chat"]) == 2  # there is none
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}[assistant]:"
    subject = ModelSubject("", model, tokenizer, chat=True)
    parts = ["[user] ", "the cat", " [assistant]:"]  # what people say is encoded by itself
    ids = [tokenizer.eot_id, *(token for part in parts for token in tokenizer.encode(part))]
    params = SamplingParams(temperature=0, max_tokens=8)
    assert subject.write(["the cat"], Writing(8)) == [["".join(generate(model, tokenizer, ids[1:], params))]]
    answer = tokenizer.encode("we read")
    (found,) = subject.score([("the cat", " we read")])
    assert found.nats == pytest.approx(nats_of(run, [*ids, *answer], len(answer)), abs=1e-4)
    random_checkpoint(tmp_path / "chat", {"model_type": "llama", **SMALL_SHAPE}, tokenizer)
    for task, code in (("copying", 0), ("python", 2)):
        assert cli.main(["eval", str(tmp_path / "chat"), "--task", task, "--limit", "2", "--chat"]) == code


def test_random_weights_say_different_things(run: Path) -> None:
    model, tokenizer = checkpoint.load_model(run)
    one, other, again = (random_subject(model, tokenizer, seed) for seed in (0, 1, 0))
    pairs = [("the", " cat"), ("we", " read")]
    assert one.score(pairs) == again.score(pairs)
    assert one.score(pairs) != other.score(pairs)


def test_scores_of_the_harness(run: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from inkling.harness import harness_model

    def requests(kind: str, all_arguments: list[tuple[object, ...]]) -> list[Instance]:
        return [Instance(kind, {}, arguments, n) for n, arguments in enumerate(all_arguments)]

    ours = harness_model(run)
    theirs = HFLM(pretrained=str(run), dtype="float32", device="cpu", batch_size=2, add_bos_token=True)
    asked = requests("loglikelihood", [("the cat", " sat"), ("the cat", " we"), ("we read 12", " and the cat")])
    for one, other in zip(ours.loglikelihood(asked), theirs.loglikelihood(asked, disable_tqdm=True), strict=True):
        assert one[0] == pytest.approx(other[0], abs=1e-4)
        assert one[1] == other[1]
    plain = HFLM(pretrained=str(run), dtype="float32", device="cpu", batch_size=2)
    texts = requests("loglikelihood_rolling", [("the cat sat",), (words(3, 900),)])
    wanted = plain.loglikelihood_rolling(texts, disable_tqdm=True)
    assert ours.loglikelihood_rolling(texts) == pytest.approx(wanted, abs=1e-2)
    until = {"until": ["fell", "\n"], "max_gen_toks": 20}
    openings = ["the cat", "we read 12", "rain", "a mat and the cat sat", "the"]
    given = requests("generate_until", [(opening, dict(until)) for opening in openings])
    written = theirs.generate_until(given, disable_tqdm=True)
    assert max(map(len, written)) > 20
    assert ours.generate_until(given) == written
