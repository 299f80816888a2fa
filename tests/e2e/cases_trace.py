# SPDX-License-Identifier: Apache-2.0
"""Traces of weft-gateway, as a collector (otlp_collector.py) gets them: valid, whole, and summing
up to what the client saw; to servers behind weft-upstream the trace goes on. See harness.py."""
import contextlib
import json
import os
import re
import subprocess
import sys
import time

from cases_upstream import MODEL as MOCK_MODEL
from cases_upstream import bed_of
from harness import MODEL, ROOT, MeshSpec, case, check, wait_until
from http_client import Stream, chat, gateway
from ws_client import Session

ONE = MeshSpec(workers="frankfurt")
TWO = MeshSpec(workers="none")
CHAT = "/v1/chat/completions"
PORT = 4318
URL = f"http://127.0.0.1:{PORT}"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
READY_S = 30.0
PARTS = ["node", "worker", "device prefill", "device decode"]
KIND = {"server": 2, "client": 3, "internal": 1}


class Collector:
    """otlp_collector.py beside a gateway."""

    def __init__(self, mesh, node="tokyo"):
        self.path = f"{mesh.folder}/{node}/otlp.jsonl"
        for path in (self.path, self.path + ".busy", self.path + ".refused"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self.process = subprocess.Popen(
            mesh.in_netns([sys.executable, "-B", ROOT / "tests" / "e2e" / "otlp_collector.py",
                           PORT, self.path], node),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def busy(self, is_busy):
        if is_busy:
            with open(self.path + ".busy", "w", encoding="ascii"):
                pass
        else:
            os.unlink(self.path + ".busy")

    def posts(self):
        with contextlib.suppress(FileNotFoundError), open(self.path, encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.endswith("\n")]
        return []

    def spans(self):
        return [span for post in self.posts() for resource in post["body"]["resourceSpans"]
                for scope in resource["scopeSpans"] for span in scope["spans"]]

    def wait(self, count):
        wait_until(lambda: len(self.spans()) >= count, READY_S, f"{count} spans")
        return self.spans()

    def close(self):
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def collector_of(mesh):
    made = Collector(mesh)
    try:
        yield made
    finally:
        made.close()


def counted(g):
    text = g.ask("GET", "/metrics").body.decode()
    return tuple(int(re.search(rf"^weft_gateway_spans_{what}_total (\d+)$", text, re.M)[1])
                 for what in ("sent", "dropped"))


def duration(span):
    return int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])


def attributes(span):
    return {a["key"]: next(iter(a["value"].values())) for a in span["attributes"]}


def expect_form(span):
    """What opentelemetry-proto's JSON says of a span."""
    check(re.fullmatch("[0-9a-f]{32}", span["traceId"]), span)
    check(re.fullmatch("[0-9a-f]{16}", span["spanId"]), span)
    check(re.fullmatch("[0-9a-f]{16}", span.get("parentSpanId", PARENT)), span)
    check(span["kind"] in KIND.values() and span["name"], span)
    check(0 <= duration(span) < 60e9, span)
    check(abs(int(span["startTimeUnixNano"]) / 1e9 - time.time()) < 600, "no time of ours", span)
    for attribute in span["attributes"]:
        (kind, value), = attribute["value"].items()
        check(kind in ("stringValue", "intValue", "arrayValue"), attribute)
        check(kind != "intValue" or re.fullmatch("[0-9]+", value), attribute)


def expect_tree(spans, root_parent):
    """One answer's six spans: each inside its parent, and selves that sum up to the whole."""
    for span in spans:
        expect_form(span)
    names = {span["name"]: span for span in spans}
    check(len(spans) == 6 and set(PARTS) < set(names), "spans:", sorted(names))
    root, router = names[f"POST {CHAT}"], names[f"chat {MODEL}"]
    check(root.get("parentSpanId") == root_parent and root["kind"] == KIND["server"], root)
    way = [root, router, *(names[name] for name in PARTS[:2])]
    links = [*zip(way, way[1:]), *((way[-1], names[name]) for name in PARTS[2:])]
    selves = {span["spanId"]: duration(span) for span in spans}
    for parent, span in links:
        check(span["parentSpanId"] == parent["spanId"] and span["traceId"] == root["traceId"], span)
        check(int(parent["startTimeUnixNano"]) - 2e6 <= int(span["startTimeUnixNano"]) and
              int(span["endTimeUnixNano"]) <= int(parent["endTimeUnixNano"]) + 2e6,
              f"{span['name']} is not within {parent['name']}")
        selves[parent["spanId"]] -= duration(span)
    check(min(selves.values()) > -2e6, "less than nothing:", selves)
    off = abs(sum(selves.values()) - duration(root)) / duration(root)
    check(off <= 0.01, "selves do not sum up to the whole:", selves)
    return root, router, names


