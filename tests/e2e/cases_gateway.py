# SPDX-License-Identifier: Apache-2.0
"""weft-gateway in front of a real mesh, by HTTP as any client speaks it: answers, refusals, ends of
clients, workers, nodes and of itself. http_client.py has the client; see harness.py."""
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path

from harness import MODEL, ROOT, MeshSpec, Skip, case, check, wait_until
from http_client import Stream, chat, content, gateway, sent_whole

ONE = MeshSpec(workers="frankfurt")
TWO = MeshSpec(workers="frankfurt,newyork")
NONE = MeshSpec(nodes=2, workers="none")
NONE_OF_THREE = MeshSpec(nodes=3, workers="none")
CHAT = "/v1/chat/completions"
TOY = "toy"
TOY_MS = 5
READY_S = 30.0
STREAMS = 60  # a toy worker has 64 places
CANCELLED_S = 5.0
IDLE_TICKS = 10  # in two seconds: 5 % of a core


@contextlib.contextmanager
def toy_worker(mesh, node, model=TOY, step_ms=TOY_MS):
    """A runtime that can wait and that writes down when it is cancelled."""
    program = mesh.build_dir / "tests" / "toy_worker"
    if not program.exists():
        raise Skip(f"{program} is not built")
    log = f"{mesh.folder}/{node}/{model}.log"
    tries = []

    def attached():
        if not tries or tries[-1].poll() is not None:
            words = [program, mesh.node(node)["port"], model, str(step_ms), log]
            tries.append(subprocess.Popen(words, stdin=subprocess.DEVNULL,
                                          stderr=subprocess.DEVNULL))
        return mesh.room(node)
    try:
        wait_until(attached, READY_S, "the toy worker is attached")
        wait_until(lambda: mesh.sees_worker("tokyo", node), READY_S, "tokyo knows it")
        yield tries[-1], log
    finally:
        for worker in tries:
            worker.kill()
            worker.wait()


def expect_error(reply, status, code, retry):
    check(reply.status == status, f"expected {status}:", reply)
    check(reply.error.get("code") == code, f"expected {code}:", reply)
    check(reply.headers.get("x-should-retry") == ("true" if retry else "false"), reply)
    check(reply.headers.get("x-request-id"), reply)


@case("gateway/answers", ONE)
def answers(mesh, _quick):
    """Whole and streamed, by three APIs: the text that `weft run` gets."""
    wanted = mesh.ask("Name three colours.", max_tokens=12).json["text"]
    body = chat(MODEL, "Name three colours.", max_tokens=12, temperature=0)
    with gateway(mesh) as g:
        check(g.ask("GET", "/ready").status == 200, "not ready")
        models = g.ask("GET", "/v1/models").json["data"]
        check([m["id"] for m in models] == [MODEL], models)
        check(g.ask("GET", f"/v1/models/{MODEL}").json["id"] == MODEL, "not found by name")
        whole = g.ask("POST", CHAT, body)
        check(whole.status == 200, whole)
        choice = whole.json["choices"][0]
        check(choice["message"]["content"] == wanted, "another text:", choice, wanted)
        check(choice["finish_reason"] in ("length", "stop"), whole)
        check(whole.headers["x-weft-node"] == "frankfurt", whole)
        stream = Stream(g, CHAT, body | {"stream_options": {"include_usage": True}})
        events = list(stream)
        check(stream.done and content(events) == wanted, "another text:", events)
        check(events[0]["choices"][0]["delta"]["role"] == "assistant", events[0])
        check(events[-1]["usage"] == whole.json["usage"], events[-1], whole)
        check("served by frankfurt" in stream.comments[0], stream.comments)
        response = g.ask("POST", "/v1/responses", {"model": MODEL, "input": "Name three colours.",
                                                   "max_output_tokens": 12, "temperature": 0})
        check(response.json["output"][0]["content"][0]["text"] == wanted, response)
        two = g.ask("POST", "/v1/completions", {"model": MODEL, "prompt": ["Once", "The sky"],
                                                "n": 2, "max_tokens": 4, "temperature": 0})
        texts = [c["text"] for c in two.json["choices"]]
        check(len(texts) == 4 and texts[0] == texts[1] and texts[0] != texts[2], two)


