"""The engine: each completion is what it would be alone, whatever else is computed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import SMALL_SHAPE, random_checkpoint, words
from inkling import checkpoint, peft
from inkling.errors import ModelError
from inkling.infer.blocks import BLOCK, BlockPool
from inkling.infer.completing import Completing
from inkling.infer.engine import Engine, EngineLimits
from inkling.infer.forward import TiledProducts
from inkling.infer.generate import Completion, generate
from inkling.infer.sampling import SamplingParams
from inkling.models import LanguageModel
from inkling.quantize import Quantization, default_formats, quantize_model
from inkling.tokenizer import Tokenizer

SHAPE = {**SMALL_SHAPE, "hidden_size": 128, "intermediate_size": 192, "max_position_embeddings": 512}


@pytest.fixture(scope="module", params=["qwen3", "gpt2", "speedrun", "llama-bf16", "qwen3-int8", "llama-int4"])
def model(
    request: pytest.FixtureRequest, small_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    name, _, how = request.param.partition("-")
    values = {"model_type": name, **SHAPE, **({"num_key_value_heads": 2} if name != "gpt2" else {})}
    folder = random_checkpoint(tmp_path_factory.mktemp(name), values, small_tokenizer)
    found, _ = checkpoint.load_model(folder, dtype=torch.bfloat16 if how == "bf16" else None)
    if how.startswith("int"):
        quantize_model(found, Quantization(default_formats(found, how, 32), 32))
    return found


def requests() -> list[tuple[str, dict[str, Any]]]:
    """Prompts of all lengths, drawn in all ways."""
    text = words(5, 400)
    lengths = [0, 3, 40, 250, 251, 600, 900, 17, 333, 64]
    ways = [{"temperature": 0.0}, {"temperature": 1.0}, {"top_k": 5}, {"top_p": 0.7, "repetition_penalty": 1.2}, {}]
    return [
        (text[:length], {"max_tokens": 4 + 9 * number, "seed": number, "ignore_eos": True, **ways[number % 5]})
        for number, length in enumerate(lengths)
    ]


def completing(
    model: LanguageModel, tokenizer: Tokenizer, prompt: str, settings: dict[str, Any], **more: Any
) -> Completing:
    ids = [tokenizer.eot_id, *tokenizer.encode(prompt)]
    return Completing(model, tokenizer, ids, SamplingParams(**settings), num_top=2, **more)


def finish(engine: Engine) -> Iterator[None]:
    for _ in range(10_000):
        if engine.is_idle:
            return
        engine.step()
        yield
    raise AssertionError("the engine does not come to an end")


def alone(model: LanguageModel, tokenizer: Tokenizer) -> list[Completing]:
    found = []
    for prompt, settings in requests():
        engine = Engine(model, tokenizer)
        found.append(completing(model, tokenizer, prompt, settings))
        engine.add(found[-1])
        assert list(finish(engine))
    return found


@pytest.mark.parametrize(
    "limits",
    [
        EngineLimits(),
        EngineLimits(max_sequences=3, max_step_tokens=100),
        EngineLimits(num_blocks=7),
    ],
    ids=["together", "few", "crowded"],
)
def test_neighbours_change_nothing(model: LanguageModel, limits: EngineLimits, small_tokenizer: Tokenizer) -> None:
    engine = Engine(model, small_tokenizer, limits)
    together = [completing(model, small_tokenizer, prompt, settings) for prompt, settings in requests()]
    for sequence in together:
        engine.add(sequence)
    list(finish(engine))
    assert (engine.num_preempted > 0) == (limits.num_blocks == 7)
    for found, wanted in zip(together, alone(model, small_tokenizer), strict=True):
        assert found.token_ids == wanted.token_ids
        assert found.logprobs == wanted.logprobs  # to the bit
        assert found.text == wanted.text
        assert found.finish_reason == wanted.finish_reason == "length"
    assert engine.pool.num_used == 0


@pytest.mark.parametrize(
    "name", ["gpt2-bf16", "mixtral-bf16", "qwen3_moe-bf16", "qwen3_moe-fp32", "mixtral-int8", "llama-nf4"]
)
def test_neighbours_change_nothing_in_wide_layers(name: str, small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    """In bf16 on processors with AMX, products of layers as wide as this round by the number of rows."""
    kind, _, how = name.partition("-")
    widths = {"hidden_size": 512, "intermediate_size": 1024, "moe_intermediate_size": 512, "num_experts": 4}
    values = {**SHAPE, "model_type": kind, **widths}
    folder = random_checkpoint(tmp_path / "run", values, small_tokenizer)
    model, _ = checkpoint.load_model(folder, dtype=torch.bfloat16 if how == "bf16" else None)
    if how in ("int8", "nf4"):
        quantize_model(model, Quantization(default_formats(model, how, 32), 32))
    asked = [(prompt, {**settings, "max_tokens": 4}) for prompt, settings in requests()[1:6]]
    together = [completing(model, small_tokenizer, *request) for request in asked]
    engine = Engine(model, small_tokenizer)
    for sequence in together:
        engine.add(sequence)
    list(finish(engine))
    for found, request in zip(together, asked, strict=True):
        wanted = completing(model, small_tokenizer, *request)
        engine = Engine(model, small_tokenizer)
        engine.add(wanted)
        list(finish(engine))
        assert found.logprobs == wanted.logprobs


def test_adapters_beside_experts(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Tokens of several requests meet in one expert, each with its own adapter."""
    folder = random_checkpoint(tmp_path / "run", {**SHAPE, "model_type": "mixtral"}, small_tokenizer)
    model, _ = checkpoint.load_model(folder)
    for number, name in enumerate(("one", "two")):
        settings = peft.AdapterSettings(rank=4, targets=["w1", "w2", "q_proj"])
        peft.attach(model, settings, name=name, generator=torch.Generator().manual_seed(number))
    with torch.no_grad():
        for name in ("one", "two"):
            for tensor in peft.adapter_weights(model, name).values():
                tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name))) * 0.2)
    peft.select(model, None)
    names = (None, "one", "two", "one", None)
    asked = [(prompt, {**settings, "max_tokens": 8}) for prompt, settings in requests()[1:6]]
    together = [
        completing(model, small_tokenizer, *request, adapter=name) for request, name in zip(asked, names, strict=True)
    ]
    engine = Engine(model, small_tokenizer)
    for sequence in together:
        engine.add(sequence)
    list(finish(engine))
    for found, name, (prompt, settings) in zip(together, names, asked, strict=True):
        with peft.selected(model, name):
            text = "".join(generate(model, small_tokenizer, prompt, SamplingParams(**settings)))
        assert found.text == text