@case("trace/spans", ONE)
def spans(mesh, _quick):
    """A request with a trace of its client's: six spans that agree with the response."""
    with collector_of(mesh) as collector, \
            gateway(mesh, "tokyo", "--otlp", URL, "--otlp-ratio", "0") as g:
        header = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": " a@b=1 ,c=2"}
        began = time.time()
        reply = g.ask("POST", CHAT, chat(MODEL, "hi", max_tokens=24), header)
        seen_s = time.time() - began
        told = re.fullmatch(f"00-{TRACE}-([0-9a-f]{{16}})-01", reply.headers["traceparent"])
        check(reply.status == 200 and told, reply)
        root, router, names = expect_tree(collector.wait(6), PARENT)
        check({s.get("traceState") for s in collector.wait(6)} == {"a@b=1,c=2"}, "the tracestate")
        check(root["spanId"] == told[1] and duration(root) <= seen_s * 1e9, "the root:", root)
        times = dict(re.findall(r"(\w+);dur=([\d.]+)", reply.headers["server-timing"]))
        total_ns = float(times["total"]) * 1e6
        check(abs(duration(router) - total_ns) <= 0.01 * total_ns, times, router)
        check(abs(duration(names["device decode"]) - float(times["decode"]) * 1e6) <= 2e6, times)
        kept = attributes(router)
        check(kept["gen_ai.usage.output_tokens"] == str(reply.json["usage"]["completion_tokens"])
              and attributes(names["worker"])["weft.node"] == "frankfurt", kept)
        check(f"trace={TRACE}" in g.log(), "the log line has no trace")
        post = collector.posts()[0]
        check(post["path"] == "/v1/traces" and post["type"] == "application/json", post["path"])
        # Not sampled, by the client or by the ratio: nothing is told, but the trace goes on.
        for asked, flags in ((header | {"traceparent": f"00-{TRACE}-{PARENT}-00"}, "00"),
                             ({}, "00"), ({"traceparent": "00-zz-1-01"}, "00")):
            reply = g.ask("POST", CHAT, chat(MODEL, "hi", max_tokens=2), asked)
            check(reply.headers["traceparent"].endswith(f"-{flags}"), reply)
            check((TRACE in reply.headers["traceparent"]) == ("-00" in str(asked)), reply)
        for _ in range(3):
            g.ask("GET", "/v1/models")
        stream = Stream(g, CHAT, chat(MODEL, "hi", max_tokens=4), header)
        check(list(stream) and stream.done, "the stream is whole")
        check(len(collector.wait(12)) == 12, "what was not sampled was told")
        # The collector writes them down before it answers, and only then they count.
        wait_until(lambda: counted(g) == (12, 0), READY_S, "twelve, and none lost")
        return f"total {total_ns / 1e6:.1f} ms, gateway {duration(root) / 1e6:.1f} ms"


@case("trace/others", ONE)
def others(mesh, _quick):
    """Stages at several nodes and turns of a session are told as answers of one request each."""
    stages = {"stages": [
        {"component": "encode", "model": MODEL, "input": "Which city?", "among": ["Rome", "bread"]},
        {"component": "decode", "model": MODEL, "max_tokens": 2}]}
    with collector_of(mesh) as collector, \
            gateway(mesh, "tokyo", "--experimental-components", "--otlp", URL) as g:
        check(g.ask("POST", "/v1/components/run", stages).status == 200, "not run")
        first = collector.wait(21)
        session = Session(g, f"/v1/realtime?model={MODEL}")
        session.event()
        session.say("session.update", session={"type": "realtime", "max_output_tokens": 2})
        session.event()
        for text in ("hi", "ho"):
            session.user_says(text)
            session.answer()
        session.close()
        second = collector.wait(32)[21:]
    for spans_of, path, names in (
            (first, "POST /v1/components/run",
             [f"chat {MODEL}"] + 3 * [f"embeddings {MODEL}"]),
            (second, "GET /v1/realtime", 2 * [f"chat {MODEL}"])):
        for span in spans_of:
            expect_form(span)
        root, = (s for s in spans_of if s["name"] == path)
        check({s["traceId"] for s in spans_of} == {root["traceId"]}, "one trace:", spans_of)
        routers = sorted(s["name"] for s in spans_of if s.get("parentSpanId") == root["spanId"])
        check(routers == names, "answers:", routers)
        check(attributes(root)["weft.answers"] == str(len(names)), root)
        check(all(int(s["endTimeUnixNano"]) <= int(root["endTimeUnixNano"]) + 2e6
                  for s in spans_of), "longer than the whole")


SAMPLE = re.compile(r'([a-z_:]+)(?:\{((?:\w+="(?:[^"\\]|\\.)*",?)+)\})? (\S+)')


