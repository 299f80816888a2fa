# SPDX-License-Identifier: Apache-2.0
"""Programs that speak OpenAI's API, against a gateway: client_tools.py URL MODEL. litellm as a
library, llm and curl as commands. Ends with 77 where they are not installed (client_tools.txt says
which ones and how). For cases_tools.py; each scenario is a function, all run, failures are told at
the end."""
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from importlib import metadata
from pathlib import Path

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # asks nobody else
WANTED = {"litellm": "1.106.2", "llm": "0.32.1"}
for package, version in WANTED.items():
    try:
        found = metadata.version(package)
    except metadata.PackageNotFoundError:
        found = "not there"
    if found != version:
        print(f"{package} is {found}, not {version}")
        sys.exit(77)
if sys.argv[1] == "--installed":
    sys.exit(0)
import litellm  # noqa: E402

litellm.telemetry = False
litellm.suppress_debug_info = True
URL, MODEL = sys.argv[1] + "/v1", sys.argv[2]
SCENARIOS = []
HI = [{"role": "system", "content": "You are terse."}, {"role": "user", "content": "Say hi."}]
ASKED = {"model": f"openai/{MODEL}", "api_base": URL, "api_key": "none", "messages": HI,
         "max_tokens": 12, "temperature": 0, "num_retries": 0, "max_retries": 0}


def scenario(function):
    SCENARIOS.append(function)
    return function


@scenario
def litellm_answer():
    answer = litellm.completion(**ASKED)
    assert answer.choices[0].message.content and answer.choices[0].finish_reason
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@scenario
def litellm_stream():
    whole = litellm.completion(**ASKED)
    chunks = list(litellm.completion(stream=True, stream_options={"include_usage": True}, **ASKED))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content, text
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


@scenario
def litellm_async():
    async def run():
        return await asyncio.gather(*(litellm.acompletion(**ASKED) for _ in range(6)))
    texts = {answer.choices[0].message.content for answer in asyncio.run(run())}
    assert len(texts) == 1 and all(texts), texts


@scenario
def litellm_left_early():
    for _ in range(2):
        stream = litellm.completion(stream=True, **(ASKED | {"max_tokens": 400}))
        next(iter(stream))
        stream.completion_stream.close()
    litellm_answer()


@scenario
def litellm_embedding():
    answer = litellm.embedding(model=f"openai/{MODEL}", input=["one", "two"], api_base=URL,
                               api_key="none", encoding_format="float")
    assert len(answer.data) == 2 and len(answer.data[0]["embedding"]) > 10


@scenario
def litellm_errors():
    def refused(kind, **asked):
        try:
            litellm.completion(**(ASKED | asked))
        except kind:
            return
        raise AssertionError(f"no {kind.__name__}: {asked}")
    refused(litellm.NotFoundError, model="openai/nobody-has-it")
    refused(litellm.BadRequestError, temperature=9)
    refused(litellm.BadRequestError, max_tokens=10 ** 7)


@scenario
def litellm_constraints():
    assert litellm.completion(extra_body={"weft": {"tier": [0, 7]}}, **ASKED).choices
    assert litellm.completion(extra_headers={"x-slo-tpot-ms": "60000"}, **ASKED).choices


def llm(home, *arguments, good=True):
    command = [Path(sys.executable).with_name("llm"), *arguments]
    done = subprocess.run(command, env=os.environ | {"LLM_USER_PATH": home}, capture_output=True,
                          text=True, stdin=subprocess.DEVNULL, timeout=300, check=False)
    assert (done.returncode == 0) == good, (done.stdout, done.stderr)
    return done.stdout if good else done.stderr


@scenario
def llm_command():
    with tempfile.TemporaryDirectory() as home:
        Path(home, "extra-openai-models.yaml").write_text(json.dumps([
            {"model_id": "weft", "model_name": MODEL, "api_base": URL, "api_key_name": "weft"},
            {"model_id": "none", "model_name": "nobody-has-it", "api_base": URL}]),
            encoding="utf-8")
        options = ("-o", "max_tokens", "12", "-o", "temperature", "0", "--key", "none")
        streamed = llm(home, "-m", "weft", *options, "Say hi.")
        whole = llm(home, "-m", "weft", "--no-stream", *options, "Say hi.")
        assert streamed == whole and whole.strip(), (streamed, whole)
        assert llm(home, "-m", "weft", "-c", *options, "And again?").strip(), "a second turn"
        assert "model" in llm(home, "-m", "none", "--key", "none", "hi", good=False).lower()


def curl(path, body, *options):
    done = subprocess.run(["curl", "-sS", "--max-time", "120", "-w", "\n%{http_code}", *options,
                           "-H", "Content-Type: application/json", "-d", json.dumps(body),
                           URL + path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


@scenario
def curl_command():
    if not shutil.which("curl"):
        return
    chat = {"model": MODEL, "messages": HI, "max_tokens": 8, "temperature": 0}
    status, text = curl("/chat/completions", chat)
    whole = json.loads(text)["choices"][0]["message"]["content"]
    assert status == 200 and whole
    status, text = curl("/chat/completions", chat | {"stream": True}, "-N")
    events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    assert status == 200 and events.pop() == "[DONE]"
    pieces = [json.loads(e)["choices"][0]["delta"].get("content") or "" for e in events]
    assert "".join(pieces) == whole, pieces
    status, text = curl("/chat/completions", chat | {"model": "nobody-has-it"})
    assert status == 404 and json.loads(text)["error"]["code"] == "model_not_found"


def main():
    failed = []
    for function in SCENARIOS:
        try:
            function()
        except Exception:  # any failure is one of the scenario
            failed.append(function.__name__)
            print(f"FAILED {function.__name__}\n{traceback.format_exc()}")
    versions = ", ".join(f"{name} {version}" for name, version in WANTED.items())
    print(f"{len(SCENARIOS) - len(failed)} of {len(SCENARIOS)} scenarios, {versions}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
