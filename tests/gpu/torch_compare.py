#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What PyTorch makes of the same work on the same GPU: the products of a Llama-3-8B-shaped model in
BF16 with attention, a token at a time as a CUDA graph, and a prompt of 2,048 tokens.

Prints one line and, with --json FILE, adds the member "torch" to the object that is there. Exit 77
where PyTorch is not installed or sees no GPU."""

import argparse
import json
import sys
import time

LAYERS, WIDTH, FFN, HEADS, KV_HEADS, HEAD, VOCAB, PROMPT = 32, 4096, 14336, 32, 8, 128, 128256, 2048
STEPS = 64


def skip(why):
    print(f"PyTorch: not measured, {why}")
    sys.exit(77)


def make_layers(torch, device):
    def matrix(rows, cols):
        return torch.randn(rows, cols, device=device, dtype=torch.bfloat16) * 0.02

    kv = KV_HEADS * HEAD
    return [
        {
            "qkv": matrix(WIDTH + 2 * kv, WIDTH),
            "out": matrix(WIDTH, WIDTH),
            "in": matrix(2 * FFN, WIDTH),
            "down": matrix(WIDTH, FFN),
            "keys": torch.zeros(1, KV_HEADS, PROMPT, HEAD, device=device, dtype=torch.bfloat16),
            "values": torch.zeros(1, KV_HEADS, PROMPT, HEAD, device=device, dtype=torch.bfloat16),
        }
        for _ in range(LAYERS)
    ]


def step(torch, layers, head, x, is_prompt):
    """One pass of x [tokens][WIDTH]; a single token looks at PROMPT positions that are there."""
    f = torch.nn.functional
    tokens = x.shape[0]
    kv = KV_HEADS * HEAD
    for layer in layers:
        q, k, v = f.linear(f.rms_norm(x, (WIDTH,)), layer["qkv"]).split((WIDTH, kv, kv), 1)
        q = q.view(1, tokens, HEADS, HEAD).transpose(1, 2)
        if is_prompt:
            keys = k.view(1, tokens, KV_HEADS, HEAD).transpose(1, 2)
            values = v.view(1, tokens, KV_HEADS, HEAD).transpose(1, 2)
        else:
            keys, values = layer["keys"], layer["values"]
        mixed = f.scaled_dot_product_attention(
            q, keys, values, is_causal=is_prompt, enable_gqa=True
        )
        x = x + f.linear(mixed.transpose(1, 2).reshape(tokens, WIDTH), layer["out"])
        gate, up = f.linear(f.rms_norm(x, (WIDTH,)), layer["in"]).split(FFN, 1)
        x = x + f.linear(f.silu(gate) * up, layer["down"])
    return f.linear(x[-1:], head)


def seconds_of(torch, run, rounds):
    run()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(rounds):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / rounds


def measure(torch, device):
    layers = make_layers(torch, device)
    head = torch.randn(VOCAB, WIDTH, device=device, dtype=torch.bfloat16) * 0.02
    token = torch.randn(1, WIDTH, device=device, dtype=torch.bfloat16)
    prompt = torch.randn(PROMPT, WIDTH, device=device, dtype=torch.bfloat16)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(torch, layers, head, token, False)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(torch, layers, head, token, False)
    return {
        "version": torch.__version__,
        "decode_tps": 1 / seconds_of(torch, graph.replay, STEPS),
        "prefill_tps": PROMPT
        / seconds_of(torch, lambda: step(torch, layers, head, prompt, True), 5),
    }


def main():
    parser = argparse.ArgumentParser(
        description="Measures PyTorch on an 8B-shaped model in BF16.",
        epilog="Example: torch_compare.py --device 0 --json gpu.json",
    )
    parser.add_argument("--device", type=int, default=0, help="which GPU")
    parser.add_argument("--json", help="a file that holds a JSON object")
    options = parser.parse_args()
    try:
        import torch  # pylint: disable=import-outside-toplevel
    except ImportError:
        skip("it is not installed")
    if not torch.cuda.is_available() or torch.cuda.device_count() <= options.device:
        skip(f"it sees no GPU {options.device}")
    torch.cuda.set_device(options.device)
    try:
        with torch.inference_mode():
            found = measure(torch, f"cuda:{options.device}")
    except (AttributeError, RuntimeError, TypeError) as error:
        skip(f"it failed: {str(error).splitlines()[0]}")
    print(
        f"PyTorch {found['version']}, 8B BF16: decode {found['decode_tps']:.1f} t/s, "
        f"prompt {found['prefill_tps']:.0f} t/s"
    )
    if options.json:
        with open(options.json, encoding="utf-8") as file:
            report = json.load(file)
        report["torch"] = found
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
