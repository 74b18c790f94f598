#!/usr/bin/env python3
"""Talks to a running `lowbit serve` as users do: with the openai package, httpx, and
prometheus_client's parser. Prints one line a check; exits with 1 if one fails.

  pip install openai==3.51.0 httpx prometheus-client jsonschema
  lowbit serve -m SmolLM2-135M-Instruct.Q4_1.gguf --port 8000 &
  tools/compat/openai_client.py --url http://127.0.0.1:8000 [--key KEY]
"""

import argparse
import json
import sys
import threading
import time

import httpx
import jsonschema
import openai
from prometheus_client.parser import text_string_to_metric_families

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 40},
                           "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "languages": {"type": "array", "items": {"type": "string", "maxLength": 20}, "minItems": 1,
                      "maxItems": 3},
        "address": {"anyOf": [{"$ref": "#/$defs/address"}, {"type": "null"}]},
    },
    "required": ["name", "age", "languages", "address"],
    "additionalProperties": False,
    "$defs": {"address": {"type": "object",
                          "properties": {"city": {"type": "string", "maxLength": 20}},
                          "required": ["city"], "additionalProperties": False}},
}
SAY_HELLO = [{"role": "user", "content": "Say hello in one short sentence."}]
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


class Session:
    def __init__(self, url, key):
        self.url, self.key = url.rstrip("/"), key
        self.client = openai.OpenAI(base_url=self.url + "/v1", api_key=key or "none", max_retries=0,
                                    timeout=300)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=300)
        self.model = self.client.models.list().data[0].id


@check
def models(s):
    assert s.client.models.retrieve(s.model).id == s.model
    try:
        s.client.models.retrieve("nobody")
        raise AssertionError("an unknown model was found")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found"


@check
def chat(s):
    answer = s.client.chat.completions.create(model=s.model, messages=SAY_HELLO, temperature=0,
                                              max_completion_tokens=40)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content.strip()
    assert answer.choices[0].finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    again = s.client.chat.completions.create(model=s.model, messages=SAY_HELLO, temperature=0,
                                             max_completion_tokens=40)
    assert again.choices[0].message.content == answer.choices[0].message.content
    assert again.usage.prompt_tokens_details.cached_tokens >= 0


@check
def chat_stream(s):
    arguments = dict(model=s.model, messages=SAY_HELLO, temperature=0, max_completion_tokens=40)
    whole = s.client.chat.completions.create(**arguments)
    text, reason, usage, chunks = "", None, None, 0
    for chunk in s.client.chat.completions.create(**arguments, stream=True,
                                                  stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            chunks += 1
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
    assert text == whole.choices[0].message.content, (text, whole)
    assert reason == whole.choices[0].finish_reason
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert chunks >= usage.completion_tokens // 2  # token by token, not at once
    with s.client.chat.completions.stream(**arguments) as stream:  # the client's own accumulator
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].message.content == text


@check
def chat_parameters(s):
    answer = s.client.chat.completions.create(
        model=s.model, messages=SAY_HELLO, n=3, temperature=1.2, top_p=0.9, seed=7, stop=["\n\n"],
        presence_penalty=0.5, frequency_penalty=0.5, logit_bias={"5": -100}, max_tokens=20,
        logprobs=True, top_logprobs=4, user="me", metadata={"a": "b"},
        extra_body={"min_p": 0.02, "top_k": 50, "repetition_penalty": 1.1, "unknown_field": 1})
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    for choice in answer.choices:
        for entry in choice.logprobs.content:
            assert entry.logprob <= 0 and len(entry.top_logprobs) == 4
            assert entry.top_logprobs[0].logprob >= entry.top_logprobs[-1].logprob
            assert bytes(entry.bytes) or True
    seeded = [s.client.chat.completions.create(model=s.model, messages=SAY_HELLO, seed=11,
                                               max_tokens=20).choices[0].message.content
              for _ in range(2)]
    assert seeded[0] == seeded[1]


@check
def completions(s):
    arguments = dict(model=s.model, prompt="The capital of France is", temperature=0, max_tokens=8)
    whole = s.client.completions.create(**arguments)
    text = "".join(chunk.choices[0].text for chunk in
                   s.client.completions.create(**arguments, stream=True))
    assert text == whole.choices[0].text
    ids = s.http.post("/tokenize", json={"prompt": arguments["prompt"]}).json()["tokens"]
    many = s.client.completions.create(model=s.model, prompt=[ids, ids], temperature=0, max_tokens=8)
    assert [choice.text for choice in many.choices] == [text, text]
    best = s.client.completions.create(model=s.model, prompt="Once", n=1, best_of=3, max_tokens=8)
    assert len(best.choices) == 1


