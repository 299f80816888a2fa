#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The way of scripts/gpu-check without a GPU: a self-test that was built over the emulator, little
# of everything, and the JSON it leaves. What is asked is whether an operator's run gets through. The
# first token from a packet's arrival takes a mesh: tests/e2e, gpu/first_token.
set -euo pipefail

program=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

fail() {
    printf 'failed: %s\n' "$*" >&2
    exit 1
}

WEFT_CUBLASLT=$dir/nothing "$root/scripts/gpu-check" --program "$program" --small \
    --weft-build "$dir" --json "$dir/gpu.json" >"$dir/out" 2>&1 ||
    fail "gpu-check: $(tail -5 "$dir/out")"
grep -q ' passed, 0 failed' "$dir/out" || fail "no totals: $(tail -5 "$dir/out")"
grep -q "first token from a packet's arrival: not measured, needs weftd" "$dir/out" ||
    fail "no word of the first token: $(tail -5 "$dir/out")"
python3 - "$dir/gpu.json" <<'PYTHON' || fail "the JSON: $(cat "$dir/gpu.json")"
import json, sys

report = json.load(open(sys.argv[1], encoding="utf-8"))
assert report["failed"] == 0 and len(report["cases"]) > 10
assert all(case["ok"] for case in report["cases"])
assert report["copy_bytes_per_s"] > 0 and report["gemm_flops"] > 0
assert len(report["models"]) == 2
for model in report["models"]:
    for key in ("decode_tps", "decode_fraction", "decode_batch_tps", "prefill_tps",
                "prefill_fast_tps", "prefill_fast_fraction", "first_token_short_s",
                "first_token_long_s", "flops_a_token"):
        assert model[key] > 0, (model["name"], key)
    assert model["decode_overhead"] <= 1 and model["auto"]
PYTHON
if "$root/scripts/gpu-check" --program "$program" --device 7 >"$dir/out" 2>&1; then
    fail "device 7 was there"
elif [[ $? -ne 77 ]]; then
    fail "no skip without a device: $(tail -5 "$dir/out")"
fi
grep -q 'no CUDA device 7' "$dir/out" || fail "no reason: $(tail -5 "$dir/out")"
"$root/scripts/gpu-check" --nonsense >"$dir/out" 2>&1 && fail "nonsense was taken"
printf '1 passed, 0 failed, 0 skipped\n'
