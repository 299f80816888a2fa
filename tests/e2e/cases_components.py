# SPDX-License-Identifier: Apache-2.0
"""Stages of one inference at different nodes (--experimental-components). See harness.py."""
from harness import MODEL, MeshSpec, case, check
from http_client import chat, gateway

MESH = MeshSpec()  # workers in frankfurt (eu) and newyork (us)
PATH = "/v1/components/run"
AMONG = ["Bread is made of flour, water and salt.", "Paris is the capital of France.",
         "A violin has four strings."]
QUESTION = "Which city is the capital of France?"


def stages(**decode):
    return {"stages": [
        {"component": "encode", "model": MODEL, "input": QUESTION, "among": AMONG,
         "weft": {"tags": "eu"}},
        {"component": "decode", "model": MODEL, "max_tokens": 8, "temperature": 0,
         "weft": {"tags": "us"}} | decode]}


@case("components/two_nodes", MESH)
def two_nodes(mesh, _quick):
    """Texts are encoded in frankfurt, the nearest goes on to newyork, whose answer is that of the
    same chat; off, it is 501; a stage that cannot be is refused as such."""
    with gateway(mesh) as g:
        check(g.ask("POST", PATH, stages()).status == 501, "not off")
    with gateway(mesh, "tokyo", "--experimental-components") as g:
        done = g.ask("POST", PATH, stages())
        check(done.status == 200, done)
        encode, decode = done.json["stages"]
        check(set(encode["nodes"]) == {"frankfurt"} and decode["node"] == "newyork", done)
        check(encode["best"] == 1 and encode["dimensions"] > 0, "not the nearest:", encode)
        wanted = g.ask("POST", "/v1/chat/completions",
                       chat(MODEL, f"{AMONG[1]}\n\n{QUESTION}", max_tokens=8, temperature=0))
        check(decode["text"] == wanted.json["choices"][0]["message"]["content"], decode, wanted)
        vectors = g.ask("POST", "/v1/embeddings", {"model": MODEL, "input": [QUESTION, AMONG[1]]})
        one, two = (entry["embedding"] for entry in vectors.json["data"])
        check(abs(sum(a * b for a, b in zip(one, two)) - encode["similarity"][1]) < 1e-3, encode)
        nobody = g.ask("POST", PATH, stages(weft={"tags": "hipaa"}))
        check(nobody.status == 422 and nobody.error["code"] == "no_capable_node", nobody)
        check(g.ask("POST", PATH, stages(component="paint")).status == 400, "no such component")
        check(g.ask("POST", PATH, stages(temperature=9)).status == 400, "no such temperature")
        return (f"encode {encode['total_us'] / 1e3:.0f} ms in frankfurt, decode "
                f"{decode['total_us'] / 1e3:.0f} ms in newyork")
