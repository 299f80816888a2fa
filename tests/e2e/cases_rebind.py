# SPDX-License-Identifier: Apache-2.0
"""What changes under an answer on its way: the client's address (nat.py stands for its NAT), and
how large a packet may be, in the middle of a prompt and of a reply. All are served, to the byte.
See harness.py, cases_impair.py."""
import contextlib
import random
import signal
import subprocess
import sys
import time

from cases_impair import (BOUND_S, INGRESS, SPEC, STREAM_PROMPT, STREAM_TOKENS, heal, impair,
                          perfect_texts, tell, total)
from cases_sdk import ECHO, echo_worker
from harness import EXIT_OK, ROOT, case, check

SECOND_ADDRESS = "10.77.0.201"
INTERFACE = "veth0"
CHANGE_EVERY_S = 0.3
ECHO_INGRESS = "frankfurt"  # the echo worker is Tokyo's
WORD_BYTES, WORDS = 1100, 90
MTU_WIDE, MTU_NARROW = 1500, 900
UPLOAD_S = 0.2              # into a prompt of a second


def words(seed):
    """A prompt whose words, which come back one a step, fill datagrams."""
    draw = random.Random(seed)
    return " ".join("".join(draw.choices("abcdefgh", k=WORD_BYTES)) for _ in range(WORDS))


def check_whole(answer, text, what):
    check(answer.code == EXIT_OK and answer.out.strip() == text.strip(), f"{what}:",
          f"{len(answer.out)} of {len(text)} bytes,", str(answer)[-300:])


@contextlib.contextmanager
def nat(mesh, ingress):
    """A NAT in the client's namespace with two addresses to choose from; yields it and its port."""
    address = mesh.facts["client_address"]
    subprocess.run(mesh.in_netns(["ip", "address", "add", f"{SECOND_ADDRESS}/24", "dev",
                                  INTERFACE]), check=True, capture_output=True)
    process = subprocess.Popen(
        mesh.in_netns([sys.executable, ROOT / "tests" / "e2e" / "nat.py",
                       mesh.node(ingress)["address"], mesh.facts["data_port"], address,
                       SECOND_ADDRESS]), stdout=subprocess.PIPE, text=True)
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        subprocess.run(mesh.in_netns(["ip", "address", "delete", f"{SECOND_ADDRESS}/24", "dev",
                                      INTERFACE]), check=True, capture_output=True)


def change(process):
    """The client has another address and port from now on; says which."""
    process.send_signal(signal.SIGUSR1)
    return process.stdout.readline().strip()


@case("rebind/address", SPEC)
def address(mesh, quick):
    """The client's address and port change again and again in the middle of answers."""
    text = perfect_texts(mesh)[STREAM_PROMPT]
    heal(mesh)
    changes, seconds = 0, []
    with nat(mesh, INGRESS) as (process, port):
        for _ in range(2 if quick else 5):
            client = mesh.start_ask(STREAM_PROMPT, max_tokens=STREAM_TOKENS,
                                    node=f"127.0.0.1:{port}")
            client.wait_text()
            while client.process.poll() is None:
                check(change(process), "the NAT has no other address")
                changes += 1
                time.sleep(CHANGE_EVERY_S)
            answer = client.finish(BOUND_S)
            check_whole(answer, text, f"behind {changes} changes")
            seconds.append(answer.seconds)
    check(changes > len(seconds), "hardly any change in the middle of an answer")
    return f"{len(seconds)} answers whole, {changes} changes; {max(seconds):.1f} s at most"


@case("rebind/prompt", SPEC)
def prompt(mesh, _quick):
    """The client's address changes while its prompt goes up, a datagram at a time."""
    text = words(1)
    heal(mesh)
    with echo_worker(mesh), nat(mesh, ECHO_INGRESS) as (process, port):
        impair(mesh, f"client -> {ECHO_INGRESS} rate=1mbit/256KiB")
        client = mesh.start_ask(text, max_tokens=WORDS, model=ECHO, node=f"127.0.0.1:{port}")
        time.sleep(UPLOAD_S)
        change(process)
        answer = client.finish(4 * BOUND_S)
        check_whole(answer, text, "its address changed in the middle of the prompt")
        heal(mesh)
    return f"{len(text)} bytes up, whole after {answer.seconds:.1f} s"


def shrink(mesh, pair, in_prompt):
    """The way carries less from the middle on; how long the whole took."""
    text = words(2)
    heal(mesh)
    slow = f"client -> {ECHO_INGRESS} rate=1mbit/256KiB" if in_prompt else "default delay=2ms"
    impair(mesh, slow, f"{pair} mtu={MTU_WIDE}")
    tell(mesh, "reset")
    client = mesh.start_ask(text, ingress=ECHO_INGRESS, max_tokens=WORDS, model=ECHO)
    if in_prompt:
        time.sleep(UPLOAD_S)
    else:
        client.wait_text()
    check(total(mesh, "too_big") == 0, "something was too large before")
    tell(mesh, "rule", f"{pair} mtu={MTU_NARROW}")
    answer = client.finish(4 * BOUND_S)
    lost = total(mesh, "too_big")
    heal(mesh)
    check(lost > 0, f"nothing was too large on {pair}")
    check_whole(answer, text, f"{pair} from {MTU_WIDE} to {MTU_NARROW} bytes")
    return f"{pair}: {lost} too large, whole after {answer.seconds:.1f} s"


@case("rebind/mtu", SPEC)
def mtu(mesh, _quick):
    """Each link on the way carries smaller packets from the middle of a prompt or reply on, and
    nobody tells the sender."""
    with echo_worker(mesh):
        return "; ".join((shrink(mesh, f"client -> {ECHO_INGRESS}", True),
                          shrink(mesh, f"{ECHO_INGRESS} -> tokyo", True),
                          shrink(mesh, f"tokyo -> {ECHO_INGRESS}", False),
                          shrink(mesh, f"{ECHO_INGRESS} -> client", False)))
