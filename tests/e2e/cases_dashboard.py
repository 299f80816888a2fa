# SPDX-License-Identifier: Apache-2.0
"""The dashboard: the page as it is served, its stream against /metrics, and what headless Chromium
(browser.py) shows of it, with a real mesh and with made-up ones (dashboard_feed.py). Pictures go to
WEFT_SCREENSHOTS, if that names a folder. See harness.py."""
import contextlib
import json
import os
import signal
import tempfile
import time
from pathlib import Path

import mesh_state
from browser import browser
from cases_gateway import CHAT, ONE, READY_S
from dashboard_feed import feed
from harness import MODEL, MeshSpec, case, check, wait_until
from http_client import chat, gateway

NONE = MeshSpec(nodes=2, workers="none")
SIZES = ((1440, 900), (390, 844))
PAGE_S = 60.0
FRAMES_MS = 4000
NODES_MANY = 1000
COAST = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "weft" / "coast.json"


class Live:
    """A viewer: what it has been told, by applying events as the page does."""

    def __init__(self, g):
        self.connection = g.connection()
        self.connection.request("GET", "/v1/live")
        self.response = self.connection.getresponse()
        check(self.response.status == 200, "no stream:", self.response.status)
        check(self.response.getheader("content-type").startswith("text/event-stream"), "no stream")
        self.known = {}
        self.members, self.served, self.log = {}, {}, []

    def event(self):
        """The next one, applied; None at the end."""
        while line := self.response.readline():
            if line.startswith(b"data: "):
                event = json.loads(line[6:])
                self.apply(event)
                return event
        return None

    def apply(self, event):
        if event["full"]:
            self.known, self.members, self.served = {}, {}, {}
        self.known |= {k: v for k, v in event.items() if k not in ("members", "served", "log")}
        self.members |= {m["name"]: m for m in event.get("members", ())}
        for name in event.get("gone", ()):
            del self.members[name]
        self.served |= {row["node"]: row for row in event.get("served", ())}
        self.log += event.get("log", ())

    def until(self, condition, text):
        end = time.monotonic() + READY_S
        while not condition():
            check(time.monotonic() < end, "not told in time:", text)
            check(self.event() is not None, "the stream ended before:", text)

    def close(self):
        self.response.close()
        self.connection.close()


@contextlib.contextmanager
def live(g):
    made = Live(g)
    try:
        yield made
    finally:
        made.close()


def metrics(g):
    """/metrics as {line without value: value}."""
    lines = g.ask("GET", "/metrics").body.decode().splitlines()
    return {name: float(value) for name, _, value in
            (line.rpartition(" ") for line in lines if not line.startswith("#"))}


@case("dashboard/served", NONE)
def served(mesh, _quick):
    """Page and files with their types, tags and policy; nothing from elsewhere; 404 for others."""
    with gateway(mesh) as g:
        page = g.ask("GET", "/")
        check(page.status == 200 and b"<title>Weft</title>" in page.body, page)
        check(page.headers["content-type"] == "text/html; charset=utf-8", page)
        policy = page.headers["content-security-policy"]
        check("default-src 'none'" in policy and "unsafe" not in policy, policy)
        total = len(page.body)
        for name, kind in (("main.js", "text/javascript"), ("map.js", "text/javascript"),
                           ("panels.js", "text/javascript"), ("state.js", "text/javascript"),
                           ("stream.js", "text/javascript"), ("style.css", "text/css"),
                           ("icon.svg", "image/svg+xml"), ("coast.json", "application/json")):
            reply = g.ask("GET", f"/dashboard/{name}")
            check(reply.status == 200 and reply.headers["content-type"].startswith(kind), reply)
            total += len(reply.body)
            again = g.ask("GET", f"/dashboard/{name}", None,
                          {"if-none-match": reply.headers["etag"]})
            check(again.status == 304 and again.body == b"", again)
        check(total <= 150 * 1024, "too long:", total)
        check(g.ask("GET", "/dashboard/../secret").status == 404, "not refused")
        check(g.ask("GET", "/dashboard/none.js").status == 404, "not refused")
        check(g.ask("POST", "/").status == 405, "not refused")
        check(g.ask("HEAD", "/v1/live").status == 200, "HEAD")
    return f"{total} bytes"


def same(told, wanted, text):
    check(wanted is not None and abs(told - wanted) <= 1e-6 * max(1, abs(wanted)),
          f"{text}: told {told}, in /metrics {wanted}")


