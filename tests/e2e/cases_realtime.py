# SPDX-License-Identifier: Apache-2.0
"""Conversations over a WebSocket: turns that build on each other, cancelled ones, clients that are
gone or speak nonsense. ws_client.py has the client; see harness.py."""
import json

from cases_gateway import CANCELLED_S, TOY, metric, toy_worker
from harness import MODEL, MeshSpec, case, check, wait_until
from http_client import gateway, sent_whole
from ws_client import BINARY, CLOSE, PING, PONG, TEXT, Session, WebSocket

ONE = MeshSpec(workers="frankfurt")
NONE = MeshSpec(nodes=2, workers="none")
PATH = f"/v1/realtime?model={MODEL}"
SETTINGS = {"type": "realtime", "instructions": "You are terse.", "temperature": 0,
            "max_output_tokens": 8, "output_modalities": ["text"]}
# Long enough that not having to read it again shows.
STORY = "Here is a list of words. " + " ".join(f"Word number {i} is word{i}." for i in range(20))


@case("realtime/turns", ONE)
def turns(mesh, _quick):
    """The node that had the first turn knows at the second what went before; the text is that of
    the same chat by HTTP."""
    with gateway(mesh) as g:
        s = Session(g, PATH)
        check(s.status == 101 and s.event()["type"] == "session.created", s.status, s.headers)
        s.say("session.update", session=SETTINGS)
        check(s.event()["session"]["instructions"] == "You are terse.", "not updated")
        s.user_says(STORY)
        first, one = s.answer()
        check(one["status"] in ("completed", "incomplete") and first, one)
        s.user_says("Say it again.")
        second, two = s.answer()
        wanted = g.ask("POST", "/v1/chat/completions", {
            "model": MODEL, "max_tokens": 8, "temperature": 0,
            "messages": [{"role": "system", "content": "You are terse."},
                         {"role": "user", "content": STORY},
                         {"role": "assistant", "content": first},
                         {"role": "user", "content": "Say it again."}]})
        check(wanted.json["choices"][0]["message"]["content"] == second, wanted, second)
        usage = two["usage"]
        known = usage["input_token_details"]["cached_tokens"]
        check(known > 0.8 * one["usage"]["input_tokens"], "nothing was known already:", one, two)
        s.close()
        wait_until(lambda: metric(g, "weft_gateway_open_requests") <= 1, CANCELLED_S, "it is over")
        first_ms, second_ms = (turn["weft"]["first_token_us"] / 1e3 for turn in (one, two))
        return (f"{known} of {usage['input_tokens']} tokens known; first token {first_ms:.0f} ms, "
                f"then {second_ms:.0f} ms")


@case("realtime/cancelled", NONE)
def cancelled(mesh, _quick):
    """An interrupted answer stops at the worker, and the talk goes on; one whose client is gone,
    too."""
    with toy_worker(mesh, "frankfurt") as (_worker, log), gateway(mesh) as g:
        s = Session(g, f"/v1/realtime?model={TOY}")
        s.event()
        s.user_says("count")
        for _ in range(2):
            s.say("response.create")
            s.until("response.output_text.delta")
            s.say("response.create")
            while (event := s.event())["type"] != "error":
                pass
            check(event["error"]["code"] == "conversation_already_has_active_response", event)
            before = len(sent_whole(log)["cancel"])  # a rival's, too, on a busy machine
            s.say("response.cancel")
            response = s.until("response.done")[-1]["response"]
            check(response["status"] == "cancelled", response)
            wait_until(lambda n=before: len(sent_whole(log)["cancel"]) > n, CANCELLED_S,
                       "the worker has heard of it")
        s.say("response.cancel")
        check(s.event()["error"]["code"] == "response_cancel_not_active", "nothing to cancel")
        s.say("response.create")
        s.until("response.output_text.delta")
        before = len(sent_whole(log)["cancel"])
        s.close()
        wait_until(lambda: len(sent_whole(log)["cancel"]) > before, CANCELLED_S,
                   "the worker has heard that the client is gone")


@case("realtime/nonsense", NONE)
def nonsense(mesh, _quick):
    """What is no handshake, no event, no frame: an answer of its kind, and the others go on."""
    with gateway(mesh) as g:
        check(g.ask("GET", PATH).status == 426, "no handshake")
        check(WebSocket(g, "/v1/realtime").status == 400, "without a model")
        check(WebSocket(g, PATH, {"origin": "http://example.org"}).status == 403, "a page")
        check(WebSocket(g, PATH, {"origin": "http://here"}).status == 101, "its own page")
        s = Session(g, PATH, {"sec-websocket-protocol": "realtime"})
        check(s.headers["sec-websocket-protocol"] == "realtime", s.headers)
        s.event()
        for text, code in ((b"nonsense", "invalid_value"), (b"[]", "invalid_value"),
                           (b'{"type":"input_audio_buffer.append"}', "unsupported_event"),
                           (b'{"type":"response.create"}', "invalid_value"),
                           (b'{"type":"session.update","session":{"modalities":["audio"]}}',
                            "unsupported_parameter")):
            s.send(TEXT, text)
            check(s.event()["error"]["code"] == code, text)
        s.user_says("hi")
        s.say("response.create")
        failed = s.until("response.done")[-1]["response"]
        check(failed["status"] == "failed" and failed["status_details"]["error"]["code"], failed)
        whole = json.dumps({"type": "session.update", "session": {}}).encode()
        s.send(TEXT, whole[:5], fin=False)
        s.send(PING, b"still there?")
        check(s.receive() == (PONG, b"still there?"), "no pong")
        s.send(0, whole[5:])
        check(s.event()["type"] == "session.updated", "in two frames")
        s.send(BINARY, b"x")
        check(s.receive() == (CLOSE, b"\x03\xebtext only"), "binary")
        s.send(CLOSE, b"\x03\xeb")
        check(s.receive() is None, "not closed")
        for opcode, fin in ((3, True), (0, True), (PING, False)):
            s = Session(g, PATH)
            s.event()
            s.send(opcode, b"", fin)
            opcode, payload = s.receive()
            check(opcode == CLOSE and payload == b"\x03\xea", "against the protocol", payload)
        s = Session(g, PATH)
        s.event()
        check(g.stop() == 0, "the gateway did not end")
        opcode, payload = s.receive()
        check(opcode == CLOSE and payload[:2] == b"\x03\xe9", "going away", payload)
