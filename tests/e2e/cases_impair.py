# SPDX-License-Identifier: Apache-2.0
"""Bad networks: weft-impair between client, ingress and server. Whatever it does to the packets, an
answer is the same to the byte as over a perfect network, or an explicit error; never a short text
that counts as a success. See harness.py, bench/impair/README.md."""
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from cases_system import run_checked
from harness import (BOUND_S, EXIT_ERROR, EXIT_OK, EXIT_REFUSED, MeshSpec, case, check,
                     status_table, wait_until)

SPEC = MeshSpec(nodes=2, workers="frankfurt")
INGRESS, SERVER = "tokyo", "frankfurt"
AT_A_TIME = 4         # as many as the worker serves at once
SETTLE_S = 10.0
STREAM_TOKENS = 70
CUT_S = 0.7
PROMPTS = (
    ("Say hello.", 4),
    ("What does a loom do?", 16),
    # Of several datagrams and few tokens: fragments get lost, overtake each other and come twice.
    ("What does a loom do? " + "international " * 150 + "What does a loom do?", 4),
)
STREAM_PROMPT = "Write a story about a weaver."


def impair(mesh, *lines):
    """These rules instead of those before; none: perfect links, by weft-impair all the same."""
    with tempfile.NamedTemporaryFile("w", suffix=".impair", delete=False) as file:
        file.write("\n".join(("seed 1", *lines)) + "\n")
    try:
        mesh.script("impair", file.name, "--build-dir", str(mesh.build_dir))
    finally:
        os.unlink(file.name)


def tell(mesh, *words):
    """A command to the running switch; its answer."""
    command = [mesh.build_dir / "bin" / "weft-impair", "tell", f"{mesh.folder}/sw/impair.sock",
               *words]
    return json.loads(run_checked([str(c) for c in command], 10))


def total(mesh, counter):
    return sum(pair[counter] for pair in tell(mesh, "counters")["pairs"])


def heal(mesh):
    """Perfect links, and a mesh that has got over what was before."""
    impair(mesh)
    wait_until(lambda: mesh.sees_worker(INGRESS, SERVER), SETTLE_S, "members see each other again")


def perfect_texts(mesh):
    """What the prompts give over perfect links; asked once a mesh."""
    if not hasattr(mesh, "perfect_texts"):
        heal(mesh)
        mesh.perfect_texts = {}
        for prompt, tokens in (*PROMPTS, (STREAM_PROMPT, STREAM_TOKENS)):
            answer = mesh.ask(prompt, max_tokens=tokens)
            check(answer.code == EXIT_OK and answer.json.get("text"), "perfect, yet:", answer)
            mesh.perfect_texts[prompt] = answer.json["text"]
    return mesh.perfect_texts


def check_honest(answer, text):
    """The whole text, or a status that says what is wrong. Returns the status."""
    if answer.code == EXIT_OK:
        check(answer.status == "ok", "exit status 0 without success:", answer)
        check(answer.json.get("text") == text, f"another text than '{text}' as a success:", answer)
    else:
        check(answer.code in (EXIT_ERROR, EXIT_REFUSED), "unexpected end:", answer)
        check(answer.status in status_table() and answer.status != "ok", "no status:", answer)
        check(answer.json.get("status_text"), "no text of the status:", answer)
    return answer.status


def ask_all(mesh, rounds=2):
    """All prompts, some at a time, each held against its perfect text; how many ended how."""
    texts = perfect_texts(mesh)

    def ask(item):
        prompt, tokens = item
        return check_honest(mesh.ask(prompt, max_tokens=tokens, timeout_s=4 * BOUND_S),
                            texts[prompt])
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        ends = list(pool.map(ask, PROMPTS * rounds))
    return {status: ends.count(status) for status in sorted(set(ends))}


def under(mesh, counter, *lines):
    """All prompts under these rules; the rules must have been at work, seen by their counter."""
    perfect_texts(mesh)
    heal(mesh)
    impair(mesh, *lines)
    tell(mesh, "reset")
    started = time.monotonic()
    ends = ask_all(mesh, rounds=2 if counter else 1)
    seconds = time.monotonic() - started
    hit = total(mesh, counter) if counter else 0
    check(not counter or hit > 0, f"nothing was {counter}; answers:", ends)
    heal(mesh)
    said = ", ".join(f"{n} {status}" for status, n in ends.items())
    return ends, f"{said}; {hit} {counter}, {seconds:.1f} s" if counter else f"{said}"


@case("impair/loss", SPEC)
def loss(mesh, quick):
    """Answers over links that lose 0, 5, 20 and 30 % of all packets, each way and each hop."""
    remarks = []
    for percent in (0, 20) if quick else (0, 5, 20, 30):
        ends, remark = under(mesh, "lost" if percent else None, f"default loss={percent}%")
        check(percent > 5 or set(ends) == {"ok"}, f"not all served at {percent} %:", ends)
        remarks.append(f"{percent} %: {remark}")
    return "; ".join(remarks)


