# SPDX-License-Identifier: Apache-2.0
"""The dashboard's files and a made-up /v1/live, for meshes larger than one machine can run: as many
members as asked, all over the world, and answers all the time. Events have the form that
dataplane/gateway/live.h says."""
import contextlib
import http.server
import json
import random
import threading
import time

from harness import ROOT

PAGES = ROOT / "controlplane" / "dashboard"
TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8",
         "css": "text/css; charset=utf-8", "svg": "image/svg+xml", "json": "application/json"}
CITIES = [("frankfurt", 50.1, 8.7), ("tokyo", 35.7, 139.7), ("saopaulo", -23.5, -46.6),
          ("virginia", 38.9, -77.5), ("mumbai", 19.1, 72.9), ("sydney", -33.9, 151.2),
          ("lagos", 6.5, 3.4), ("oregon", 45.6, -121.2), ("london", 51.5, -0.1),
          ("singapore", 1.35, 103.8), ("dubai", 25.2, 55.3), ("santiago", -33.4, -70.7)]


def member(draw, at):
    city, lat, lon = CITIES[at % len(CITIES)]
    spread = 0 if at < len(CITIES) else 8
    worker = draw.random() < 0.8
    state = draw.choices(["up", "suspect", "down"], [95, 3, 2])[0] if at else "self"
    draining = worker and state == "up" and draw.random() < 0.05
    return {"name": city if at < len(CITIES) else f"{city}-{at // len(CITIES)}", "state": state,
            "alive": state != "down", "tier": draw.randrange(8),
            "tags": ["eu", "gdpr"] if lat > 48 else [], "jurisdiction": "DE" if lat > 48 else "",
            "models": ["llama-3-70b", "smollm2-135m"] if worker else [],
            "backend": draw.choice(["cuda", "cpu"]) if worker else "",
            "room": 0 if draining else draw.randrange(64), "draining": draining,
            "queue_us": 0 if draining else draw.randrange(90000),
            "free_vram_mib": draw.randrange(81920), "rtt_us": draw.uniform(300, 250000),
            "rtt_estimated": draw.random() < 0.3, "place_doubted": False,
            "latitude_deg": lat + draw.gauss(0, spread) / 2,
            "longitude_deg": lon + draw.gauss(0, spread)}


def worker(draw, model, at):
    """One at the gateway's own node."""
    running = draw.randrange(9)
    return {"model": model, "pid": 4000 + at, "loaded": 1, "slots": 8, "running": running,
            "waiting": draw.randrange(3) if running == 8 else 0, "kv_usage": running / 9,
            "prefix_queries": 9000, "prefix_hits": 4100, "prefill_tps": 2900, "decode_tps": 88,
            "memory_mib": 41000 >> 6 * at, "draining": 0, "room": 64 - running, "queue_us": 0}


class Feed:
    """The state of the made-up mesh; seeded, so that pictures can be compared."""

    def __init__(self, nodes, rate, mesh):
        self.draw = random.Random(1)
        self.members = [member(self.draw, i) for i in range(nodes)]
        self.mesh = {"error": "", "known": True, "node": self.members[0]["name"] if nodes else "",
                     "version": "0.1.0", "membership": "gossip"} | mesh
        self.rate = rate
        self.served = {}
        self.count = 0
        self.seq = 0
        self.stopped = threading.Event()

    def answer(self):
        self.count += 1
        serving = self.draw.choice([m for m in self.members if m["models"] and m["alive"]])
        prompt, tokens = self.draw.randrange(20, 900), self.draw.randrange(5, 200)
        row = self.served.setdefault(serving["name"], {
            "node": serving["name"], "answers": 0, "whole": 0, "prompt_tokens": 0,
            "cached_tokens": 0, "new_tokens": 0})
        cached = prompt // 2 if self.draw.random() < 0.3 else 0
        for key, more in (("answers", 1), ("whole", 1), ("prompt_tokens", prompt),
                          ("cached_tokens", cached), ("new_tokens", tokens)):
            row[key] += more
        ttft = self.draw.lognormvariate(3.6, 0.6)
        bad = self.draw.random() < 0.02
        return {"n": self.count, "at_ms": int(time.time() * 1000), "model": "llama-3-70b",
                "node": serving["name"], "backend": "cuda", "prompt": prompt, "cached": cached,
                "status": "worker lost" if bad else "", "tokens": tokens, "ttft_ms": ttft,
                "ms": ttft + tokens * 11, "net_ms": 9.5, "queue_ms": 1.0, "hedged": False,
                "failovers": 1 if self.draw.random() < 0.05 else 0}

    def event(self, full):
        self.seq += 1
        event = {"seq": self.seq, "at_ms": int(time.time() * 1000), "full": full, "age_ms": 300}
        if self.rate and self.members:
            event["log"] = [self.answer() for _ in range(64 if full else self.rate)]
            event["served"] = list(self.served.values())
        moved = self.members if full else [m for m in self.members if self.draw.random() < 0.1]
        for one in moved:
            one["room"] = 0 if one["draining"] else self.draw.randrange(64)
        event["members"] = moved
        seconds = {"count": self.count, "0.5": .0363, "0.9": .0781, "0.95": .0977, "0.99": .1462}
        recent = seconds if self.count else {"count": 0}
        models = self.members[0]["models"] if self.members else []
        event |= {"workers": [worker(self.draw, model, i) for i, model in enumerate(models)]}
        event |= {"mesh": self.mesh, "models": [], "counters": {}, "drops": {},
                  "gateway": {"running": 12 if self.rate else 0, "waiting": 3 if self.rate else 0},
                  "recent": {"first_token": recent, "per_token": recent, "duration": recent}}
        return event


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == "/v1/live":
            self.live()
            return
        name = self.path.removeprefix("/dashboard/").lstrip("/") or "index.html"
        path = PAGES / name
        if name == "coast.json":
            path = self.server.coast
        found = path is not None and path.is_file()
        self.send_response(200 if found or name == "coast.json" else 404)
        self.send_header("content-type", TYPES.get(name.rpartition(".")[2], "text/plain"))
        self.end_headers()
        self.wfile.write(path.read_bytes() if found else b"[]")

    def live(self):
        feed = self.server.feed
        if feed.stopped.is_set():
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        full = True
        with contextlib.suppress(OSError):
            while not feed.stopped.is_set():
                self.wfile.write(f"data: {json.dumps(feed.event(full))}\n\n".encode())
                self.wfile.flush()
                full = False
                feed.stopped.wait(0.25)


@contextlib.contextmanager
def feed(nodes, rate=0, coast=None, **mesh):
    """Yields (address, end): end() cuts the stream and refuses new ones."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.coast = coast
    server.feed = Feed(nodes, rate, mesh)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.feed.stopped.set
    finally:
        server.feed.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
