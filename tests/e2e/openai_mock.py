# SPDX-License-Identifier: Apache-2.0
"""An OpenAI-compatible server that goes wrong when told to, for cases_upstream.py. Its words follow
from the last message (or the prompt), so that an answer that went on elsewhere shows any word that
is missing, wrong or given twice. Standard library only.

  openai_mock.py ADDRESS PORT STATE_FILE [CERTIFICATE_AND_KEY]

Asked with tools it calls the first one, or the one that is named, and then once more, unless the
last message is what a call gave. With a certificate it speaks TLS. The file says how to behave, one
`key value` a line, read anew for each request:
  status 429       answer every request with it          retry_after 2   with that header
  cut 5            close the connection behind so many words, without an end
  end_early 5      end the stream properly behind so many words, without a finish_reason
  done_early 5     the same, with [DONE]
  hang 5           say nothing more behind so many words (0: not even a head)
  error 5          an error event behind so many words
  garble 5         an event that is no JSON behind so many words
  pause_ms 20      between two words                     whole 1         do not stream
  first_ms 200     before the first word
  redirect URL     307 to there                          models_status 500  of GET /models
Each request is told on stdout as one line of JSON, with its end: `closed` if the client went away;
before them, that it listens.
"""
import hashlib
import json
import os
import socket
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOCK = threading.Lock()
# Each with the blank before it is one token of most vocabularies.
WORDS = ("time year people way day man thing woman life child world school state family student "
         "group country problem hand part place case week company system program question work "
         "government number night point").split()


def read_state(path):
    state = {}
    if path and os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            for line in file:
                key, _, value = line.strip().partition(" ")
                state[key] = value
    return state


def words_of(prompt, count):
    """What is said behind `prompt`."""
    return [" " + WORDS[hashlib.sha256(f"{prompt}/{n}".encode()).digest()[0] % len(WORDS)]
            for n in range(count)]