@case("impair/bursts", SPEC)
def bursts(mesh, _quick):
    """Answers over links that lose several packets in a row."""
    return under(mesh, "burst_lost", "default delay=2ms burst=2%/25%")[1]


@case("impair/reorder", SPEC)
def reorder(mesh, _quick):
    """Answers whose packets overtake each other; all are served."""
    ends, remark = under(mesh, "reordered", "default delay=3ms jitter=3ms reorder=30%/15ms")
    check(set(ends) == {"ok"}, "nothing was lost, yet not all served:", ends)
    return remark


@case("impair/duplicate", SPEC)
def duplicate(mesh, _quick):
    """Answers whose packets come twice, at different times; all are served."""
    ends, remark = under(mesh, "duplicated", "default duplicate=50% delay=2ms jitter=2ms")
    check(set(ends) == {"ok"}, "nothing was lost, yet not all served:", ends)
    return remark


@case("impair/bit_flips", SPEC)
def bit_flips(mesh, _quick):
    """Answers whose packets are damaged: what fails its checksum counts as lost."""
    return under(mesh, "flipped", "default flip=0.02%")[1]


@case("impair/repaired_bit_flips", SPEC)
def repaired_bit_flips(mesh, _quick):
    """The same where a box on the way makes the checksums right again: Weft's own sums find it."""
    return under(mesh, "flipped", "default flip=0.02%/repair")[1]


@case("impair/all_at_once", SPEC)
def all_at_once(mesh, _quick):
    """Loss, jitter, reordering, duplicates and damage together."""
    return under(mesh, "lost", "default loss=5% delay=3ms jitter=3ms reorder=10%/10ms "
                 "duplicate=10% flip=0.005%/repair")[1]


@case("impair/narrow", SPEC)
def narrow(mesh, _quick):
    """Answers over a slow link with a short queue and a long way."""
    return under(mesh, None, "default delay=20ms rate=2mbit/8KiB")[1]


@case("impair/marks", SPEC)
def marks(mesh, _quick):
    """A queue that marks instead of losing: nodes see and pass on the marks, all are served."""
    seen = lambda: sum(mesh.status(name)["counters"]["congestion"]  # noqa: E731
                       for name in (INGRESS, SERVER))
    before = seen()
    ends, remark = under(mesh, "marked", "default delay=2ms rate=1mbit/64KiB/1KiB")
    check(set(ends) == {"ok"}, "nothing was lost, yet not all served:", ends)
    noted = seen() - before
    check(noted > 0, "packets were marked, and no node has seen it")
    return f"{remark}, {noted} seen by nodes"


def cut_stream(mesh, pair, heal_after_s):
    """Cuts one way in the middle of an answer, for some time or for good; how it ended."""
    text = perfect_texts(mesh)[STREAM_PROMPT]
    heal(mesh)
    client = mesh.start_ask(STREAM_PROMPT, max_tokens=STREAM_TOKENS)
    client.wait_text()
    tell(mesh, "rule", f"{pair} cut=yes")
    if heal_after_s:
        time.sleep(heal_after_s)
        tell(mesh, "rule", f"{pair} cut=no")
    answer = client.finish(BOUND_S + STREAM_TOKENS / 10)
    cut = total(mesh, "cut")
    heal(mesh)
    check(cut > 0, "the cut met no packet:", pair)
    if answer.code == EXIT_OK:
        check(answer.out.rstrip("\n") == text.rstrip("\n"), "short or other text as a success:",
              answer)
        return f"complete after {answer.seconds:.1f} s"
    check(answer.code == EXIT_ERROR, "neither complete nor an error:", answer)
    check(any(sentence in answer.err for sentence in status_table().values()),
          "an error without its sentence:", answer)
    return f"error after {answer.seconds:.1f} s"


@case("impair/one_way_for_a_while", SPEC)
def one_way_for_a_while(mesh, quick):
    """One direction is blocked in the middle of an answer and opens again."""
    pairs = (f"{INGRESS} -> client", f"{SERVER} -> {INGRESS}", f"client -> {INGRESS}",
             f"{INGRESS} -> {SERVER}")
    return "; ".join(f"{p}: {cut_stream(mesh, p, CUT_S)}" for p in pairs[:2 if quick else None])


@case("impair/one_way_for_good", SPEC)
def one_way_for_good(mesh, _quick):
    """One direction is blocked in the middle of an answer for good: an error in bounded time."""
    end = cut_stream(mesh, f"{INGRESS} -> client", None)
    check(end.startswith("error"), "a stream without a way to the client:", end)
    return end


@case("impair/bridge_again", SPEC)
def bridge_again(mesh, _quick):
    """Without weft-impair the bridge carries the mesh as before."""
    heal(mesh)
    mesh.script("impair", "none")
    wait_until(lambda: mesh.sees_worker(INGRESS, SERVER), SETTLE_S, "members see each other")
    text = perfect_texts(mesh)[PROMPTS[0][0]]
    check(check_honest(mesh.ask(PROMPTS[0][0], max_tokens=PROMPTS[0][1]), text) == "ok",
          "not served over the bridge")
