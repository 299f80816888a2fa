#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tokens a second of llama.cpp on a GGUF file, for scripts/bench-compare: one stream, greedy.

Needs the package xllamacpp (scripts/bench-peers llama_cpp). Its wheel brings llama.cpp
built for AVX2 and not for AVX-512, which the JSON says (`system`); a build for this very processor
may be faster.
Prints one JSON object in the units of `weft-bench exec`.
"""
import argparse
import json
import os
import statistics
import sys

PROMPT_TOKENS = 512
DECODE_TOKENS = 16  # of a round, as weft-bench exec has it
DECODE_ROUNDS, PREFILL_ROUNDS = 12, 3


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="GGUF")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    # The library logs to both outputs; this program's own goes to what stdout was.
    out = os.fdopen(os.dup(1), "w")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    import xllamacpp  # pylint: disable=import-outside-toplevel

    params = xllamacpp.CommonParams()
    params.model.path = args.model
    params.cpuparams.n_threads = args.threads
    params.cpuparams_batch.n_threads = args.threads
    params.n_ctx = 1024
    params.n_parallel = 1
    server = xllamacpp.Server(params)
    query = {"temperature": 0, "cache_prompt": False, "stream": False, "ignore_eos": True}
    server.handle_completions(query | {"prompt": "Warm up.", "n_predict": 4})

    def timings(prompt, count):
        answer = server.handle_completions(query | {"prompt": prompt, "n_predict": count})
        return (answer if isinstance(answer, dict) else json.loads(answer))["timings"]
    # Medians of rounds as long as Weft's: what interrupts one hits both alike.
    prompt = list(range(1000, 1000 + PROMPT_TOKENS))
    prefill = [timings(prompt, 1) for _ in range(PREFILL_ROUNDS)]
    decode = [timings("Tell me about rivers.", DECODE_TOKENS) for _ in range(DECODE_ROUNDS)]
    print(json.dumps({"bench": "llama.cpp", "version": f"xllamacpp {xllamacpp.__version__}",
                      "system": xllamacpp.get_system_info(), "threads": args.threads,
                      "prompt_tokens": prefill[0]["prompt_n"],
                      "decode_tokens": decode[0]["predicted_n"],
                      "decode_tokens_per_second": statistics.median(
                          t["predicted_per_second"] for t in decode),
                      "prefill_tokens_per_second": statistics.median(
                          t["prompt_per_second"] for t in prefill)}), file=out)
    out.flush()
    os._exit(0)  # the library's own threads need not be waited for


if __name__ == "__main__":
    sys.exit(main())
