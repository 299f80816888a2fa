#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A user of the Python package who tells each piece of an answer at once, for cases_streams.py,
which runs it among the clients of a mesh: stream_asks.py NODES. Each line of the input is a JSON
object, the fields of weft.Query; the output has a line for each piece and one for the end."""
import dataclasses
import json
import sys

import weft


def tell(**fields):
    print(json.dumps(fields), flush=True)


def main():
    with weft.Client(sys.argv[1]) as client:
        for line in sys.stdin:
            fields = json.loads(line)
            stream = client.stream(fields.pop("prompt"), **fields)
            status = "ok"
            try:
                for piece in stream:
                    tell(piece=piece)
            except weft.Error as error:
                status = error.name
            tell(status=status, result=dataclasses.asdict(stream.result))


if __name__ == "__main__":
    main()