def test_products_in_tiles() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(3, 50, 64, generator=generator), torch.randn(40, 64, generator=generator)
    for tiles in (TiledProducts(32, filled=False), TiledProducts(64, filled=True)):
        with tiles:
            found = torch.nn.functional.linear(x.bfloat16(), weight.bfloat16(), torch.ones(40).bfloat16())
        torch.testing.assert_close(found.float(), x @ weight.T + 1, atol=0.2, rtol=0.02)


def test_it_writes_what_plain_generation_writes(model: LanguageModel, small_tokenizer: Tokenizer) -> None:
    same = 0
    for wanted, (prompt, settings) in zip(alone(model, small_tokenizer), requests(), strict=True):
        completion = Completion()
        text = "".join(generate(model, small_tokenizer, prompt, SamplingParams(**settings), completion))
        same += text == wanted.text
    # Other shapes, other rounding: a draw may fall on the other side of a border.
    rough = model.dtype == torch.bfloat16 or hasattr(model.head, "matrix")
    assert same >= (4 if rough else 9)


def test_a_known_beginning_is_not_computed_again(model: LanguageModel, small_tokenizer: Tokenizer) -> None:
    engine = Engine(model, small_tokenizer)
    text, settings = words(6, 150), {"max_tokens": 6, "seed": 3}
    found = []
    for ending in ("", "", " and then"):
        found.append(completing(model, small_tokenizer, text + ending, settings))
        engine.add(found[-1])
        list(finish(engine))
    full = (len(found[0].prompt_ids) - 1) // BLOCK * BLOCK
    assert [one.num_cached for one in found[:2]] == [0, full]
    assert found[2].num_cached >= full - BLOCK > 0
    assert found[1].logprobs == found[0].logprobs
    salted = completing(model, small_tokenizer, text, settings, salt=b"another key")
    engine.add(salted)
    list(finish(engine))
    assert salted.num_cached == 0
    assert salted.logprobs == found[0].logprobs


