# SPDX-License-Identifier: Apache-2.0
"""What people do with OpenAI's own Python client, against a gateway: openai_client.py URL MODEL
[SCENARIO...]. Ends with 77 where the client is not installed (openai_client.txt says which one and
how). For cases_gateway.py; each scenario is a function, all run, failures are told at the end."""
import asyncio
import json
import sys
import traceback
from typing import Literal

WANTED = "3.54.0"
try:
    import openai
    import pydantic
except ImportError:
    print("the package openai is not installed")
    sys.exit(77)
if openai.__version__ != WANTED:
    print(f"openai is {openai.__version__}, not {WANTED}")
    sys.exit(77)

SCENARIOS = []
HI = [{"role": "system", "content": "You are terse."}, {"role": "user", "content": "Say hi."}]


def scenario(function):
    SCENARIOS.append(function)
    return function


@scenario
def models(client, model):
    assert model in [m.id for m in client.models.list()]
    assert client.models.retrieve(model).object == "model"


@scenario
def chat(client, model):
    answer = client.chat.completions.create(model=model, messages=HI, max_tokens=8, temperature=0)
    assert answer.choices[0].message.content and answer.choices[0].message.role == "assistant"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.choices[0].finish_reason in ("stop", "length")


@scenario
def chat_is_repeatable(client, model):
    asked = {"model": model, "messages": HI, "max_tokens": 12, "seed": 7, "temperature": 0.8}
    texts = {client.chat.completions.create(**asked).choices[0].message.content for _ in range(2)}
    assert len(texts) == 1, texts


@scenario
def stop_strings(client, model):
    asked = {"model": model, "messages": HI, "max_tokens": 24, "temperature": 0}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    word = whole.split()[1]
    cut = client.chat.completions.create(stop=[word, "never said"], **asked).choices[0]
    assert cut.finish_reason == "stop" and cut.message.content == whole[:whole.index(word)], cut
    text = "".join(c.choices[0].delta.content or "" for c in
                   client.chat.completions.create(stop=word, stream=True, **asked))
    assert text == cut.message.content, text


@scenario
def logprobs(client, model):
    asked = {"model": model, "messages": HI, "max_tokens": 6, "temperature": 0, "logprobs": True,
             "top_logprobs": 3}
    choice = client.chat.completions.create(**asked).choices[0]
    tokens = choice.logprobs.content
    assert "".join(t.token for t in tokens).startswith(choice.message.content), tokens
    assert all(len(t.top_logprobs) == 3 and t.logprob <= 0 for t in tokens)
    assert all(abs(t.top_logprobs[0].logprob - t.logprob) < 1e-3 for t in tokens), "greedy"
    streamed = [t for c in client.chat.completions.create(stream=True, **asked)
                if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    assert [t.token for t in streamed] == [t.token for t in tokens]
    old = client.completions.create(model=model, prompt="One two", max_tokens=4, logprobs=2)
    assert len(old.choices[0].logprobs.tokens) == len(old.choices[0].logprobs.text_offset)


@scenario
def penalties(client, model):
    asked = {"model": model, "prompt": "la la la la la la", "max_tokens": 32, "temperature": 0}
    plain = client.completions.create(**asked).choices[0].text
    for other in ({"frequency_penalty": 2}, {"extra_body": {"repetition_penalty": 1.8}}):
        assert client.completions.create(**asked, **other).choices[0].text != plain, plain


@scenario
def several_choices(client, model):
    answer = client.chat.completions.create(model=model, messages=HI, max_tokens=8, n=3,
                                            temperature=1.5, seed=1)
    assert [c.index for c in answer.choices] == [0, 1, 2]
    assert len({c.message.content for c in answer.choices}) > 1


@scenario
def stream(client, model):
    whole = client.chat.completions.create(model=model, messages=HI, max_tokens=12, temperature=0)
    text, finish, usage = "", None, None
    for chunk in client.chat.completions.create(model=model, messages=HI, max_tokens=12,
                                                temperature=0, stream=True,
                                                stream_options={"include_usage": True}):
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
            finish = chunk.choices[0].finish_reason or finish
        usage = chunk.usage or usage
    assert text == whole.choices[0].message.content, text
    assert finish == whole.choices[0].finish_reason and usage == whole.usage


@scenario
def stream_helper(client, model):
    with client.chat.completions.stream(model=model, messages=HI, max_tokens=8) as events:
        kinds = {event.type for event in events}
        final = events.current_completion_snapshot  # the final one refuses what max_tokens cut
    assert {"chunk", "content.delta"} <= kinds, kinds
    assert final.choices[0].message.content


@scenario
def stream_left_early(client, model):
    for _ in range(3):
        with client.chat.completions.create(model=model, messages=HI, max_tokens=400,
                                            stream=True) as events:
            next(iter(events))
    chat(client, model)


@scenario
def completions(client, model):
    answer = client.completions.create(model=model, prompt=["One two", "A b"], max_tokens=4,
                                       echo=True)
    assert answer.choices[0].text.startswith("One two") and len(answer.choices) == 2
    text = "".join(c.choices[0].text for c in client.completions.create(
        model=model, prompt="One two", max_tokens=4, stream=True) if c.choices)
    assert text


@scenario
def responses(client, model):
    answer = client.responses.create(model=model, input="Say hi.", instructions="Be terse.",
                                     max_output_tokens=8)
    assert answer.output_text and answer.status in ("completed", "incomplete")
    assert answer.usage.output_tokens > 0


@scenario
def responses_stream(client, model):
    text, last = "", None
    for event in client.responses.create(model=model, input=HI, max_output_tokens=8, stream=True):
        text += event.delta if event.type == "response.output_text.delta" else ""
        last = event
    assert last.type in ("response.completed", "response.incomplete"), last
    assert last.response.output_text == text


@scenario
def embeddings(client, model):
    texts = [f"Sentence {n}." for n in range(40)]
    answer = client.embeddings.create(model=model, input=texts)  # base64 on the wire
    plain = client.embeddings.create(model=model, input=texts[7], encoding_format="float")
    assert [e.index for e in answer.data] == list(range(40))
    ours, alone = answer.data[7].embedding, plain.data[0].embedding
    assert len(ours) == len(alone) > 0
    assert sum(a * b for a, b in zip(ours, alone)) > 0.999, "not the same vector"
    assert abs(sum(a * a for a in ours) - 1) < 1e-3, "not of length 1"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens > 40


def as_schema(schema):
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}