def tell(**what):
    with LOCK:
        print(json.dumps(what), flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as model servers have it: each word goes at once
    state_path = None

    def log_message(self, *_):
        pass

    def send_json(self, status, value, **headers):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for key, header in headers.items():
            self.send_header(key.replace("_", "-"), header)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        state = read_state(self.state_path)
        status = int(state.get("models_status", 200))
        tell(path=self.path, authorization=self.headers.get("Authorization"))
        if status != 200:
            self.send_json(status, {"error": {"message": "models are out"}})
        else:
            self.send_json(200, {"object": "list", "data": [{"id": "mock", "object": "model"}]})

    def chunk(self, value):
        text = value if isinstance(value, str) else json.dumps(value)
        data = f"data: {text}\n\n".encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def end_chunks(self):
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        state = read_state(self.state_path)
        request = json.loads(body)
        told = {"path": self.path, "authorization": self.headers.get("Authorization"),
                "request": request, "connection": self.client_address[1],
                "traceparent": self.headers.get("traceparent"),
                "tracestate": self.headers.get("tracestate")}
        try:
            told["end"] = self.answer(request, state)
        except (BrokenPipeError, ConnectionResetError):
            told["end"] = "closed"
            self.close_connection = True
        tell(**told, at=time.monotonic())

    def answer(self, request, state):
        if "status" in state:
            headers = {"Retry_After": state["retry_after"]} if "retry_after" in state else {}
            self.send_json(int(state["status"]), {"error": {"message": "as told"}}, **headers)
            return "refused"
        if "redirect" in state:
            self.send_json(307, {}, Location=state["redirect"])
            return "redirected"
        if self.path.endswith("/embeddings"):
            self.send_json(200, {"data": [{"index": 0, "embedding": [3.0, 0.0, 4.0]}],
                                 "usage": {"prompt_tokens": 5, "total_tokens": 5}})
            return "embedding"
        return self.speak(request, state)

    def said_before(self, request):
        """What the answer begins behind, and how many words of it there are."""
        if "messages" not in request:
            prompt, _, said = request["prompt"].partition("\n")
            return prompt, len(said.split())
        messages = request["messages"]
        said = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
        if said and not request.get("continue_final_message"):
            return "no continuation asked for", 0
        users = [m["content"] for m in messages if m["role"] == "user"] or [""]
        return users[-1].partition("\n")[0], len(said.split())

    def piece(self, chat, text, finish=None):
        choice = {"index": 0, "finish_reason": finish}
        if chat:
            choice["delta"] = {"content": text} if text is not None else {}
        else:
            choice["text"] = text or ""
        return {"object": "chunk", "choices": [choice]}

    def calls_of(self, request):
        """What is called: [(name, arguments)]; the first with what looks like the end of a call."""
        if not request.get("tools") or request["messages"][-1]["role"] == "tool":
            return []
        choice = request.get("tool_choice")
        name = (choice if isinstance(choice, dict) else request["tools"][0])["function"]["name"]
        return [(name, json.dumps({"city": f"</tool_call> {city}", "unit": "C"}))
                for city in ("Paris", "Rome")]

    def call_tools(self, request, calls):
        """One event for the name, then the arguments in pieces, as servers do."""
        for index, (name, arguments) in enumerate(calls):
            head = {"index": index, "id": f"id{index}", "type": "function",
                    "function": {"name": name, "arguments": ""}}
            parts = [{"index": index, "function": {"arguments": arguments[at:at + 9]}}
                     for at in range(0, len(arguments), 9)]
            for part in (head, *parts):
                self.chunk({"choices": [{"index": 0, "delta": {"tool_calls": [part]},
                                         "finish_reason": None}]})
        self.chunk(self.piece(True, None, "tool_calls"))
        self.chunk({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 20,
                                             "total_tokens": 31}})
        self.chunk("[DONE]")
        self.end_chunks()
        return "called"

    def go_wrong(self, state, said):
        """What happens behind so many words; None: nothing."""
        for kind in ("cut", "end_early", "done_early", "hang", "error", "garble"):
            if said == int(state.get(kind, -1)):
                return kind
        return None

    def fail(self, kind):
        if kind == "hang":
            self.connection.settimeout(120)
            try:  # until the client has gone
                while self.connection.recv(1):
                    pass
            except socket.timeout:
                pass
            self.close_connection = True
            return "closed"
        if kind == "error":
            self.chunk({"error": {"message": "the model has fallen over"}})
        elif kind == "garble":
            self.chunk('{"choices": [{"delta": {"content": "x')
        elif kind == "done_early":
            self.chunk("[DONE]")
        if kind == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        else:
            self.end_chunks()
        return kind

    def speak(self, request, state):
        chat = "messages" in request
        prompt, said = self.said_before(request)
        count = request.get("max_tokens", 16)
        words = words_of(prompt, said + count)[said:]
        usage = {"prompt_tokens": 11, "completion_tokens": count, "total_tokens": 11 + count}
        if state.get("whole"):
            text = "".join(words)
            choice = {"index": 0, "finish_reason": "length",
                      **({"message": {"content": text}} if chat else {"text": text})}
            self.send_json(200, {"choices": [choice], "usage": usage})
            return "whole"
        if self.go_wrong(state, 0) == "hang":
            return self.fail("hang")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if chat:
            self.chunk({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        calls = self.calls_of(request)
        if calls:
            return self.call_tools(request, calls)
        time.sleep(int(state.get("first_ms", 0)) / 1000)
        for at, word in enumerate(words):
            kind = self.go_wrong(state, at)
            if kind:
                return self.fail(kind)
            self.chunk(self.piece(chat, word))
            time.sleep(int(state.get("pause_ms", 0)) / 1000)
        self.chunk(self.piece(chat, None, "length"))
        if request.get("stream_options", {}).get("include_usage"):
            self.chunk({"choices": [], "usage": usage})
        self.chunk("[DONE]")
        self.end_chunks()
        return "complete"


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address, port):
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, port), Handler)


def main():
    Handler.state_path = sys.argv[3]
    server = Server(sys.argv[1], int(sys.argv[2]))
    if len(sys.argv) > 4:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[4])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    tell(listening=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