def rooms_agree(g, viewer):
    """A node tells its room when it has changed: what both say must become the same."""
    def wrong():
        told = metrics(g)
        return [(name, member["room"]) for name, member in viewer.members.items()
                if not any(line.startswith("weft_member_room{") and f'"{name}"' in line and
                           value == member["room"] for line, value in told.items())]
    until = time.monotonic() + READY_S
    while wrong():
        check(time.monotonic() < until, "room: told otherwise than in /metrics:", wrong())
        viewer.event()


@case("dashboard/numbers", ONE)
def numbers(mesh, _quick):
    """What viewers are told is what /metrics says; late ones know the same; they end with it."""
    with gateway(mesh) as g, live(g) as first:
        first.until(lambda: len(first.members) == 3, "three members")
        for n in range(3):
            g.ask("POST", CHAT, chat(MODEL, f"Say {n}.", max_tokens=4))
        g.ask("POST", CHAT, chat("nobody-has-it", "hi"))
        first.until(lambda: len(first.log) == 4, "four answers")
        with live(g) as second:
            second.event()
            check(second.served == first.served, "a late viewer is told otherwise")
            check(second.log == first.log, "a late viewer has another log")
        told = metrics(g)
        row = first.served["frankfurt"]
        for key, name in (("answers", "answers"), ("new_tokens", "generation_tokens"),
                          ("prompt_tokens", "prompt_tokens"), ("whole", "whole"),
                          ("cached_tokens", "cached_tokens")):
            same(row[key], told.get(f'weft_gateway_node_{name}_total{{node="frankfurt"}}'), key)
        model = next(m for m in first.known["models"] if m["name"] == MODEL)
        label = f'{{model_name="{MODEL}"}}'
        same(model["whole"], told.get("vllm:request_success_total" + label), "whole")
        same(model["new_tokens"], told.get("vllm:generation_tokens_total" + label), "tokens")
        for kind in ("first_token", "per_token", "duration"):
            for q in ("0.5", "0.9", "0.95", "0.99"):
                same(first.known["recent"][kind][q],
                     told.get(f'weft_gateway_recent_{kind}_seconds{{quantile="{q}"}}'), kind)
        rooms_agree(g, first)
        check(first.known["workers"] == [], "tokyo has no worker")
        check("Say" not in json.dumps(first.log), "the log has a prompt")
        g.process.terminate()
        while first.event() is not None:
            pass
        check(g.process.wait(READY_S) == 0, "a viewer keeps it from ending")


@case("dashboard/idle", NONE)
def idle(mesh, _quick):
    """With many viewers little is burnt; when they are gone, nothing is asked any more."""
    with gateway(mesh) as g, contextlib.ExitStack() as stack:
        viewers = [stack.enter_context(live(g)) for _ in range(20)]
        for viewer in viewers:
            viewer.event()
        before = g.cpu_ticks()
        time.sleep(2)
        watched = g.cpu_ticks() - before
        for viewer in viewers:
            viewer.close()
        time.sleep(1)
        before = g.cpu_ticks()
        time.sleep(2)
        alone = g.cpu_ticks() - before
        check(alone <= 10, "ticks in two seconds that nobody watches:", alone)
    return f"ticks in 2 s: {watched} with 20 viewers, {alone} without"


# Of each card's figures by label, which metric of its member or worker it shows.
MEMBER_FIGURES = {"queue": "weft_member_queue_seconds", "room": "weft_member_room",
                  "VRAM": "weft_member_free_vram_bytes", "rtt": "weft_member_rtt_seconds"}
WORKER_FIGURES = {"running": "weft_worker_requests_running",
                  "waiting": "weft_worker_requests_waiting", "KV": "vllm:kv_cache_usage_perc",
                  "known": "vllm:prefix_cache_hits_total", "memory": "weft_worker_memory_bytes",
                  "read/s": "weft_worker_prefill_tokens_per_second",
                  "write/s": "weft_worker_decode_tokens_per_second"}
CARDS_SCRIPT = """[...document.querySelectorAll('#cards li')].map((li) => {
    const read = (list) => Object.fromEntries([...list.children].map((cell) =>
        [cell.firstChild.textContent, Number(cell.lastChild.dataset.value ?? NaN)]));
    return {name: li.dataset.node, state: li.querySelector('.state').textContent,
        figures: read(li.querySelector('.figures')),
        workers: [...li.querySelectorAll('.worker')].map((row) =>
            ({pid: row.dataset.pid, figures: read(row.lastChild)}))};
})"""


