"""Generation, against the model run without a cache, and with a model that says what the test wants to hear."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from inkling import models
from inkling.errors import ModelError
from inkling.infer.generate import Completion, generate, generate_batch
from inkling.infer.sampling import SamplingParams
from inkling.infer.stops import StopStrings
from inkling.models import KVCache, LanguageModel
from inkling.tokenizer import Tokenizer

CONTEXT = 48


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """All bytes, and a few longer tokens, one of which ends in half a character."""
    merges = [(b"t", b"h"), (b"th", b"e"), (b" ", b"the"), (b"a", b"\xc3"), (b"E", b"N"), (b"EN", b"D")]
    return Tokenizer.from_merges(merges, pattern="gpt2")


def random_model(architecture: str, tokenizer: Tokenizer, scale: float = 0.3) -> LanguageModel:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes = {"vocab_size": tokenizer.vocab_size + 5, "max_position_embeddings": CONTEXT}
    model = models.from_config({"model_type": architecture, **shape, **sizes})
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_gain = parameter.ndim == 1 and name.endswith("weight")
            parameter.normal_(1.0 if is_gain else 0.0, scale, generator=generator)
    return model.eval()


class Scripted(LanguageModel):
    """Says `script`, whatever it reads: its token i when i tokens are in the cache after the prompt."""

    def __init__(self, script: list[int], num_prompt_tokens: int, vocab_size: int) -> None:
        super().__init__()
        shape = {"hidden_size": vocab_size, "intermediate_size": 1, "num_hidden_layers": 1, "num_attention_heads": 1}
        self.config = models.load("gpt2").Config.from_dict({**shape, "vocab_size": vocab_size})
        self.script = script
        self.num_prompt_tokens = num_prompt_tokens
        self.projection = nn.Linear(vocab_size, vocab_size, bias=False)
        nn.init.eye_(self.projection.weight)

    @property
    def head(self) -> nn.Module:
        return self.projection

    def hidden(self, input_ids: Tensor, *, segment_ids: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        assert cache is not None
        cache.advance(input_ids.shape[1])
        wanted = self.script[cache.length - self.num_prompt_tokens]
        return F.one_hot(torch.full_like(input_ids, wanted), self.config.vocab_size).float() * 20

    def init_weights(self, generator: Generator | None = None) -> None:
        raise NotImplementedError


def say(tokenizer: Tokenizer, script: list[int], **settings: object) -> tuple[list[str], Completion]:
    """The pieces that come out when the model says `script` after the prompt "Q"."""
    model = Scripted(script, 2, tokenizer.vocab_size)
    completion = Completion()
    params = SamplingParams.model_validate({"temperature": 0, "max_tokens": len(script), **settings})
    return list(generate(model, tokenizer, "Q", params, completion)), completion


@torch.no_grad()
def without_cache(model: LanguageModel, tokenizer: Tokenizer, prompt: str, num_tokens: int) -> list[int]:
    """Greedy tokens, the whole text computed anew for each."""
    ids = [tokenizer.eot_id, *tokenizer.encode(prompt)]
    num_prompt = len(ids)
    for _ in range(num_tokens):
        ids.append(int(model(torch.tensor([ids]))[0, -1, : tokenizer.vocab_size].argmax()))
    return ids[num_prompt:]


@pytest.mark.parametrize("name", models.names())
def test_greedy_text_is_that_of_the_model_without_cache(name: str, tokenizer: Tokenizer) -> None:
    model, completion = random_model(name, tokenizer), Completion()
    params = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    text = "".join(generate(model, tokenizer, "the end", params, completion))
    expected = without_cache(model, tokenizer, "the end", 20)
    assert len(set(expected)) > 3
    assert completion.token_ids == expected
    assert text == completion.text == tokenizer.decode(expected)
    assert (completion.stop_reason, completion.num_prompt_tokens) == ("length", 6)


@pytest.mark.parametrize("name", models.names())
def test_prompts_side_by_side_give_what_each_gives_alone(name: str, tokenizer: Tokenizer) -> None:
    model = random_model(name, tokenizer, scale=0.25)
    prompts = ["the", "", "a longer prompt with the words", "é", "x" * (CONTEXT - 6)]
    params = SamplingParams(temperature=1.0, seed=5, max_tokens=25, repetition_penalty=1.1, stop=["END"])
    together = generate_batch(model, tokenizer, prompts, params)
    for prompt, completion in zip(prompts, together, strict=True):
        alone = Completion()
        "".join(generate(model, tokenizer, prompt, params, alone))
        assert completion == alone
    assert [len(completion.token_ids) for completion in together][-1] == 5
    assert len({tuple(completion.token_ids) for completion in together}) == len(prompts)


def test_no_prompts_give_no_completions(tokenizer: Tokenizer) -> None:
    assert generate_batch(random_model("qwen3", tokenizer), tokenizer, [], SamplingParams()) == []


def test_the_same_seed_gives_the_same_text_and_another_another(tokenizer: Tokenizer) -> None:
    model = random_model("qwen3", tokenizer)

    def write(seed: int | None) -> Completion:
        completion = Completion()
        params = SamplingParams(seed=seed, temperature=1.5, max_tokens=30, ignore_eos=True)
        "".join(generate(model, tokenizer, "the", params, completion))
        return completion

    assert write(1).token_ids == write(1).token_ids
    assert write(1).token_ids != write(2).token_ids
    unseeded = write(None)
    assert write(unseeded.seed).token_ids == unseeded.token_ids


def test_pieces_are_whole_characters(tokenizer: Tokenizer) -> None:
    text = "aé 🦆 the thé"
    script = tokenizer.encode(text)
    pieces, completion = say(tokenizer, script)
    assert any(len(tokenizer.token_bytes[token]) < 2 for token in script)
    assert all(pieces)
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    assert "".join(pieces) == completion.text == text


def test_a_character_cut_by_the_limit_ends_as_a_replacement_character(tokenizer: Tokenizer) -> None:
    script = tokenizer.encode("ab🦆")[:-1]
    assert "".join(say(tokenizer, script)[0]) == "ab\N{REPLACEMENT CHARACTER}"


def test_the_end_of_text_token_ends(tokenizer: Tokenizer) -> None:
    script = [*tokenizer.encode("the"), tokenizer.eot_id, *tokenizer.encode("more")]
    pieces, completion = say(tokenizer, script)
    assert ("".join(pieces), completion.stop_reason) == ("the", "stop")
    assert completion.token_ids == script[: script.index(tokenizer.eot_id) + 1]
    pieces, completion = say(tokenizer, script, ignore_eos=True)
    assert ("".join(pieces), completion.stop_reason) == ("themore", "length")


def test_a_stop_string_is_found_across_tokens_and_never_shown(tokenizer: Tokenizer) -> None:
    script = tokenizer.encode("one\nUsers are\nUser: two")
    pieces, completion = say(tokenizer, script, stop=["\nUser:", "zzz"])
    assert ("".join(pieces), completion.stop_reason) == ("one\nUsers are", "stop")
    assert len(completion.token_ids) < len(script)


def test_text_held_back_for_a_stop_string_comes_out_at_the_end(tokenizer: Tokenizer) -> None:
    script = tokenizer.encode("go to the EN")
    pieces, completion = say(tokenizer, script, stop=["END"])
    assert ("".join(pieces), completion.stop_reason) == ("go to the EN", "length")
    pieces, completion = say(tokenizer, [*script, tokenizer.eot_id], stop=["END"])
    assert ("".join(pieces), completion.stop_reason) == ("go to the EN", "stop")


def test_stop_strings_in_every_cutting_of_a_text() -> None:
    text = "aabaabaac"
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            stops = StopStrings(["aabaac", "baab!"])
            shown = ""
            for piece in (text[:first], text[first:second], text[second:]):
                shown += stops.push(piece)
                if stops.found:
                    break
            assert (shown, stops.found) == ("aab", True)


def test_ids_past_the_tokenizer_are_never_drawn(tokenizer: Tokenizer) -> None:
    model = random_model("llama", tokenizer)
    with torch.no_grad():
        model.head_weight[tokenizer.vocab_size :] *= 100
    completion = Completion()
    "".join(generate(model, tokenizer, "the", SamplingParams(max_tokens=20, seed=0, ignore_eos=True), completion))
    assert max(completion.token_ids) < tokenizer.vocab_size


def test_writing_stops_where_the_context_is_full(tokenizer: Tokenizer) -> None:
    completion = Completion()
    params = SamplingParams(max_tokens=1000, seed=0, ignore_eos=True)
    "".join(generate(random_model("gpt2", tokenizer), tokenizer, "hello", params, completion))
    assert completion.stop_reason == "length"
    assert completion.num_prompt_tokens + len(completion.token_ids) == CONTEXT


def test_a_prompt_longer_than_the_context_names_both_lengths(tokenizer: Tokenizer) -> None:
    model = random_model("qwen3", tokenizer)
    with pytest.raises(ModelError, match=f"101 tokens, the model's context only {CONTEXT}"):
        generate(model, tokenizer, "x" * 100, SamplingParams())
    with pytest.raises(ModelError, match="context"):
        generate_batch(model, tokenizer, ["fine", "x" * 100], SamplingParams())


@pytest.mark.parametrize(("max_tokens", "num_kept"), [(10, CONTEXT - 10), (1000, CONTEXT // 2)])
def test_a_long_prompt_can_be_cut_to_its_end(tokenizer: Tokenizer, max_tokens: int, num_kept: int) -> None:
    model = random_model("qwen3", tokenizer)
    prompt = "".join(chr(ord("A") + i % 26) for i in range(100))
    params = SamplingParams(truncate_prompt=True, max_tokens=max_tokens, seed=3, ignore_eos=True)
    completion, same = Completion(), Completion()
    "".join(generate(model, tokenizer, prompt, params, completion))
    assert completion.num_prompt_tokens == num_kept
    "".join(generate(model, tokenizer, prompt[-(num_kept - 1) :], params, same))
    assert completion == same
