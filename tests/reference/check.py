#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The engine's greedy answers against an implementation that shares nothing with it.

numpy in float32, weights expanded by the package gguf. greedy_tokens gives prompts and answers as
token ids; here each whole sequence goes through the network once, and every token of an answer has
to be the likeliest one behind what comes before it. That is the same as decoding greedily oneself.
"""

import argparse
import random
import subprocess
import sys

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

SUBJECTS = "a river,a lighthouse,the moon,a violin,bread,a bicycle,an old map,snow".split(",")
ASKED = (
    "Write two sentences about {}.|Why is {} useful?|Explain {} to a child.|"
    "List three facts about {}.|What does {} have to do with {}?|Tell a short story of {} and {}."
).split("|")


def questions(count, long_count, seed):
    """Short ones, and long_count with a text of about 2,000 tokens before them."""
    rng = random.Random(seed)
    out = []
    for i in range(count):
        text = rng.choice(ASKED)
        while "{}" in text:
            text = text.replace("{}", rng.choice(SUBJECTS), 1)
        if i < long_count:
            ends = [".", ",", " and", " or"]
            words = " ".join(rng.choice(SUBJECTS) + rng.choice(ends) for _ in range(560))
            text = words + " " + text
        out.append(f"{text} ({rng.randrange(1000)})")
    return out


class Network:
    """llama of GGUF: rotation of neighbouring pairs, grouped heads, SwiGLU."""

    def __init__(self, path):
        reader = GGUFReader(path)
        self.w = {
            t.name: dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors
        }

        def field(name):
            return reader.fields["llama." + name].parts[-1][0]

        self.layers = int(field("block_count"))
        self.heads = int(field("attention.head_count"))
        self.kv_heads = int(field("attention.head_count_kv"))
        self.epsilon = np.float32(field("attention.layer_norm_rms_epsilon"))
        self.base = float(field("rope.freq_base"))
        names = [bytes(reader.fields["tokenizer.ggml.tokens"].parts[i]) for i in
                 reader.fields["tokenizer.ggml.tokens"].data]
        self.stops = {names.index(n) for n in (b"<|im_end|>", b"<|endoftext|>") if n in names}
        self.output = self.w.get("output.weight", self.w["token_embd.weight"])

    def norm(self, x, name):
        scale = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
        return x / scale * self.w[name]

    def turn(self, x):
        """x: [position, head, width]."""
        width = x.shape[-1]
        speeds = self.base ** (-np.arange(0, width, 2, dtype=np.float64) / width)
        angles = np.arange(x.shape[0])[:, None] * speeds
        cos = np.cos(angles).astype(np.float32)[:, None, :]
        sin = np.sin(angles).astype(np.float32)[:, None, :]
        out = np.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
        out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
        return out

    def attend(self, x, i):
        name = f"blk.{i}.attn_"
        n = len(x)
        q = self.turn((x @ self.w[name + "q.weight"].T).reshape(n, self.heads, -1))
        k = self.turn((x @ self.w[name + "k.weight"].T).reshape(n, self.kv_heads, -1))
        v = (x @ self.w[name + "v.weight"].T).reshape(n, self.kv_heads, -1)
        mixed = np.empty_like(q)
        future = np.triu(np.ones((n, n), dtype=bool), 1)
        for h in range(self.heads):
            kv = h * self.kv_heads // self.heads
            scores = q[:, h] @ k[:, kv].T / np.float32(np.sqrt(q.shape[-1]))
            scores[future] = -np.inf
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            mixed[:, h] = scores / scores.sum(axis=-1, keepdims=True) @ v[:, kv]
        return mixed.reshape(n, -1) @ self.w[name + "output.weight"].T

    def logits(self, tokens, first):
        """Of the positions from `first`."""
        x = self.w["token_embd.weight"][tokens]
        for i in range(self.layers):
            x = x + self.attend(self.norm(x, f"blk.{i}.attn_norm.weight"), i)
            y = self.norm(x, f"blk.{i}.ffn_norm.weight")
            gate = y @ self.w[f"blk.{i}.ffn_gate.weight"].T
            up = y @ self.w[f"blk.{i}.ffn_up.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ self.w[f"blk.{i}.ffn_down.weight"].T
        return self.norm(x[first:], "output_norm.weight") @ self.output.T


def check(network, prompt, answer, most):
    """How many tokens agree before the first that does not (all, if the end does, too), out of how
    many, and the margin of each."""
    logits = network.logits(np.array(prompt + answer), len(prompt) - 1)
    best = list(logits.argmax(axis=-1))
    top = np.sort(np.partition(logits, -2, axis=-1)[:, -2:], axis=-1)
    right = [int(b) == a for b, a in zip(best, answer)]
    if len(answer) < most:
        right.append(int(best[len(answer)]) in network.stops)
    same = right.index(False) if False in right else len(right)
    return same, len(right), (top[:, 1] - top[:, 0])[: len(right)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", help="greedy_tokens")
    parser.add_argument("model", help="GGUF of the family llama")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--long", type=int, default=8, help="of them with about 2,000 tokens")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    asked = questions(options.prompts, options.long, options.seed)
    command = [options.program, options.model, "4096", str(options.tokens)]
    given = subprocess.run(command, input="\n".join(asked) + "\n", capture_output=True, text=True)
    if given.returncode:
        sys.exit(given.stderr)
    network = Network(options.model)
    bad, tokens, least, longest = 0, 0, np.inf, 0
    for i, line in enumerate(given.stdout.splitlines()):
        prompt, answer = ([int(t) for t in half.split()] for half in line.split("|"))
        same, total, margins = check(network, prompt, answer, options.tokens)
        tokens += same
        longest = max(longest, len(prompt))
        least = min(least, float(margins.min()))
        if same < total:
            bad += 1
            print(f"prompt {i}: token {same} of {total} differs, margin {margins[same]:.2g}")
    print(
        f"{options.prompts} prompts (longest {longest} tokens), {tokens} tokens equal, "
        f"{bad} prompts differ, least margin {least:.2g}"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