def cards_wrong(page, told):
    """Figures of the cards that are not as in `told`, what /metrics says."""
    def off(shown, name, label):
        wanted = [value for line, value in told.items() if line.startswith(name + "{")
                  and label in line and ("streams" not in line or 'streams="1"' in line)]
        return shown is not None and (len(wanted) != 1 or
                                      abs(shown - wanted[0]) > 1e-6 * max(1, abs(wanted[0])))
    wrong = []
    for card in page.value(CARDS_SCRIPT):
        groups = [(card["figures"], MEMBER_FIGURES, f'node="{card["name"]}"')]
        groups += [(worker["figures"], WORKER_FIGURES, f'pid="{worker["pid"]}"')
                   for worker in card["workers"]]
        wrong += [(label, figure, figures[figure]) for figures, names, label in groups
                  for figure, name in names.items() if off(figures[figure], name, label)]
    return wrong


@case("dashboard/cards", ONE, dirty=True)
def cards(mesh, _quick):
    """Every figure of every card is what /metrics says, of the workers at this node, too; a node
    that drains is shown as such."""
    with gateway(mesh, "frankfurt") as g, \
            browser(lambda command: mesh.in_netns(command, "frankfurt")) as page:
        page.size(1440, 900)
        page.open("http://127.0.0.1:8080/")
        shows(page, "#totals", "3 / 3")
        for _ in range(2):
            g.ask("POST", CHAT, chat(MODEL, "What does a loom do? " * 8, max_tokens=4))

        def mine():
            return next(c for c in page.value(CARDS_SCRIPT) if c["name"] == "frankfurt")
        wait_until(lambda: any(w["figures"]["known"] for w in mine()["workers"]), PAGE_S,
                   "the second prompt was known")
        check(set(WORKER_FIGURES) == set(mine()["workers"][0]["figures"]), mine())
        # The node is asked once a second: what both have heard of becomes the same.
        wait_until(lambda: not cards_wrong(page, metrics(g)), PAGE_S, "figures as in /metrics")
        g.process.terminate()  # the page keeps what it has; the next gateway sees from tokyo
        g.process.wait(READY_S)
    with gateway(mesh) as g, browser(lambda command: mesh.in_netns(command, "tokyo")) as page:
        page.size(390, 844, dark=True)
        page.open("http://127.0.0.1:8080/")
        shows(page, "#totals", "3 / 3")
        client = mesh.start_ask()
        client.wait_text()
        worker = mesh.pid("frankfurt", "worker")
        os.kill(worker, signal.SIGTERM)
        shows(page, "#cards", "draining")
        wait_until(lambda: metrics(g).get('weft_member_draining{node="frankfurt"}') == 1, PAGE_S,
                   "/metrics says so, too")
        client.interrupt()
        client.finish(PAGE_S)
        wait_until(lambda: not mesh_state.process_alive(worker), PAGE_S, "the worker ended")
        os.unlink(f"{mesh.node('frankfurt')['folder']}/worker.pid")


# ---- pictures ----

def picture(page, name, width):
    folder = os.environ.get("WEFT_SCREENSHOTS")
    with tempfile.TemporaryDirectory() as spare:
        path = Path(folder or spare) / f"{name}-{width}.png"
        page.screenshot(path)
        check(path.stat().st_size > 5000, "an empty picture:", path)


def fits(page, width):
    """Nothing is wider than the window."""
    wide = page.value("document.documentElement.scrollWidth")
    check(wide <= width, f"the page is {wide} wide in a window of {width}")


def shows(page, selector, text):
    wait_until(lambda: text in (page.text(selector) or ""), PAGE_S, f"{selector} says {text!r}")


def view(page, url, name, expect):
    """Opens it in both sizes, once dark; `expect` waits for what it should show."""
    for width, height in SIZES:
        page.size(width, height, dark=width > 1000)
        page.open(url)
        expect(page)
        fits(page, width)
        picture(page, name, width)
    # The page before may have called once more a server that had just ended.
    errors = [error for error in page.errors if "http://" not in error or url in error]
    check(not errors, "the console has errors:", errors)


@case("dashboard/states", NONE)
def states(_mesh, _quick):
    """Empty, one node, 200 nodes, disconnected: each says what it is, in both sizes."""
    with browser() as page:
        with feed(0, coast=COAST, known=False) as (url, _):
            view(page, url, "empty", lambda p: shows(p, "#notice", "no node to ask"))
        with feed(0, coast=COAST, known=False, error="Connection refused") as (url, _):
            view(page, url, "silent", lambda p: shows(p, "#notice", "does not answer"))
        with feed(1, coast=COAST) as (url, _):
            view(page, url, "one", lambda p: shows(p, "#totals", "1 / 1"))
        with feed(200, rate=3, coast=COAST) as (url, end):
            view(page, url, "many", lambda p: shows(p, "#cards-more", "and 140 more"))
            page.value("document.getElementById('filter').value = 'frankfurt-1'")
            page.value("document.getElementById('filter').dispatchEvent(new Event('input'))")
            shows(page, "#cards", "frankfurt-1")
            end()
            for width, height in SIZES:
                page.size(width, height)
                shows(page, "#link", "disconnected")
                shows(page, "#notice", "s old")
                picture(page, "disconnected", width)


