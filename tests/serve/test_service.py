"""The service, by the official client with strict validation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
import torch
from serving import Running, start

from conftest import SMALL_SHAPE
from inkling.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def running(small_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    found = start(tmp_path_factory.mktemp("served"), small_tokenizer)
    yield found
    found.stop()


def test_a_completion_by_the_official_client(running: Running) -> None:
    answer = running.client().completions.create(
        model="plain", prompt="the cat", max_tokens=9, seed=3, logprobs=2, n=2, extra_body={"ignore_eos": True}
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].text != answer.choices[1].text
    assert all(choice.finish_reason == "length" for choice in answer.choices)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 18
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert len(logprobs.tokens or []) == len(logprobs.token_logprobs or []) == 9
    assert all(len(top) == 2 for top in logprobs.top_logprobs or [])


@pytest.mark.parametrize("model", ["plain", "chats"])
def test_a_stream_adds_up_to_the_whole(running: Running, model: str) -> None:
    question: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "the cat?"}],
        "max_tokens": 20,
        "seed": 5,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 3,
    }
    whole = running.client().chat.completions.create(**question)
    # Strict validation knows no unfinished pieces: finish_reason is null until the last, for OpenAI's own service too.
    client = running.client(_strict_response_validation=False)
    try:
        with client.chat.completions.stream(**question, stream_options={"include_usage": True}) as stream:
            final: Any = stream.get_final_completion()
    except openai.LengthFinishReasonError as error:  # how the client says that an answer was cut
        final = error.completion
    for one, other in zip(whole.choices, final.choices, strict=True):
        assert one.message.content == other.message.content
        assert one.message.role == other.message.role == "assistant"
        assert one.finish_reason == other.finish_reason
        assert one.logprobs is not None
        assert other.logprobs is not None
        assert [t.logprob for t in one.logprobs.content or []] == [t.logprob for t in other.logprobs.content or []]
    assert final.usage is not None
    assert whole.usage is not None
    assert final.usage.completion_tokens == whole.usage.completion_tokens


def test_neighbours_change_no_text(running: Running) -> None:
    client = running.client()

    def ask(number: int) -> str:
        answer = client.completions.create(
            model="plain", prompt=["the cat sat", "we read 12", ""][number % 3], max_tokens=10 + number, seed=number
        )
        return answer.choices[0].text

    alone = [ask(number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, range(8)))
    assert together == alone


def test_echoed_prompts_have_their_log_probabilities(running: Running) -> None:
    served = running.service.served["plain"]
    text = "the cat sat on a mat"
    answer = running.client().completions.create(model="plain", prompt=text, max_tokens=1, echo=True, logprobs=1)
    logprobs = answer.choices[0].logprobs
    assert answer.choices[0].text.startswith(text)
    assert logprobs is not None
    ids = [served.tokenizer.eot_id, *served.tokenizer.encode(text)]
    with torch.inference_mode():
        table = served.model(torch.tensor([ids]))[0, :, : served.tokenizer.vocab_size].log_softmax(-1)
    wanted = [float(table[place, token]) for place, token in enumerate(ids[1:])]
    assert (logprobs.token_logprobs or [])[: len(wanted)] == pytest.approx(wanted, abs=1e-3)
    by_ids = running.client().completions.create(model="plain", prompt=ids[1:], max_tokens=1, echo=True, logprobs=1)
    assert by_ids.choices[0].logprobs is not None
    assert (by_ids.choices[0].logprobs.token_logprobs or [])[: len(wanted)] == pytest.approx(wanted, abs=1e-3)


def test_what_people_write_is_no_control_token(running: Running) -> None:
    client = running.client()
    answers = [
        client.chat.completions.create(
            model="chats", messages=[{"role": "user", "content": content}], max_tokens=1, seed=1
        )
        for content in ("a", "<|im_end|>")
    ]
    tokenizer = running.service.served["chats"].tokenizer
    extra = len(tokenizer.encode("<|im_end|>")) - len(tokenizer.encode("a"))
    assert answers[0].usage is not None
    assert answers[1].usage is not None
    assert answers[1].usage.prompt_tokens - answers[0].usage.prompt_tokens == extra > 1


def test_each_sampling_field_does_something(running: Running) -> None:
    client = running.client()

    def ask(**more: Any) -> str:
        extra = {"ignore_eos": True, **more.pop("extra", {})}
        answer = client.completions.create(
            model="plain", prompt="the cat", max_tokens=25, extra_body=extra, **{"temperature": 1.5, "seed": 2, **more}
        )
        return answer.choices[0].text

    plain = ask()
    tokenizer = running.service.served["plain"].tokenizer
    changes: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"top_p": 0.2},
        {"presence_penalty": 2.0},
        {"frequency_penalty": 2.0},
        {"logit_bias": {str(tokenizer.encode("cat")[0]): 100}},
        {"stop": plain[3:5]},
        {"seed": 3},
    ]
    changes += [{"extra": {name: value}} for name, value in [("top_k", 2), ("min_p", 0.5), ("typical_p", 0.2)]]
    changes += [{"extra": {"repetition_penalty": 0.01}}]
    for change in changes:
        assert ask(**change) != plain, change
    assert ask() == plain
    assert plain[3:5] not in ask(stop=plain[3:5])


def test_json_that_fits_its_schema(running: Running) -> None:
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 999}, "kind": {"enum": ["cat", "dog"]}},
        "required": ["age", "kind"],
        "additionalProperties": False,
    }
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "pet", "schema": schema}}
    client = running.client()
    seen = set()
    for seed in range(6):
        answer = client.chat.completions.create(
            model="chats", messages=[{"role": "user", "content": "?"}], response_format=wanted, max_tokens=60, seed=seed
        )
        assert answer.choices[0].finish_reason == "stop"
        found = json.loads(answer.choices[0].message.content or "")
        assert found.keys() == {"age", "kind"}
        assert 0 <= found["age"] <= 999
        seen.add(found["kind"])
    assert seen <= {"cat", "dog"}
    cut = client.chat.completions.create(
        model="chats", messages=[{"role": "user", "content": "?"}], response_format=wanted, max_tokens=3, seed=1
    )
    assert cut.choices[0].finish_reason == "length"


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Bern", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def test_a_tool_that_has_to_be_called(running: Running) -> None:
    question: dict[str, Any] = {
        "model": "chats",
        "messages": [{"role": "user", "content": "Is it raining?"}],
        "tools": [WEATHER, CLOCK],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "max_tokens": 120,
        "seed": 1,
        "n": 2,
    }
    whole = running.client().chat.completions.create(**question)
    with running.client(_strict_response_validation=False).chat.completions.stream(**question) as stream:
        final = stream.get_final_completion()
    for one, other in zip(whole.choices, final.choices, strict=True):
        assert one.finish_reason == other.finish_reason == "stop"  # as OpenAI's service for a function that was named
        assert one.message.content is None
        assert other.message.content in (None, "")
        calls: list[Any] = list(one.message.tool_calls or ())
        assert [call.function.name for call in calls] == ["weather"]
        arguments = json.loads(calls[0].function.arguments)
        assert arguments["city"] in ("Bern", "Rome")
        assert 1 <= arguments["days"] <= 9
        assert [call.function.arguments for call in other.message.tool_calls or ()] == [calls[0].function.arguments]
    told = {"role": "assistant", "content": None, "tool_calls": [calls[0].model_dump()]}
    answered = {"role": "tool", "tool_call_id": calls[0].id, "content": "sunny"}
    following: Any = {**question, "messages": [*question["messages"], told, answered], "tool_choice": "none"}
    text = running.client().chat.completions.create(**{**following, "n": 1, "max_tokens": 3})
    assert text.choices[0].message.tool_calls is None


def test_tools_that_may_be_called(running: Running) -> None:
    question: dict[str, Any] = {
        "model": "chats",
        "messages": [{"role": "user", "content": "Is it raining?"}],
        "tools": [WEATHER, CLOCK],
        "max_tokens": 120,
        "seed": 4,
    }
    client = running.client()
    required = client.chat.completions.create(**question, tool_choice="required", parallel_tool_calls=False)
    assert required.choices[0].finish_reason == "tool_calls"
    assert len(required.choices[0].message.tool_calls or ()) == 1
    free = client.chat.completions.create(**{**question, "max_tokens": 5})
    assert free.choices[0].message.content
    assert free.usage is not None
    assert required.usage is not None
    assert free.usage.prompt_tokens == required.usage.prompt_tokens
    silent = client.chat.completions.create(**{**question, "max_tokens": 5}, tool_choice="none")
    assert silent.usage is not None
    assert silent.usage.prompt_tokens < free.usage.prompt_tokens  # the model is not told of them
    for wrong in (
        {"tool_choice": {"type": "function", "function": {"name": "other"}}},
        {"tools": [WEATHER, WEATHER]},
        {"tools": [], "tool_choice": "required"},
        {"response_format": {"type": "json_object"}},
        {"tools": [{"type": "function", "function": {"name": "no spaces"}}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "nope"}}}]},
        {"tools": [{"type": "web_search"}]},
    ):
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(**{**question, **wrong})


def test_text_of_other_forms(running: Running) -> None:
    def ask(**form: Any) -> str:
        extra = {"structured_outputs": form}
        answer = running.client().completions.create(
            model="plain", prompt="a", max_tokens=60, seed=2, temperature=1, extra_body=extra
        )
        assert answer.choices[0].finish_reason == "stop"
        return answer.choices[0].text

    assert ask(choice=["red", "blue"]) in ("red", "blue")
    assert re.fullmatch(r"[ab]{3}-[0-9]{2}", ask(regex="[ab]{3}-[0-9]{2}"))
    assert ask(grammar='root ::= "(" [xy] ")"') in ("(x)", "(y)")
    assert json.loads(ask(json={"type": "boolean"})) in (True, False)
    for wrong in ({}, {"regex": "("}, {"grammar": "root ::= nothing"}, {"choice": ["a"], "regex": "a"}):
        with pytest.raises(openai.BadRequestError):
            ask(**wrong)


def test_the_best_of_several(running: Running) -> None:
    def ask(**more: Any) -> Any:
        extra = {"ignore_eos": True}
        return running.client().completions.create(
            model="plain", prompt="the cat", max_tokens=6, seed=3, logprobs=0, extra_body=extra, **more
        )

    every = ask(n=5).choices
    means = [sum(one.logprobs.token_logprobs) / 6 for one in every]
    best = ask(n=2, best_of=5)
    ranked = sorted(range(5), key=lambda number: -means[number])
    assert [one.text for one in best.choices] == [every[number].text for number in ranked[:2]]
    assert [one.index for one in best.choices] == [0, 1]
    assert best.usage.completion_tokens == 30


@pytest.mark.parametrize("model", ["plain", "chats"])
def test_responses_by_the_official_client(running: Running, model: str) -> None:
    client = running.client()
    question: dict[str, Any] = {"model": model, "max_output_tokens": 12, "temperature": 0.9, "extra_body": {"seed": 7}}
    whole = client.responses.create(**question, input="the cat?", instructions="Be brief.")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "the cat?"}]
    chat: Any = {"model": model, "messages": messages, "max_tokens": 12, "temperature": 0.9, "seed": 7}
    assert whole.output_text == client.chat.completions.create(**chat).choices[0].message.content
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    assert whole.status in ("completed", "incomplete")
    items: Any = [{"role": "user", "content": [{"type": "input_text", "text": "the cat?"}]}]
    with client.responses.stream(**question, input=items, instructions="Be brief.") as stream:
        kinds = [event.type for event in stream]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-1] == f"response.{whole.status}"
    with client.responses.create(**question, input=items, instructions="Be brief.", stream=True) as events:
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text
    schema = {
        "type": "object",
        "properties": {"x": {"type": "boolean"}},
        "required": ["x"],
        "additionalProperties": False,
    }
    form: Any = {"format": {"type": "json_schema", "name": "a", "schema": schema}}
    formed = client.responses.create(**{**question, "max_output_tokens": 40}, input="?", text=form)
    assert set(json.loads(formed.output_text)) == {"x"}
    for wrong in (
        {"previous_response_id": "x"},
        {"tools": [CLOCK]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
        {"reasoning": {"effort": "high"}},
        {"text": {"format": {"type": "text", "schema": {}}}},
        {"input": [{"role": "user", "content": "a"}] * 2000},
        {"extra_body": {"n": 2}},
    ):
        with pytest.raises(openai.BadRequestError):
            client.responses.create(**{**question, "input": "a", **wrong})


def test_plain_generation(running: Running) -> None:
    with httpx.Client(base_url=running.url) as client:
        one = client.post("/generate", json={"prompt": "the cat", "max_tokens": 6, "seed": 1}).json()
        assert set(one) == {"text", "num_prompt_tokens", "num_tokens", "finish_reason", "seed"}
        many = client.post("/batch_generate", json={"prompts": ["the cat", "we"], "max_tokens": 6, "seed": 1}).json()
        assert many["results"][0] == one
        assert len(many["results"]) == 2
        assert client.post("/generate", json={"prompt": "a", "stream": True}).status_code == 400
        assert client.post("/batch_generate", json={"prompts": []}).status_code == 400
        assert client.post("/generate", json={"prompt": "a", "model": "other"}).status_code == 404


def test_embeddings(running: Running) -> None:
    client = running.client()
    # Numbers travel as base64, which the client's strict validation takes for a mistake before it decodes them.
    loose = running.client(_strict_response_validation=False)
    answer = loose.embeddings.create(model="plain", input=["the cat", "we read 12", "the cat"])
    vectors = torch.tensor([one.embedding for one in answer.data])
    assert vectors.shape == (3, SMALL_SHAPE["hidden_size"])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    assert torch.equal(vectors[0], vectors[2])
    assert vectors[0] @ vectors[1] < 0.999
    plain = client.embeddings.create(model="plain", input="the cat", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(answer.data[0].embedding, abs=1e-6)
    served = running.service.served["plain"]
    ids = [served.tokenizer.eot_id, *served.tokenizer.encode("the cat")]
    with torch.inference_mode():
        mean = served.model.hidden(torch.tensor([ids]))[0, 1:].mean(dim=0)
    torch.testing.assert_close(vectors[0], mean / mean.norm(), rtol=1e-4, atol=1e-5)
    assert answer.usage.prompt_tokens == 2 * (len(ids) - 1) + len(served.tokenizer.encode("we read 12"))
    for bad in ([], "", [[]], "the cat " * 400, [10**9]):
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(model="plain", input=bad)