@scenario
def json_object(client, model):
    answer = client.chat.completions.create(model=model, messages=HI, max_tokens=32,
                                            response_format={"type": "json_object"})
    assert isinstance(json.loads(answer.choices[0].message.content), dict), answer


@scenario
def parsed(client, model):
    class Pet(pydantic.BaseModel):
        kind: Literal["cat", "dog"]
        age: int

    class Person(pydantic.BaseModel):
        name: str
        nick: str | None
        pets: list[Pet]
    for seed in range(3):
        answer = client.chat.completions.parse(model=model, messages=HI, max_tokens=90, seed=seed,
                                               temperature=1.5, response_format=Person)
        assert isinstance(answer.choices[0].message.parsed, Person), answer
    answer = client.responses.parse(model=model, input=HI, max_output_tokens=90, text_format=Person)
    assert isinstance(answer.output_parsed, Person), answer


WEATHER = {"type": "function", "function": {
    "name": "weather", "description": "The weather of a city.", "parameters": {
        "type": "object", "required": ["city", "unit"], "additionalProperties": False,
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}}}}}


@scenario
def tools(client, model):
    asked = {"model": model, "messages": [{"role": "user", "content": "How warm is Paris?"}],
             "max_tokens": 64, "tools": [WEATHER]}
    named = {"type": "function", "function": {"name": "weather"}}
    for choice in ("required", named):
        answer = client.chat.completions.create(tool_choice=choice, **asked).choices[0]
        call = answer.message.tool_calls[0]
        arguments = json.loads(call.function.arguments)
        assert answer.finish_reason == "tool_calls" and call.function.name == "weather", answer
        assert set(arguments) == {"city", "unit"} and arguments["unit"] in "CF", arguments
    result = {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}
    asked["messages"] += [answer.message, result]
    for choice in ("auto", "none"):
        answer = client.chat.completions.create(tool_choice=choice, **asked).choices[0]
        assert answer.message.content or answer.message.tool_calls, answer