def families(text):
    """{family: (kind, {sample: value})}, by the rules of Prometheus's text format 0.0.4."""
    found, name = {}, None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, _, told = line[7:].partition(" ")
            check(told and name not in found, "HELP without text, or twice:", line)
            found[name] = (None, {})
        elif line.startswith("# TYPE "):
            same, kind = line[7:].split(" ")
            check(same == name and found[name] == (None, {}), "TYPE belongs behind HELP:", line)
            check(kind in ("counter", "gauge", "histogram"), line)
            found[name] = (kind, {})
        else:
            sample = SAMPLE.fullmatch(line)
            check(sample and found[name][0], "no sample:", line)
            base = re.sub("_(bucket|sum|count)$", "", sample[1])
            check(sample[1] == name or (found[name][0] == "histogram" and base == name),
                  "a sample of another family:", line)
            key = line.rpartition(" ")[0]
            check(key not in found[name][1], "twice:", line)
            found[name][1][key] = float(sample[3])
            check(found[name][0] != "counter" or name.endswith("_total"), line)
    return found


@case("trace/metrics", ONE)
def metrics(mesh, _quick):
    """/metrics keeps to the text format; how quick answers were asked to be is counted."""
    hi = chat(MODEL, "hi", max_tokens=4)
    with gateway(mesh) as g:
        check(g.ask("POST", CHAT, hi, {"x-slo-tpot-ms": "60000"}).status == 200, "not answered")
        check(g.ask("POST", CHAT, hi | {"weft": {"tpot_ms": 1}}).status == 200, "not answered")
        reply = g.ask("POST", CHAT, hi, {"x-slo-tpot-ms": "soon"})
        check(reply.status == 400, reply)
        text = g.ask("GET", "/metrics").body.decode()
    found = families(text)
    check(all(kind for kind, _ in found.values()), "HELP without TYPE")
    for what in ("met", "missed"):
        name = f"weft_gateway_slo_{what}_total"
        check(sum(found[name][1].values()) == 1, name, found[name])
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError:
        return f"{len(found)} families; prometheus_client is not there to agree"
    theirs = {family.name for family in text_string_to_metric_families(text)}
    ours = {re.sub("_total$", "", name) if kind == "counter" else name
            for name, (kind, _) in found.items()}
    check(theirs == ours, "prometheus_client reads otherwise:", theirs ^ ours)
    return f"{len(found)} families, as prometheus_client reads them"


@case("trace/collector_away", ONE)
def collector_away(mesh, _quick):
    """A collector that is busy, then gone: requests do not wait; what is lost is counted."""
    hi = chat(MODEL, "hi", max_tokens=2)
    with collector_of(mesh) as collector, gateway(mesh, "tokyo", "--otlp", URL) as g:
        collector.busy(True)
        for _ in range(4):
            check(g.ask("POST", CHAT, hi).status == 200, "not answered")
        wait_until(lambda: os.path.exists(collector.path + ".refused"), READY_S, "it has refused")
        collector.busy(False)
        spans_kept = collector.wait(24)
        check(len(spans_kept) == 24 and len({s["traceId"] for s in spans_kept}) == 4,
              "four traces of six:", len(spans_kept))
        collector.close()
        check(g.ask("POST", CHAT, hi).status == 200, "not answered without a collector")
        began = time.monotonic()
        check(g.stop() == 0, "exit status")
        check(time.monotonic() - began < READY_S, "it does not end")


@case("trace/upstream", TWO)
def upstream(mesh, _quick):
    """The server behind weft-upstream gets the same trace, below the worker's span."""
    with collector_of(mesh) as collector, bed_of(mesh) as bed, \
            gateway(mesh, "tokyo", "--otlp", URL) as g:
        bed.start_mock("frankfurt")
        bed.start("frankfurt")
        body = chat(MOCK_MODEL, "Trace me.", max_tokens=6)
        long = ",".join(f"k{i}={'v' * 40}" for i in range(20))  # whole members of it go on
        reply = g.ask("POST", CHAT, body, {"traceparent": f"00-{TRACE}-{PARENT}-01",
                                           "tracestate": long})
        check(reply.status == 200, reply)
        worker = next(s for s in collector.wait(6) if s["name"] == "worker")
        told = bed.wait_told("frankfurt", "complete")
        check(told["traceparent"] == f"00-{TRACE}-{worker['spanId']}-01", told, worker)
        kept = told["tracestate"] or ""
        check(long.startswith(kept + ",") and 512 - 45 < len(kept) <= 512, "tracestate:", kept)
    with bed_of(mesh) as bed, gateway(mesh) as g:
        bed.start_mock("frankfurt")
        bed.start("frankfurt")
        alone = {"tracestate": "a=1"}  # means nothing by itself
        check(g.ask("POST", CHAT, body, alone).status == 200, "not answered")
        told = bed.wait_told("frankfurt", "complete")
        check(not told["traceparent"] and not told["tracestate"], "nobody asked for it:", told)
