# SPDX-License-Identifier: Apache-2.0
"""A session goes on at another node: what its old one knows of it is fetched, not computed again;
where that cannot be, it is computed. The same text either way. See harness.py."""
import concurrent.futures
import contextlib
import subprocess
import time
import uuid
from dataclasses import dataclass

from cases_models import Worker, workers_of
from harness import MODEL, MeshSpec, case, check, wait_until
from http_client import gateway

MESH = MeshSpec(nodes=2, workers="all", gossip=True)
STATIC = MeshSpec(nodes=2, workers="all")
BARE = MeshSpec(nodes=2, workers="none", gossip=True)
CHAT = "/v1/chat/completions"
READY_S = 60.0
TOLD_S = 5.0  # until the node has been told what its worker counts
TALKS = 4
MANY = 8  # sessions at once
RETRIES, RETRY_S = 20, 0.1
PAGE = 16


class Talk:
    """A session of its own, about something that nobody has in its cache."""

    def __init__(self, web):
        self.web = web
        self.session = uuid.uuid4().hex
        facts = " ".join(f"Box {i} of {self.session[:6]} is {i * 7 % 31} wide." for i in range(16))
        self.messages = [{"role": "user", "content": facts + " How wide is box 5?"}]

    def ask(self):
        """As clients do: again, if the gateway says so. The only worker that takes requests may not
        have had a processor for a moment, and whoever stands still has no room."""
        body = {"model": MODEL, "messages": self.messages, "max_tokens": 8, "temperature": 0}
        for _ in range(RETRIES):
            reply = self.web.ask("POST", CHAT, body, {"x-weft-session": self.session})
            if reply.status == 200 or reply.headers.get("x-should-retry") != "true":
                break
            time.sleep(RETRY_S)
        check(reply.status == 200, "no answer:", reply)
        usage = reply.json["usage"]
        return (reply.headers["x-weft-node"], reply.json["choices"][0]["message"]["content"],
                usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"])

    def next(self, answer, question):
        self.messages += [{"role": "assistant", "content": answer},
                          {"role": "user", "content": question}]


def drain(mesh, name, *options):
    done = subprocess.run([mesh.build_dir / "bin" / "weft", "drain", "--socket",
                           mesh.node(name)["admin"], *options], capture_output=True, text=True,
                          check=False)
    check(done.returncode == 0, "weft drain:", done.stderr)
    return done.stdout


def sees(mesh, ingress, name, draining):
    """Drains, or takes requests: a worker that stood still has no room until it is heard again."""
    return any(m["name"] == name and m["draining"] == draining and m["models"]
               and (draining or m["room"] > 0) for m in mesh.status(ingress)["members"])


def begin(mesh, web):
    """Two turns at one node, and whose turn it is next. Returns talk, node, text of turn two."""
    talk = Talk(web)
    first, text, _, _ = talk.ask()
    talk.next(text, "And box 9?")
    home, text, total, cached = talk.ask()
    if home != first or cached < total // 2:
        return None  # round trips on a busy machine were a reason to move
    return talk, home, text


def other_of(mesh, name):
    return next(node["name"] for node in mesh.nodes() if node["name"] != name)


def both_seen(mesh):
    """Both nodes have a worker that takes requests, as tokyo sees it."""
    for node in mesh.nodes():
        wait_until(lambda n=node["name"]: sees(mesh, "tokyo", n, False), READY_S,
                   f"tokyo sees the worker of {node['name']}")


@contextlib.contextmanager
def drained(mesh, home, back=True):
    """The node takes nothing new meanwhile; `back`: then its worker is there again."""
    told = drain(mesh, home)
    check(("take what is known" if mesh.spec.gossip else "computed anew") in told, told)
    try:
        wait_until(lambda: sees(mesh, "tokyo", home, True), READY_S, f"{home} drains")
        yield
    finally:
        drain(mesh, home, "--undo")
    if back:
        wait_until(lambda: sees(mesh, "tokyo", home, False), READY_S, f"{home} is back")


@dataclass
class Turn:
    """The next turn of a session whose node drains."""
    home: str
    target: str
    expected: str
    text: str
    total: int
    cached: int
    figures: dict  # how `moves` of the target's status has grown
    seconds: float


def begin_at(mesh, web, home):
    """A talk of two turns there, for the other node takes none meanwhile, and the text of the
    second."""
    with drained(mesh, other_of(mesh, home)):
        talk, _, text = next(begun for begun in (begin(mesh, web) for _ in range(TALKS)) if begun)
    return talk, text


def next_turn(mesh, web, home):
    """A session begins there and goes on at the other node."""
    talk, expected = begin_at(mesh, web, home)
    target = other_of(mesh, home)
    with drained(mesh, home):
        before = mesh.status(target)["moves"]
        began = time.monotonic()
        where, text, total, cached = talk.ask()
        seconds = time.monotonic() - began
        check(where == target, "not at the other node:", where)

        def grown():
            after = mesh.status(target)["moves"]
            grown = {name: after[name] - before[name] for name in after}
            return (grown["pages_moved"] or grown["move_fallbacks"]) and grown
        deadline = time.monotonic() + TOLD_S
        while not (figures := grown()) and time.monotonic() < deadline:
            time.sleep(0.02)
    return Turn(home, target, expected, text, total, cached,
                figures or dict.fromkeys(before, 0), seconds)


def moved_turn(mesh, web, home):
    """One whose pages have moved, whatever a busy machine does: the same text as at home."""
    tried = []

    def attempt():
        turn = next_turn(mesh, web, home)
        check(turn.text == turn.expected, "not as at home:", turn)
        tried.append(turn)
        # Else so busy that it would have taken too long.
        return turn if turn.cached >= turn.total - 2 * PAGE else None
    turn = next((turn for turn in (attempt() for _ in range(TALKS)) if turn), None)
    check(turn is not None, "no session has moved:", tried)
    # What the end of a session has in common with others is there already.
    check(turn.figures["pages_moved"] * PAGE > turn.total // 2, "pages:", turn)
    return turn


@case("session/pages_move", MESH, dirty=True)
def pages_move(mesh, _quick):
    """The node of a session drains: the next turn goes to the other node, which fetches the pages;
    text, account, status and metrics say so. Then the worker that has a session is killed: nothing
    can be fetched, and the same text comes all the same."""
    with gateway(mesh) as web:
        both_seen(mesh)
        turn = moved_turn(mesh, web, "frankfurt")
        pages = turn.figures["pages_moved"]
        wait_until(lambda: mesh.status(turn.home)["moves"]["pages_given"] >= pages, READY_S,
                   f"{turn.home} says what it has given")
        check(mesh.status(turn.target)["moves"]["sessions_moved"] >= 1, turn)
        metrics = web.ask("GET", "/metrics").body.decode()
        check("weft_node_pages_moved_total" in metrics, metrics[-2000:])
        home, target = turn.home, turn.target
        talk, expected = begin_at(mesh, web, home)
        before = mesh.status(target)["moves"]["move_fallbacks"]
        mesh.kill(home, "worker")
        wait_until(lambda: not mesh.sees_worker("tokyo", home), READY_S, f"{home} has no worker")
        where, text, _, _ = talk.ask()
        check(where == target and text == expected, "computed anew:", where, text, expected)
        wait_until(lambda: mesh.status(target)["moves"]["move_fallbacks"] > before, READY_S,
                   "it says that nothing could be fetched")
        return f"{pages} pages, {turn.cached} of {turn.total} tokens"


def all_at_once(mesh, web):
    """Sessions begin at frankfurt and go on at tokyo together. Returns how many moved whole."""
    with drained(mesh, "tokyo"):
        begun = [one for one in (begin(mesh, web) for _ in range(MANY)) if one]
    with drained(mesh, "frankfurt"), concurrent.futures.ThreadPoolExecutor(MANY) as pool:
        answers = list(pool.map(lambda one: one[0].ask(), begun))
    for (_, home, expected), (where, text, _, _) in zip(begun, answers):
        check((home, where, text) == ("frankfurt", "tokyo", expected), "not as at home:", home,
              where, text, expected)
    return sum(cached >= total - 2 * PAGE for _, _, total, cached in answers)


@case("session/many_move", MESH, dirty=True)
def many_move(mesh, _quick):
    """All sessions of a node that drains go on elsewhere at once: each with the text of home. What
    is known of them moves, as far as that does not take longer than to compute it."""
    with gateway(mesh) as web:
        both_seen(mesh)
        wholes = []
        while not any(wholes):
            check(len(wholes) < TALKS, "none has moved:", wholes)
            wholes.append(all_at_once(mesh, web))
        wait_until(lambda: mesh.status("tokyo")["moves"]["sessions_moved"] >= sum(wholes), READY_S,
                   "tokyo says what has moved")
    return f"{wholes[-1]} of {MANY} sessions moved whole"


@case("session/static_is_computed", STATIC)
def static_is_computed(mesh, _quick):
    """In a static mesh nothing is fetched, and nobody waits for it: `weft drain` says so, and the
    same text comes."""
    with gateway(mesh) as web:
        both_seen(mesh)
        turn = next_turn(mesh, web, "frankfurt")
    check(turn.text == turn.expected, "not as at home:", turn)
    check(turn.figures["pages_moved"] == 0 and turn.figures["move_fallbacks"] == 1, turn)
    return f"{turn.total} tokens in {turn.seconds * 1e3:.0f} ms"


# How the model lies at tokyo and at frankfurt, and whether both give the same bits.
CUTS = (("--shards 2", "--shards 2", True), ("--stages 2", "", True), ("", "--stages 3", True),
        ("--shards 2", "", False), ("", "--shards 3", False))


@case("session/pages_move_between_ranks", BARE)
def pages_move_between_ranks(mesh, _quick):
    """Models that lie on several processes, cut alike, otherwise, or not at all. Between those that
    give the same bits the pages move, in either direction; between others the turn is computed."""
    told = []
    for tokyo, frankfurt, alike in CUTS:
        made = [Worker(mesh, node, *cut.split())
                for node, cut in (("tokyo", tokyo), ("frankfurt", frankfurt))]
        with workers_of(mesh, *made), gateway(mesh) as web:
            both_seen(mesh)
            if alike:
                turns = [moved_turn(mesh, web, home) for home in ("tokyo", "frankfurt")]
                told.append(f"{tokyo or 'whole'} and {frankfurt or 'whole'}: "
                            f"{[turn.figures['pages_moved'] for turn in turns]} pages")
                continue
            turn = next_turn(mesh, web, "tokyo")
            check(turn.figures["pages_moved"] == 0 and turn.figures["move_fallbacks"] == 1,
                  "fetched from who computes otherwise:", turn)
            check(turn.text, "no answer:", turn)
            told.append(f"{tokyo or 'whole'} and {frankfurt or 'whole'}: computed")
    return "; ".join(told)