@check
def scoring(s):
    prompt = "Paris is the capital of France."
    answer = s.client.completions.create(model=s.model, prompt=prompt, echo=True, logprobs=1,
                                         max_tokens=0, temperature=0)
    logprobs = answer.choices[0].logprobs
    assert answer.choices[0].text == prompt
    assert logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])
    assert len(logprobs.tokens) == len(logprobs.top_logprobs) == answer.usage.prompt_tokens
    one_more = s.client.completions.create(model=s.model, prompt=prompt, echo=True, logprobs=1,
                                           max_tokens=1, temperature=0)
    for a, b in zip(logprobs.token_logprobs[1:], one_more.choices[0].logprobs.token_logprobs[1:]):
        assert abs(a - b) < 1e-4


@check
def structured_outputs(s):
    for seed in range(5):
        answer = s.client.chat.completions.create(
            model=s.model, seed=seed, max_tokens=200,
            messages=[{"role": "user", "content": "Describe a person as JSON."}],
            response_format={"type": "json_schema",
                             "json_schema": {"name": "person", "schema": PERSON, "strict": True}})
        if answer.choices[0].finish_reason == "length":
            continue
        jsonschema.validate(json.loads(answer.choices[0].message.content), PERSON)
    answer = s.client.chat.completions.create(
        model=s.model, messages=SAY_HELLO, max_tokens=300, seed=1, temperature=0.5,
        response_format={"type": "json_object"})
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)
    for extra, allowed in (({"guided_choice": ["red", "blue"]}, ("red", "blue")),
                           ({"structured_outputs": {"regex": "(yes|no)!"}}, ("yes!", "no!")),
                           ({"guided_grammar": 'root ::= "a" | "b"'}, ("a", "b"))):
        answer = s.client.chat.completions.create(model=s.model, messages=SAY_HELLO, max_tokens=20,
                                                  extra_body=extra)
        assert answer.choices[0].message.content in allowed, answer


@check
def parsed_by_the_client(s):
    import pydantic

    class Answer(pydantic.BaseModel):
        correct: bool
        confidence: int = pydantic.Field(ge=0, le=100)

    answer = s.client.chat.completions.parse(
        model=s.model, messages=[{"role": "user", "content": "Is 2 + 2 = 4?"}], max_tokens=60,
        response_format=Answer)
    assert isinstance(answer.choices[0].message.parsed, Answer)


