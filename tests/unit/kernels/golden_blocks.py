#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes golden_blocks.txt: a random block of each type of weight and what the Python package
`gguf` makes of it. Needs `pip install gguf`; run by hand when a type is added."""

import random
import struct
import sys

import numpy
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

TYPES = "F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q5_K Q6_K".split()
HALVES = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}


def block(name, rng):
    """Random bytes whose halves are ordinary numbers."""
    elements, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    count = 8 if elements == 1 else 1
    data = bytearray(rng.randbytes(size * count))
    if elements == 1:
        for at in range(count):
            code = struct.pack("<f", rng.uniform(-4, 4))[2:]
            data[2 * at : 2 * at + 2] = code if name == "BF16" else struct.pack(
                "<e", rng.uniform(-4, 4))
    else:
        for at in HALVES.get(name, (0,)):
            data[at : at + 2] = struct.pack("<e", rng.uniform(-1, 1))
    return bytes(data)


def main():
    rng = random.Random(20)
    print("# type, block, float32 values; golden_blocks.py wrote this")
    for name in TYPES:
        data = block(name, rng)
        values = quants.dequantize(
            numpy.frombuffer(data, dtype=numpy.uint8), GGMLQuantizationType[name])
        print(name, data.hex(), values.astype("<f4").tobytes().hex())
    return 0


if __name__ == "__main__":
    sys.exit(main())