@case("gateway/refusals", ONE)
def refusals(mesh, _quick):
    """Each with its status, its code, and whether to ask again; the connection goes on."""
    with gateway(mesh) as g:
        connection = g.connection()

        def post(body, headers=None, path=CHAT):
            return g.ask("POST", path, body, headers, connection)
        hi = chat(MODEL, "hi", max_tokens=4)
        expect_error(post(chat("nobody-has-it", "hi")), 404, "model_not_found", False)
        expect_error(post(hi, {"x-weft-tier": "6-7"}), 422, "no_capable_node", False)
        expect_error(post(hi | {"weft": {"tags": ["hipaa"]}}), 422, "no_capable_node", False)
        expect_error(post(hi, {"x-slo-ttft-ms": "1"}), 422, "budget_infeasible", False)
        expect_error(post(hi | {"max_tokens": 1000000}), 400, "context_length_exceeded", False)
        expect_error(post(hi | {"stream": True, "tools": [{"type": "function"}]}), 400,
                     "invalid_value", False)
        schema = {"type": "json_schema", "json_schema": {"schema": {"pattern": "a"}}}
        reply = post(hi | {"stream": True, "response_format": schema})
        expect_error(reply, 400, "unsupported_schema", False)
        check("`pattern`" in reply.error["message"], "the keyword is not named:", reply)
        expect_error(post(hi, {"x-weft-anything": "1"}), 400, "invalid_value", False)
        expect_error(post("nonsense"), 400, "invalid_value", False)
        expect_error(post("[" * 100), 400, "invalid_value", False)
        expect_error(g.ask("GET", "/nowhere", None, None, connection), 404, "unknown_url", False)
        expect_error(g.ask("DELETE", "/v1/models", None, None, connection), 405,
                     "method_not_allowed", False)
        check(post(hi).status == 200, "not answered after refusals")
        # Too long, with a length or in chunks: read and forgotten, and answered.
        expect_error(post(b" " * (17 << 20)), 413, "request_too_large", False)
        parts = (b" " * (1 << 20) for _ in range(17))
        expect_error(post(parts), 413, "request_too_large", False)
        expect_error(post(b" " * 9, {"expect": "100-continue"}, "/nowhere"), 404, "unknown_url",
                     False)
        check(g.ask("GET", "/health").status == 200, "not there any more")


PERSON = {"type": "object", "required": ["name", "age", "pets"], "additionalProperties": False,
          "properties": {"name": {"type": "string"}, "age": {"type": "integer"},
                         "pets": {"type": "array", "items": {"enum": ["cat", "dog"]}}}}
AS_PERSON = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}


def is_person(text):
    person = json.loads(text)
    return (list(person) == ["name", "age", "pets"] and isinstance(person["name"], str) and
            isinstance(person["age"], int) and set(person["pets"]) <= {"cat", "dog"})


@case("gateway/formats", TWO, dirty=True)
def formats(mesh, quick):
    """JSON that meets a schema however few tokens it may have, and however wild; a call of a tool;
    and the worker dies in the middle of the JSON: the same bytes."""
    asked = chat(MODEL, "Make up a person, as JSON.", max_tokens=48, response_format=AS_PERSON)
    with gateway(mesh) as g:
        many = g.ask("POST", CHAT, asked | {"temperature": 1.5, "n": 4 if quick else 8, "seed": 1})
        for choice in many.json["choices"]:
            check(choice["finish_reason"] == "stop" and is_person(choice["message"]["content"]),
                  "not valid:", choice)
        tool = {"type": "function", "function": {"name": "add_person", "parameters": PERSON}}
        call = g.ask("POST", CHAT, chat(MODEL, "Add Bob, 5.", max_tokens=60, tools=[tool],
                                        tool_choice="required"))
        choice = call.json["choices"][0]
        check(choice["finish_reason"] == "tool_calls", call)
        made = choice["message"]["tool_calls"][0]["function"]
        check(made["name"] == "add_person" and is_person(made["arguments"]), call)
        greedy = asked | {"temperature": 0, "stream": True}
        wanted = content(list(Stream(g, CHAT, greedy)))
        rooms = {node: mesh.room(node) for node in ("frankfurt", "newyork")}
        stream = Stream(g, CHAT, greedy)
        events = [next(stream) for _ in range(6)]
        busy = next(node for node, room in rooms.items() if mesh.room(node) < room)
        mesh.kill(busy, "worker")
        events += list(stream)
        check(stream.done and content(events) == wanted and is_person(wanted),
              "another text:", content(events), wanted)
        check(f"served by {busy}" not in stream.comments[0], "not taken over:", stream.comments)