@check
def tools(s):
    question = [{"role": "user", "content": "What is the weather in Paris?"}]
    arguments = dict(model=s.model, messages=question, tools=[WEATHER], max_tokens=200, temperature=0)
    answer = s.client.chat.completions.create(**arguments, tool_choice="required",
                                              parallel_tool_calls=False)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls", answer
    call = choice.message.tool_calls[0]
    assert call.type == "function" and call.id
    jsonschema.validate(json.loads(call.function.arguments), WEATHER["function"]["parameters"])
    streamed, name = "", ""
    for chunk in s.client.chat.completions.create(
            **arguments, tool_choice={"type": "function", "function": {"name": "get_weather"}},
            stream=True):
        for delta in chunk.choices[0].delta.tool_calls or []:
            name += delta.function.name or ""
            streamed += delta.function.arguments or ""
    assert name == "get_weather"
    jsonschema.validate(json.loads(streamed), WEATHER["function"]["parameters"])
    follow_up = s.client.chat.completions.create(
        model=s.model, max_tokens=20, tools=[WEATHER],
        messages=question + [choice.message.model_dump(exclude_none=True),
                             {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"}])
    assert follow_up.choices[0].message.role == "assistant"
    s.client.chat.completions.create(**arguments)  # auto: whatever it does, it is well-formed


@check
def responses(s):
    answer = s.client.responses.create(model=s.model, input="Say hello.", temperature=0,
                                       instructions="Be brief.", max_output_tokens=30)
    assert answer.output_text.strip()
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    text, kinds = "", []
    for event in s.client.responses.create(model=s.model, input="Say hello.", temperature=0,
                                           instructions="Be brief.", max_output_tokens=30,
                                           stream=True):
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            text += event.delta
    assert text == answer.output_text
    assert kinds[0] == "response.created" and kinds[-1] in ("response.completed",
                                                            "response.incomplete")
    tool = {"type": "function", **WEATHER["function"], "strict": True}
    called = s.client.responses.create(model=s.model, input="Weather in Paris?", tools=[tool],
                                       tool_choice="required", max_output_tokens=200,
                                       parallel_tool_calls=False)
    call = next(item for item in called.output if item.type == "function_call")
    jsonschema.validate(json.loads(call.arguments), WEATHER["function"]["parameters"])
    shaped = s.client.responses.create(
        model=s.model, input="Describe a person.", max_output_tokens=200,
        text={"format": {"type": "json_schema", "name": "person", "schema": PERSON, "strict": True}})
    if shaped.status == "completed":
        jsonschema.validate(json.loads(shaped.output_text), PERSON)
    items = s.client.responses.create(
        model=s.model, max_output_tokens=10,
        input=[{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
               {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
               {"type": "function_call_output", "call_id": "c", "output": "1"}])
    assert items.id.startswith("resp_")


@check
def errors(s):
    for arguments, kind, param in (
            (dict(model="nobody", messages=SAY_HELLO), openai.NotFoundError, "model"),
            (dict(model=s.model, messages=[]), openai.BadRequestError, "messages"),
            (dict(model=s.model, messages=SAY_HELLO, temperature=-1), openai.BadRequestError,
             "temperature"),
            (dict(model=s.model, messages=SAY_HELLO, n=1000), openai.BadRequestError, "n"),
            (dict(model=s.model, messages=SAY_HELLO, max_tokens=10**7), openai.BadRequestError,
             "messages")):
        try:
            s.client.chat.completions.create(**arguments)
            raise AssertionError(f"accepted: {arguments}")
        except kind as error:
            assert error.param == param, error
    if s.key:
        try:
            openai.OpenAI(base_url=s.url + "/v1", api_key="wrong", max_retries=0).models.list()
            raise AssertionError("a wrong key was accepted")
        except openai.AuthenticationError:
            pass


@check
def tokens(s):
    text = "Grüße, 世界! 👋"
    ids = s.http.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()
    assert ids["count"] == len(ids["tokens"])
    assert s.http.post("/detokenize", json={"tokens": ids["tokens"]}).json()["prompt"] == text
    assert s.http.post("/tokenize", json={"messages": SAY_HELLO}).json()["count"] > 5


@check
def metrics(s):
    text = s.http.get("/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for name in ("vllm:num_requests_running", "vllm:num_requests_waiting",
                 "vllm:kv_cache_usage_perc", "vllm:generation_tokens", "vllm:prompt_tokens",
                 "vllm:request_success", "vllm:time_to_first_token_seconds",
                 "vllm:inter_token_latency_seconds", "vllm:e2e_request_latency_seconds",
                 "vllm:request_queue_time_seconds", "vllm:prefix_cache_hits",
                 "vllm:num_preemptions"):
        assert name in families, name
    for family in families.values():
        if family.type != "histogram":
            continue
        buckets = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
        assert buckets == sorted(buckets), family.name


@check
def leaving_early(s):
    """Streams that are abandoned free what they hold."""
    for _ in range(5):
        stream = s.client.chat.completions.create(
            model=s.model, messages=[{"role": "user", "content": "Count to one thousand."}],
            max_tokens=1000, stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
    deadline = time.time() + 20
    while time.time() < deadline:
        families = text_string_to_metric_families(s.http.get("/metrics").text)
        now = {sample.name: sample.value for family in families for sample in family.samples}
        if now["vllm:num_requests_running"] == 0 and now["lowbit:kv_blocks_held"] == 0:
            return
        time.sleep(0.1)
    raise AssertionError("something still runs for clients that are gone")


@check
def many_at_once(s):
    """Answers are the same alone and beside others."""
    arguments = dict(model=s.model, messages=SAY_HELLO, temperature=0.8, seed=3, max_tokens=24)
    alone = s.client.chat.completions.create(**arguments).choices[0].message.content
    found, lock = [], threading.Lock()

    def one(index):
        extra = {} if index % 2 == 0 else {"seed": index}
        content = s.client.chat.completions.create(**{**arguments, **extra}).choices[0].message.content
        with lock:
            found.append((index, content))

    threads = [threading.Thread(target=one, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert all(content == alone for index, content in found if index % 2 == 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--key", default="")
    parser.add_argument("only", nargs="*", help="names of checks")
    options = parser.parse_args()
    session = Session(options.url, options.key)
    failed = 0
    for function in CHECKS:
        if options.only and function.__name__ not in options.only:
            continue
        start = time.time()
        try:
            function(session)
            print(f"ok      {function.__name__} ({time.time() - start:.1f} s)", flush=True)
        except Exception as error:  # noqa: BLE001: every kind counts
            failed += 1
            print(f"FAILED  {function.__name__}: {type(error).__name__}: {error}", flush=True)
    print(f"openai {openai.__version__}: {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