def test_log_probabilities_of_the_prompt(model: LanguageModel, small_tokenizer: Tokenizer) -> None:
    engine = Engine(model, small_tokenizer)
    sequence = completing(model, small_tokenizer, words(7, 90), {"max_tokens": 1}, prompt_logprobs=True)
    engine.add(sequence)
    list(finish(engine))
    ids = torch.tensor([sequence.prompt_ids])
    with torch.inference_mode():
        wanted = model(ids)[0, :, : small_tokenizer.vocab_size].float().log_softmax(-1)
    assert sequence.prompt_logprobs[0].logprob is None
    assert len(sequence.prompt_logprobs) == len(sequence.prompt_ids)
    found = torch.tensor([entry.logprob for entry in sequence.prompt_logprobs[1:]])
    rough = model.dtype == torch.bfloat16 or hasattr(model.head, "matrix")
    torch.testing.assert_close(
        found, wanted[:-1].gather(1, ids[0, 1:, None])[:, 0], rtol=1e-3, atol=0.3 if rough else 1e-3
    )


def test_who_leaves_gives_back_what_he_had(model: LanguageModel, small_tokenizer: Tokenizer) -> None:
    engine = Engine(model, small_tokenizer, EngineLimits(max_sequences=4))
    all_of_them = [completing(model, small_tokenizer, prompt, settings) for prompt, settings in requests()]
    for sequence in all_of_them:
        engine.add(sequence)
    steps = finish(engine)
    next(steps)
    next(steps)
    for sequence in all_of_them[::2]:
        engine.abort(sequence)
    list(steps)
    for number, sequence in enumerate(all_of_them):
        assert sequence.finish_reason in (("aborted", "length") if number % 2 == 0 else ("length",))
    assert engine.pool.num_used == 0
    assert not any(engine.pool._users)


def test_what_cannot_fit_is_refused(model: LanguageModel, small_tokenizer: Tokenizer) -> None:
    engine = Engine(model, small_tokenizer, EngineLimits(num_blocks=1))
    with pytest.raises(ModelError, match="do not fit"):
        engine.add(completing(model, small_tokenizer, "a", {"max_tokens": 100}))


def test_stops_and_minimum_length(model: LanguageModel, small_tokenizer: Tokenizer) -> None:
    engine = Engine(model, small_tokenizer)
    free = completing(model, small_tokenizer, "the", {"max_tokens": 30, "seed": 5, "ignore_eos": True})
    engine.add(free)
    list(finish(engine))
    stop_id = free.token_ids[7]
    first = free.token_ids.index(stop_id)
    stopped = completing(
        model, small_tokenizer, "the", {"max_tokens": 30, "seed": 5, "ignore_eos": True}, stop_ids=[stop_id]
    )
    engine.add(stopped)
    list(finish(engine))
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids == free.token_ids[: first + 1]
    later = completing(
        model, small_tokenizer, "the", {"max_tokens": 30, "seed": 5}, stop_ids=[stop_id], min_tokens=first + 1
    )
    engine.add(later)
    list(finish(engine))
    assert later.token_ids[:first] == free.token_ids[:first]
    assert stop_id not in later.token_ids[: first + 1]