def metric(g, name):
    """The sum over all labels."""
    text = g.ask("GET", "/metrics").body.decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines()
               if line.startswith((name + " ", name + "{")))


@case("gateway/keys_figures_questions", ONE)
def keys_figures_questions(mesh, _quick):
    """Only holders of a key; every answer is counted; /v1/route says what `weft query` says."""
    program = mesh.build_dir / "bin" / "weft-gateway"
    if not program.exists():
        raise Skip(f"{program} is not built")
    drawn = subprocess.run([program, "--new-key", "alice"], capture_output=True, text=True,
                           check=True).stdout.splitlines()
    path = f"{mesh.folder}/keys.txt"
    with open(path, "w", encoding="ascii") as file:
        file.write(f"# who may ask\n{drawn[1]}\n")
    mine = {"authorization": f"Bearer {drawn[0]}"}
    hi = chat(MODEL, "hi", max_tokens=4)
    with gateway(mesh, "tokyo", "--keys", path, "--cors", "http://example.org") as g:
        expect_error(g.ask("POST", CHAT, hi), 401, "invalid_api_key", False)
        expect_error(g.ask("GET", "/v1/models", None, {"authorization": "Bearer x"}), 401,
                     "invalid_api_key", False)
        usage = [g.ask("POST", CHAT, hi, mine).json["usage"] for _ in range(3)]
        g.ask("POST", CHAT, chat("nobody-has-it", "hi"), mine)
        told = g.ask("GET", "/v1/usage", None, mine).json
        model = next(m for m in told["models"] if m["model"] == MODEL)
        tokens = sum(u["completion_tokens"] for u in usage)
        check(model["whole"] == 3 and model["completion_tokens"] == tokens, told, usage)
        check(told["keys"][0]["key"] == "alice" and told["keys"][0]["answers"] == 4, told)
        check(metric(g, "vllm:generation_tokens_total") == tokens, "tokens in /metrics")
        check(metric(g, "gen_ai_server_request_duration_seconds_count") == 3, "answers counted")
        check(metric(g, "vllm:num_requests_running") == 0, "running")
        check(metric(g, "weft_member_up") == 3, "members")
        question = {"model": MODEL, "tier": "3-6", "near": [50.0, 8.0], "radius_km": 500}
        route = g.ask("POST", "/v1/route", question, mine).json
        weft = subprocess.run([mesh.build_dir / "bin" / "weft", "query", "--socket",
                               mesh.node("tokyo")["admin"], "--json", json.dumps(question)],
                              capture_output=True, text=True, check=True).stdout
        weft = json.loads(weft)
        check(route["would_choose"] == weft["would_choose"] == "frankfurt", route, weft)
        check(route["excluded"] == weft["excluded"], route, weft)
        preflight = g.ask("OPTIONS", CHAT)
        check(preflight.status == 204, preflight)
        check(preflight.headers["access-control-allow-origin"] == "http://example.org", preflight)
        check(drawn[0] not in g.log(), "a key in the log")