@scenario
def tools_stream(client, model):
    with client.chat.completions.stream(
            model=model, messages=HI, max_tokens=64, tools=[WEATHER], tool_choice="required",
            parallel_tool_calls=False) as events:
        final = events.get_final_completion()
    call = final.choices[0].message.tool_calls[0]
    assert call.function.name == "weather" and json.loads(call.function.arguments)["unit"] in "CF"
    assert final.choices[0].finish_reason == "tool_calls"


FLAT = {"type": "function"} | WEATHER["function"]


@scenario
def responses_tools(client, model):
    asked = {"model": model, "input": [{"role": "user", "content": "How warm is Paris?"}],
             "max_output_tokens": 64, "tools": [FLAT]}
    for choice in ("required", {"type": "function", "name": "weather"}):
        answer = client.responses.create(tool_choice=choice, **asked)
        call = answer.output[-1]
        arguments = json.loads(call.arguments)
        assert call.type == "function_call" and call.name == "weather", answer
        assert set(arguments) == {"city", "unit"} and answer.status == "completed", arguments
    asked["input"] += [*answer.output, {"type": "function_call_output", "call_id": call.call_id,
                                        "output": "21 degrees"}]
    for choice in ("auto", "none"):
        answer = client.responses.create(tool_choice=choice, **asked)
        assert answer.output_text or answer.output[-1].type == "function_call", answer


@scenario
def responses_tools_stream(client, model):
    pieces, done, items, last = "", None, [], None
    for event in client.responses.create(model=model, input=HI, max_output_tokens=64, tools=[FLAT],
                                         tool_choice="required", parallel_tool_calls=False,
                                         stream=True):
        pieces += event.delta if event.type == "response.function_call_arguments.delta" else ""
        done = event if event.type == "response.function_call_arguments.done" else done
        if event.type == "response.output_item.done":
            items.append(event.item)
        last = event
    assert pieces == done.arguments and json.loads(pieces)["unit"] in "CF", (pieces, done)
    assert last.type == "response.completed" and last.response.output == items, last
    call = items[done.output_index]
    assert call.type == "function_call" and call.id == done.item_id, items


@scenario
def errors(client, model):
    def refused(kind, **asked):
        try:
            client.chat.completions.create(**({"model": model, "messages": HI} | asked))
        except kind as error:
            assert error.body.get("message"), error.body
            return error
        raise AssertionError(f"no {kind.__name__}: {asked}")
    assert refused(openai.NotFoundError, model="nobody-has-it").code == "model_not_found"
    assert refused(openai.BadRequestError, temperature=9).param == "temperature"
    assert refused(openai.BadRequestError, max_tokens=10 ** 7).code == "context_length_exceeded"
    refused(openai.BadRequestError, tools=[{"type": "function", "function": {"name": "f g"}}])
    refused(openai.BadRequestError, response_format=as_schema({"type": "string", "pattern": "a"}))
    refused(openai.UnprocessableEntityError, extra_body={"weft": {"tier": [7, 7]}})
    refused(openai.UnprocessableEntityError, extra_headers={"x-slo-ttft-ms": "1"})


@scenario
def unknown_fields(client, model):
    answer = client.chat.completions.create(model=model, messages=HI, max_tokens=4, user="someone",
                                            metadata={"a": "b"}, store=False,
                                            extra_body={"nobody_knows": [1, 2]})
    assert answer.choices[0].message.content


@scenario
def raw_headers(client, model):
    raw = client.chat.completions.with_raw_response.create(model=model, messages=HI, max_tokens=4)
    assert raw.headers["x-request-id"] and raw.headers["x-weft-node"]
    assert raw.parse().choices[0].message.content


@scenario
def many_at_once(client, model):
    async def run():
        async with openai.AsyncOpenAI(base_url=client.base_url, api_key=client.api_key) as many:
            return await asyncio.gather(*(many.chat.completions.create(
                model=model, messages=HI, max_tokens=4) for _ in range(12)))
    assert len(asyncio.run(run())) == 12


def main():
    client = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none", max_retries=0)
    failed = []
    wanted = [f for f in SCENARIOS if not sys.argv[3:] or f.__name__ in sys.argv[3:]]
    for function in wanted:
        try:
            function(client, sys.argv[2])
        except Exception:  # any failure is one of the scenario
            failed.append(function.__name__)
            print(f"FAILED {function.__name__}\n{traceback.format_exc()}")
    print(f"{len(wanted) - len(failed)} of {len(wanted)} scenarios, openai {WANTED}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
