# SPDX-License-Identifier: Apache-2.0
"""Prompts that begin alike go where that beginning has been computed, whoever asks and wherever, as
long as that pays. See harness.py."""
import json

from cases_drain import FRANKFURT
from cases_gossip import weft
from harness import MODEL, MeshSpec, case, check, expect_served

LEAST = 128  # tokens
RULES = ["a weaver counts threads before noon", "wool is washed in rain water",
         "red is dyed twice and blue once", "nobody sings while the loom stands still"]
SYSTEM = "You are a weaver. " + " ".join(f"Rule {n}: {RULES[n % len(RULES)]}." for n in range(60))


def come_together(mesh):
    """How fast the workers measured themselves to be is anything on a busy machine, so the first
    request says where it wants to go; what the others save is far more than any way."""
    def ask(question, **options):
        answer = mesh.ask(question, system=SYSTEM, max_tokens=1, **options)
        expect_served(answer)
        return answer.node, answer.json["cached_tokens"]

    def counted():
        counters = mesh.status("tokyo")["counters"]
        return counters["prefix_told"], counters["prefix_known"]

    ask("What is red?", tiers=(5, 5))
    told, known = counted()
    again, cached = ask("What is blue?", near=FRANKFURT)
    check(again == "newyork" and cached > LEAST, "the beginning was computed again:", again, cached)
    check(counted() == (told + 1, known + 1), "not counted")
    # Another ingress has heard of it from newyork itself.
    node, cached = ask("And wool?", ingress="frankfurt", near=FRANKFURT)
    check(node == "newyork" and cached > LEAST, "the other ingress does not know:", node, cached)
    # What a trace says of it, with the prompt that is to be sent.
    prompt = json.dumps({"model": MODEL, "system": SYSTEM, "prompt": "Who sings?",
                         "near": FRANKFURT})
    done = weft(mesh, "trace", "frankfurt", "--dry", prompt)
    account = json.loads(done.stdout)
    here = next(c for c in account["candidates"] if c["name"] == "newyork")
    check(account["would_choose"] == "newyork" and "tokens of the prompt" in account["why"]
          and here["cached_tokens"] > LEAST and here["saved_ms"] > 0, "not traced:", account)
    return (f"{cached} tokens were there already, {here['cached_tokens']} of them credited: "
            f"{here['saved_ms']:.0f} ms")


@case("prefix/come_together", MeshSpec())
def told_by_beacons(mesh, _quick):
    """Two real workers under a static mesh: what they have is in their beacons."""
    return come_together(mesh)


@case("prefix/come_together_by_gossip", MeshSpec(gossip=True))
def told_by_gossip(mesh, _quick):
    """The same of nodes that tell it in their states."""
    return come_together(mesh)