def test_the_pool_prefers_neighbours_and_forgets_the_longest_unused() -> None:
    pool = BlockPool(6)
    first = [pool.take()]
    first.append(pool.take(after=first[-1]))
    other = [pool.take()]
    first.append(pool.take(after=first[-1]))
    assert first == [0, 1, 3]
    assert other == [2]
    ids = list(range(3 * BLOCK + 1))
    pool.publish(ids, [0, 1, 3])
    pool.give_back([0, 1, 3])
    assert pool.num_available == 5
    assert pool.find(ids) == [0, 1, 3]
    pool.give_back([0, 1, 3])
    taken = [pool.take() for _ in range(3)]  # two that were free, then one that was kept
    assert taken[:2] == [4, 5]
    assert taken[2] == 0
    assert pool.find(ids) == []
    assert pool.take() == 1
    assert pool.take() == 3
    assert pool.take() is None


def test_a_prompt_is_cut_as_plain_generation_cuts_it(model: LanguageModel, small_tokenizer: Tokenizer) -> None:
    text, settings = words(8, 3000), {"max_tokens": 3, "truncate_prompt": True, "temperature": 0.0}
    cut = completing(model, small_tokenizer, text, settings)
    completion = Completion()
    "".join(generate(model, small_tokenizer, text, SamplingParams(**settings), completion))
    assert len(cut.prompt_ids) == completion.num_prompt_tokens
    assert cut.prompt_ids[0] == small_tokenizer.eot_id
    assert cut.prompt_ids[1:] == small_tokenizer.encode(text)[-len(cut.prompt_ids) + 1 :]
    with pytest.raises(ModelError, match="8 bits"):
        completing(model, small_tokenizer, "a", {"kv_cache": "int8"})


def test_a_request_that_leaves_no_token_says_so(model: LanguageModel, small_tokenizer: Tokenizer) -> None:
    nothing = {number: float("-inf") for number in range(small_tokenizer.vocab_size)}
    settings = {"max_tokens": 4, "seed": 1}
    refused = completing(model, small_tokenizer, "the cat", settings, logit_bias=nothing)
    beside = completing(model, small_tokenizer, "the cat", settings)
    engine = Engine(model, small_tokenizer)
    for one in (refused, beside):
        engine.add(one)
    for _ in finish(engine):
        pass
    assert refused.failure is not None
    assert "no token is left" in refused.failure
    assert beside.failure is None


def test_siblings_write_what_they_would_alone(model: LanguageModel, small_tokenizer: Tokenizer) -> None:
    """One prompt, computed once: all of its completions, some of which end at once, and others beside them."""
    text = words(5, 400)
    settings = [{"max_tokens": 1 + 11 * number, "seed": number, "ignore_eos": number != 3} for number in range(5)]
    for num_blocks in (256, 12):
        alone = []
        for prompt in (text[:90], text[:700]):
            for one in settings:
                engine = Engine(model, small_tokenizer)
                alone.append(completing(model, small_tokenizer, prompt, one))
                engine.add(alone[-1])
                list(finish(engine))
        engine = Engine(model, small_tokenizer, EngineLimits(max_sequences=4, num_blocks=num_blocks))
        together = []
        for prompt in (text[:90], text[:700]):
            first, *siblings = (completing(model, small_tokenizer, prompt, one) for one in settings)
            together += [first, *siblings]
            engine.add(first, siblings)
        list(finish(engine))
        assert [one.token_ids for one in together] == [one.token_ids for one in alone]
        assert engine.pool.num_used == 0
        assert not engine.waiting


def test_siblings_outlive_the_first(model: LanguageModel, small_tokenizer: Tokenizer) -> None:
    settings = [{"max_tokens": 6, "seed": number, "ignore_eos": True} for number in range(3)]
    first, *siblings = (completing(model, small_tokenizer, "the cat", one) for one in settings)
    engine = Engine(model, small_tokenizer)
    engine.add(first, siblings)
    engine.abort(siblings[0])
    engine.abort(first)
    list(finish(engine))
    assert [len(one.token_ids) for one in (first, *siblings)] == [0, 0, 6]