@case("gateway/openai_client", ONE)
def openai_client(mesh, _quick):
    """OpenAI's own client, if there is one: openai_client.py."""
    python = os.environ.get("WEFT_OPENAI_PYTHON", sys.executable)
    script = ROOT / "tests" / "e2e" / "openai_client.py"
    with gateway(mesh):
        done = subprocess.run(
            mesh.in_netns([python, "-B", script, "http://127.0.0.1:8080", MODEL], "tokyo"),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode == 77:
        raise Skip(done.stdout.strip())
    check(done.returncode == 0, done.stdout[-4000:], done.stderr[-1000:])
    return done.stdout.strip()


@case("gateway/same_as_run", ONE)
def same_as_run(mesh, _quick):
    """`weft run --json-schema` gives what the gateway gives for that schema, and it meets it."""
    schema = {"type": "object", "required": ["kind", "age"], "additionalProperties": False,
              "properties": {"kind": {"enum": ["cat", "dog"]}, "age": {"type": "integer"}}}
    path = f"{mesh.folder}/schema.json"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(schema, file)
    ran = mesh.ask("Name a pet.", max_tokens=48, json_schema=path)
    value = json.loads(ran.json["text"])
    check(value["kind"] in ("cat", "dog") and isinstance(value["age"], int), ran)
    with gateway(mesh) as g:
        asked = chat(MODEL, "Name a pet.", max_tokens=48, temperature=0, response_format={
            "type": "json_schema", "json_schema": {"name": "pet", "schema": schema}})
        same = g.ask("POST", CHAT, asked).json["choices"][0]["message"]["content"]
        check(same == ran.json["text"], same, ran)
    check(isinstance(json.loads(mesh.ask("Hi.", max_tokens=48, json_schema="-").json["text"]),
                     dict), "no object")
    check(mesh.start_ask("x", json_schema="/nowhere").finish().code == 2, "no such file")


@case("gateway/client_gone", NONE)
def client_gone(mesh, quick):
    """A client that is gone ends its answer at the worker, streamed or not; how soon is told."""
    with toy_worker(mesh, "frankfurt") as (_, log), gateway(mesh) as g:
        room = mesh.room("frankfurt")
        took = []
        for _ in range(5 if quick else 20):
            stream = Stream(g, CHAT, chat(TOY, "x", max_tokens=60000))
            for _ in range(3):
                next(stream)
            cancels = len(sent_whole(log)["cancel"])
            gone = time.monotonic()
            stream.drop()
            wait_until(lambda: len(sent_whole(log)["cancel"]) > cancels, CANCELLED_S, "a cancel")
            took.append(sent_whole(log)["cancel"][-1] - gone)
        connection = g.connection()
        jobs = len(sent_whole(log)["job"])
        connection.request("POST", CHAT, json.dumps(chat(TOY, "x", max_tokens=60000)))
        wait_until(lambda: len(sent_whole(log)["job"]) > jobs, CANCELLED_S, "the worker is asked")
        connection.sock.close()
        wait_until(lambda: mesh.room("frankfurt") == room, READY_S, "all places are free")
    took = sorted(t * 1e3 for t in took)
    return f"cancel after {took[len(took) // 2]:.1f} ms, at most {took[-1]:.1f} ms"


def raw_post(body, *headers):
    head = [f"POST {CHAT} HTTP/1.1", "host: x", *headers]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


def open_requests(g):
    lines = g.ask("GET", "/metrics").body.decode().splitlines()
    return next(line for line in lines if line.startswith("weft_gateway_open_requests "))


def all_of(sock):
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts)