@case("dashboard/touch", NONE)
def touch(_mesh, _quick):
    """Two fingers zoom the map about the place between them and move it, one moves it, a tap picks
    a node; the page itself stays."""
    with browser() as page, feed(1, coast=COAST) as (url, _):
        page.size(390, 844)
        page.open(url)
        shows(page, "#totals", "1 / 1")

        def at():
            return [float(n) for n in page.value("canvas.dataset.view").split()]

        def shown(lon, zoom):
            wait_until(lambda: abs(at()[0] - lon) < 2 and abs(at()[2] - zoom) < 0.05, PAGE_S,
                       f"longitude {lon}, zoom {zoom}")
        x, y, wide, high = page.value("(({x, y, width, height}) => [x, y, width, height])"
                                      "(canvas.getBoundingClientRect())")
        x, y, degree = x + wide / 2, y + high / 2, wide / 360
        page.touch("touchStart", (x - 10, y))
        page.touch("touchStart", (x - 10, y), (x + 10, y))
        for apart in range(12, 41, 4):
            page.touch("touchMove", (x - apart, y), (x + apart, y))
        shown(0, 4)
        page.touch("touchMove", (x - 40 + 30, y), (x + 40 + 30, y))
        shown(-30 / degree / 4, 4)
        page.touch("touchEnd")
        page.touch("touchStart", (x, y))
        for step in range(10, 61, 10):
            page.touch("touchMove", (x - step, y))
        shown(30 / degree / 4, 4)
        page.touch("touchEnd")
        page.touch("touchStart", (x - 40, y))
        page.touch("touchStart", (x - 40, y), (x + 40, y))
        for apart in range(36, 3, -4):
            page.touch("touchMove", (x - apart, y), (x + apart, y))
        wait_until(lambda: at()[2] == 1, PAGE_S, "as far as it goes")
        page.touch("touchEnd")
        check(page.value("visualViewport.scale") == 1 and page.value("scrollY") == 0, "the page")
        check(not page.errors, "the console has errors:", page.errors)


@case("dashboard/frames", NONE)
def frames(_mesh, _quick):
    """A thousand nodes with flows all the time: frames per second are told, not judged."""
    with browser() as page, feed(NODES_MANY, rate=10, coast=COAST) as (url, _):
        page.size(1440, 900)
        page.open(url)
        shows(page, "#totals", f"/ {NODES_MANY}")
        count = page.value(f"""new Promise((done) => {{
            const from = performance.now();
            let count = 0;
            (function frame(now) {{
                count++;
                if (now - from > {FRAMES_MS}) done(count * 1000 / (now - from));
                else requestAnimationFrame(frame);
            }})(from);
        }})""")
        check(count > 1, "it stands still")
        check(not page.errors, "the console has errors:", page.errors)
        picture(page, "thousand", 1440)
    return f"{count:.0f} frames/s with {NODES_MANY} nodes, drawn without a GPU"


@case("dashboard/live_page", ONE)
def live_page(mesh, _quick):
    """In front of a real mesh: its members, an answer that comes in, a query."""
    with gateway(mesh) as g, browser(lambda command: mesh.in_netns(command, "tokyo")) as page:
        for width, height in SIZES:
            page.size(width, height, dark=width < 1000)
            page.open("http://127.0.0.1:8080/")
            shows(page, "#totals", "3 / 3")
            shows(page, "#cards", "frankfurt")
            done = g.ask("POST", CHAT, chat(MODEL, "Name a colour.", max_tokens=6))
            check(done.status == 200, done)
            shows(page, "#lines", f"→ {done.json['usage']['completion_tokens']}")
            page.value("document.querySelector('#ask button').click()")
            shows(page, "#found", "It would go to frankfurt.")
            fits(page, width)
            picture(page, "mesh", width)
        answers = metrics(g)['weft_gateway_node_answers_total{node="frankfurt"}']
        wait_until(lambda: page.value("document.querySelectorAll('#lines tr').length") == answers,
                   PAGE_S, f"a line for each of {answers} answers in /metrics")
        check(not page.errors, "the console has errors:", page.errors)
