# SPDX-License-Identifier: Apache-2.0
"""A collector of traces that writes down what it is sent: otlp_collector.py PORT FILE. Each POST is
one line of JSON, {"path", "type", "body"}. With a file FILE.busy it answers 503 and
writes into FILE.refused instead. For cases_trace.py; standard library only."""
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        busy = os.path.exists(sys.argv[2] + ".busy")
        if busy:
            with open(sys.argv[2] + ".refused", "a", encoding="ascii") as file:
                file.write("refused\n")
        else:
            line = json.dumps({"path": self.path, "type": self.headers.get("Content-Type"),
                               "body": json.loads(body)})
            with open(sys.argv[2], "a", encoding="utf-8") as file:
                file.write(line + "\n")
        answer = b"{}"
        self.send_response(503 if busy else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