@case("gateway/odd_ends", NONE)
def odd_ends(mesh, _quick):
    """Clients whose end comes along with their request, bodies with two lengths or packed: nobody
    waits, nothing stays, and no end of a body is taken for another request."""
    with toy_worker(mesh, "frankfurt"), gateway(mesh) as g:
        body = json.dumps(chat(TOY, "x", max_tokens=20, stream=True)).encode()
        length = f"content-length: {len(body)}"
        for n in range(20):
            sock = g.socket()
            sock.sendall(raw_post(body, length))
            if n % 2:
                sock.close()
                continue
            sock.shutdown(socket.SHUT_WR)
            answer = all_of(sock)
            check(b"client_gone" in answer or b"cancelled" in answer or not answer,
                  "half a connection is answered:", answer)
            sock.close()
        wait_until(lambda: open_requests(g).endswith(" 1"), CANCELLED_S, "all requests are over")
        for headers in ((length, "content-length: 5"),
                        ("content-length: 5", "transfer-encoding: chunked")):
            sock = g.socket()
            sock.sendall(raw_post(body, *headers))
            answer = all_of(sock)  # and its end
            check(answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1") == 1, answer)
        reply = g.ask("GET", "http://some.host/v1/models")  # as proxies ask
        check(reply.status == 200 and reply.json["object"] == "list", reply)
        reply = g.ask("POST", CHAT, zlib.compress(body), {"content-encoding": "deflate"})
        expect_error(reply, 415, "unsupported_content_encoding", False)


@case("gateway/downgrade", NONE)
def downgrade(mesh, _quick):
    """Another model answers where the client allows it and the one asked for is refused, and the
    answer says so."""
    with toy_worker(mesh, "frankfurt"), gateway(mesh) as g:
        body = chat("nobody-has-it", "x", max_tokens=5) | {"weft": {"downgrade": ["nor-this", TOY]}}
        for more in ({}, {"n": 3}):
            reply = g.ask("POST", CHAT, body | more)
            check(reply.status == 200 and reply.json["model"] == TOY, reply)
            check(len(reply.json["choices"]) == more.get("n", 1), reply)
            check(reply.headers["x-weft-downgraded-from"] == "nobody-has-it", reply)
        stream = Stream(g, CHAT, body)
        events = list(stream)
        check(stream.done and all(event["model"] == TOY for event in events), events)
        check(stream.response.headers["x-weft-downgraded-from"] == "nobody-has-it", events)
        reply = g.ask("POST", CHAT, chat(TOY, "x", max_tokens=5), {"x-weft-downgrade": "other"})
        check(reply.json["model"] == TOY and "x-weft-downgraded-from" not in reply.headers, reply)
        reply = g.ask("POST", CHAT, chat("nobody-has-it", "x"), {"x-weft-downgrade": "nor-this"})
        expect_error(reply, 404, "model_not_found", False)
        reply = g.ask("POST", "/v1/embeddings", {"model": TOY, "input": "x"},
                      {"x-weft-downgrade": "other"})
        expect_error(reply, 400, "invalid_value", False)
        usage = {one["model"]: one for one in g.ask("GET", "/v1/usage").json["models"]}
        check(usage[TOY]["whole"] == 6, usage)


@case("gateway/cascade", NONE_OF_THREE)
def cascade(mesh, _quick):
    """A smaller model answers where the one asked for is not there in time, as a stream and as a
    whole, and the other one is cancelled."""
    with toy_worker(mesh, "frankfurt") as (better, better_log), \
            toy_worker(mesh, "newyork", "small") as (_, small_log), gateway(mesh) as g:
        def cancels(log):
            return Path(log).read_text(encoding="utf-8").count("cancel ")

        def ask(**weft):
            body = chat(TOY, "x", max_tokens=20) | {"weft": {"cascade": "small"} | weft}
            reply = g.ask("POST", CHAT, body)
            check(reply.status == 200, reply)
            stream = Stream(g, CHAT, body)
            models = {event["model"] for event in stream}
            check(stream.done and models == {reply.json["model"]}, models, reply)
            down = reply.headers.get("x-weft-downgraded-from")
            check(down == stream.response.headers.get("x-weft-downgraded-from"), reply)
            check((down == TOY) == (reply.json["model"] == "small"), reply)
            return reply.json["model"]
        check(ask(budget_ms=5000) == TOY, "the better one was there in time")
        check(ask(budget_ms=5000, e2e=True) == TOY, "all of the better one was there in time")
        wait_until(lambda: cancels(small_log) >= 2, CANCELLED_S, "the draft is not wanted")
        before = cancels(better_log)
        better.send_signal(signal.SIGUSR1)  # its model stands still
        try:
            began = time.monotonic()
            check(ask(budget_ms=500) == "small", "the better one was taken")
            took = time.monotonic() - began
            check(took >= 1, f"the draft was taken after {took / 2:.3f} s")
        finally:
            better.send_signal(signal.SIGUSR1)
        wait_until(lambda: cancels(better_log) == before + 2, CANCELLED_S, "both are cancelled")
        body = chat("nobody-has-it", "x", max_tokens=5) | {
            "weft": {"cascade": TOY, "budget_ms": 5000}}
        check(g.ask("POST", CHAT, body).json["model"] == TOY, "the draft alone answers")
        body["weft"]["cascade"] = "nor-this"
        expect_error(g.ask("POST", CHAT, body), 404, "model_not_found", False)
        body["weft"].pop("budget_ms")
        expect_error(g.ask("POST", CHAT, body), 400, "invalid_value", False)
        wait_until(lambda: open_requests(g).endswith(" 1"), CANCELLED_S, "all requests are over")


@case("gateway/many_streams", NONE)
def many_streams(mesh, _quick):
    """As many as the worker takes, one of them not read: all whole, and then nothing is burnt."""
    with toy_worker(mesh, "frankfurt"), gateway(mesh) as g:
        tokens = 100
        slow = Stream(g, CHAT, chat(TOY, "x", max_tokens=20000))
        streams = [Stream(g, CHAT, chat(TOY, f"{n}", max_tokens=tokens)) for n in range(STREAMS)]
        for stream in streams:
            words = content(list(stream)).split()
            check(stream.done and len(words) == tokens, "not whole:", len(words))
        before = g.cpu_ticks()
        time.sleep(2)
        # The one that nobody reads is held, not polled.
        busy = g.cpu_ticks() - before
        slow.drop()
        wait_until(lambda: mesh.room("frankfurt") == 64, READY_S, "the place of the slow one")
        before = g.cpu_ticks()
        time.sleep(2)
        idle = g.cpu_ticks() - before
        check(idle <= IDLE_TICKS, "an idle gateway used so many ticks in two seconds:", idle)
    return f"{busy} ticks in 2 s with a stream that is not read, {idle} idle"


@case("gateway/worker_lost", NONE, dirty=True)
def worker_lost(mesh, _quick):
    """A worker dies in mid-stream: an error event, no [DONE]; before the first text: a status."""
    with toy_worker(mesh, "frankfurt") as (worker, _), gateway(mesh) as g:
        stream = Stream(g, CHAT, chat(TOY, "x", max_tokens=60000, weft={"once": True}))
        next(stream)
        worker.kill()
        events = list(stream)
        check(not stream.done, "a cut stream looks whole:", events[-1])
        check(events[-1]["error"]["code"] in ("worker_lost", "stalled"), events[-1])
        wait_until(lambda: not mesh.sees_worker("tokyo", "frankfurt"), READY_S, "its end is known")
        expect_error(g.ask("POST", CHAT, chat(TOY, "x")), 404, "model_not_found", False)


@case("gateway/node_gone", ONE, dirty=True)
def node_gone(mesh, _quick):
    """Its node is killed: not ready, errors in bounded time; started again: all is well."""
    hi = chat(MODEL, "hi", max_tokens=4)
    with gateway(mesh) as g:
        check(g.ask("POST", CHAT, hi).status == 200, "not answered")
        mesh.kill("tokyo", "node")
        wait_until(lambda: g.ask("GET", "/ready").status == 503, READY_S, "not ready")
        reply = g.ask("POST", CHAT, hi)
        expect_error(reply, 503, "unreachable", True)
        reply = g.ask("GET", "/v1/models")
        expect_error(reply, 503, "node_unreachable", True)
        check(g.ask("GET", "/health").status == 200, "not there")
        mesh.start("tokyo", "node")
        wait_until(lambda: mesh.sees_worker("tokyo", "frankfurt"), READY_S, "tokyo is back")
        wait_until(lambda: g.ask("POST", CHAT, hi).status == 200, READY_S, "answered again")


@case("gateway/stopped", NONE)
def stopped(mesh, _quick):
    """SIGTERM: what is being answered ends well, nobody new is let in, and it ends."""
    with toy_worker(mesh, "frankfurt"), gateway(mesh) as g:
        waiting = g.connection()
        stream = Stream(g, CHAT, chat(TOY, "x", max_tokens=100))
        next(stream)
        g.process.terminate()
        wait_until(lambda: "stopping" in g.log(), READY_S, "it has heard")
        with contextlib.suppress(OSError, http.client.HTTPException):
            expect_error(g.ask("GET", "/v1/models", connection=waiting), 503, "stopping", True)
        check(len(content(list(stream)).split()) == 100 and stream.done, "the stream was cut")
        check(g.process.wait(READY_S) == 0, "exit status", g.process.returncode)
    with toy_worker(mesh, "frankfurt"), gateway(mesh) as g:
        stream = Stream(g, CHAT, chat(TOY, "x", max_tokens=60000))
        next(stream)
        for _ in range(2):  # the second time: at once
            g.process.terminate()
            time.sleep(0.2)
        events = []
        with contextlib.suppress(OSError, http.client.HTTPException):
            events = list(stream)
        check(not stream.done, "a cut stream looks whole:", events[-1:])
        check(g.process.wait(READY_S) == 0, "exit status", g.process.returncode)
