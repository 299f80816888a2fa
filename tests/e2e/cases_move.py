# SPDX-License-Identifier: Apache-2.0
"""A session goes on at another node: what its old one knows of it is fetched, not computed again;
where that cannot be, it is computed. The same text either way. See harness.py."""
import subprocess
import uuid

from harness import MODEL, MeshSpec, case, check, wait_until
from http_client import gateway

MESH = MeshSpec(nodes=2, workers="all", gossip=True)
CHAT = "/v1/chat/completions"
READY_S = 60.0
TALKS = 4
PAGE = 16


class Talk:
    """A session of its own, about something that nobody has in its cache."""

    def __init__(self, web):
        self.web = web
        self.session = uuid.uuid4().hex
        facts = " ".join(f"Box {i} of {self.session[:6]} is {i * 7 % 31} wide." for i in range(16))
        self.messages = [{"role": "user", "content": facts + " How wide is box 5?"}]

    def ask(self):
        reply = self.web.ask("POST", CHAT, {
            "model": MODEL, "messages": self.messages, "max_tokens": 8, "temperature": 0},
            {"x-weft-session": self.session})
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


def sees(mesh, ingress, name, draining):
    return any(m["name"] == name and m["draining"] == draining and m["models"]
               for m in mesh.status(ingress)["members"])


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


@case("session/pages_move", MESH, dirty=True)
def pages_move(mesh, _quick):
    """The node of a session drains: the next turn goes to the other node, which fetches the pages;
    text, account, status and metrics say so. Then the worker that has a session is killed: nothing
    can be fetched, and the same text comes all the same."""
    with gateway(mesh) as web:
        for node in mesh.nodes():
            wait_until(lambda n=node["name"]: sees(mesh, "tokyo", n, False), READY_S,
                       f"tokyo sees the worker of {node['name']}")
        tried = []

        def moves():
            begun = begin(mesh, web)
            if begun is None:
                return None
            talk, home, expected = begun
            target = other_of(mesh, home)
            drain(mesh, home)
            try:
                wait_until(lambda: sees(mesh, "tokyo", home, True), READY_S, f"{home} drains")
                before = mesh.status(target)["moves"]
                where, text, total, cached = talk.ask()
                after = mesh.status(target)["moves"]
            finally:
                drain(mesh, home, "--undo")
            check(where == target and text == expected, "not as at home:", where, text, expected)
            wait_until(lambda: sees(mesh, "tokyo", home, False), READY_S, f"{home} is back")
            tried.append((cached, total, after))
            if cached < total - 2 * PAGE:
                return None  # a machine so busy that it would have taken too long
            pages = after["pages_moved"] - before["pages_moved"]
            return home, target, pages, cached, total

        def some_talk():
            return next((moved for moved in (moves() for _ in range(TALKS)) if moved), None)
        moved = some_talk()
        check(moved is not None, "no session has moved:", tried)
        home, target, pages, cached, total = moved
        # What the end of a session has in common with others is there already.
        check(pages * PAGE > total // 2, "pages:", moved, tried)
        wait_until(lambda: mesh.status(home)["moves"]["pages_given"] >= pages, READY_S,
                   f"{home} says what it has given")
        check(mesh.status(target)["moves"]["sessions_moved"] >= 1, mesh.status(target)["moves"])
        metrics = web.ask("GET", "/metrics").body.decode()
        check("weft_node_pages_moved_total" in metrics, metrics[-2000:])
        begun = next(begun for begun in (begin(mesh, web) for _ in range(TALKS)) if begun)
        talk, home, expected = begun
        target = other_of(mesh, home)
        before = mesh.status(target)["moves"]["move_fallbacks"]
        mesh.kill(home, "worker")
        wait_until(lambda: not mesh.sees_worker("tokyo", home), READY_S, f"{home} has no worker")
        where, text, total, _ = talk.ask()
        check(where == target and text == expected, "computed anew:", where, text, expected)
        wait_until(lambda: mesh.status(target)["moves"]["move_fallbacks"] > before, READY_S,
                   "it says that nothing could be fetched")
        return f"{pages} pages, {cached} of {moved[4]} tokens"
