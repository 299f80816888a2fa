#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A user of the Python package, for cases_sdk.py, which runs it among the clients of a mesh:
sdk_asks.py WHAT NODE MODEL PROMPT prints one JSON object."""
import asyncio
import json
import sys
import time

import weft

PIECES = 3
LONG = 800
STREAMS = 100


def text(node, model, prompt):
    """The same answer by every way to get it."""
    with weft.Client(node, model=model, max_tokens=24) as client:
        answer = client.ask(prompt)
        with client.stream(prompt) as stream:
            pieces = list(stream)
        one, two = client.stream(prompt), client.stream(prompt)
        first = next(two)  # `one` comes in meanwhile
        both = ["".join(one), first + "".join(two)]

    async def in_loop():
        async with weft.AsyncClient(node, model=model, max_tokens=24) as client:
            streamed = "".join([piece async for piece in client.stream(prompt)])
            return streamed, (await client.ask([("user", prompt)])).text
    return {"texts": [answer.text, "".join(pieces), *both, *asyncio.run(in_loop())],
            "pieces": len(pieces), "node": answer.result.node, "tokens": answer.result.new_tokens}


def close(node, model, prompt):
    """Leaves a stream early, by close() and by dropping it; the client stays open."""
    with weft.Client(node, model=model, max_tokens=LONG) as client:
        stream = client.stream(prompt)
        for _ in range(PIECES):
            next(stream)
        started = time.monotonic()
        stream.close()
        took = time.monotonic() - started
        after = next(stream, None)
        dropped = client.stream(prompt)
        next(dropped)
        sink = dropped._sink
        del dropped
        while sink.result is None:
            client._turn()
        return {"status": [stream.result.status, sink.result.status], "after": after,
                "tokens": [stream.result.new_tokens, sink.result.new_tokens], "seconds": took}


def task(node, model, prompt):
    """Cancels the task that reads, and lets a timeout do it."""
    async def read(client, seen):
        async for piece in client.stream(prompt):
            seen.append(piece)

    async def in_loop():
        async with weft.AsyncClient(node, model=model, max_tokens=LONG) as client:
            seen, late, kinds = [], [], []
            reader = asyncio.create_task(read(client, seen))
            while len(seen) < PIECES:
                await asyncio.sleep(0.001)
            sinks = list(client._core._sinks.values())
            reader.cancel()
            kinds += [type(e).__name__ for e in await asyncio.gather(reader,
                                                                    return_exceptions=True)]
            try:
                await asyncio.wait_for(read(client, late), 0.5)
            except asyncio.TimeoutError:
                kinds.append("timeout")
            deadline = time.monotonic() + 5
            while client._core._sinks and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            return {"kinds": kinds, "status": sinks[0].result.status, "pieces": len(seen),
                    "open": len(client._core._sinks)}
    return asyncio.run(in_loop())


class Announced(weft.Client):
    """Says on stderr when text has come, so that the case knows when to interfere."""
    said = False

    def _turn(self):
        super()._turn()
        if not self.said and any(sink.pieces for sink in self._core._sinks.values()):
            self.said = True
            print("begun", file=sys.stderr, flush=True)


def error(node, model, prompt):
    """How a request ends that cannot end well."""
    try:
        with Announced(node, model=model, max_tokens=LONG, once=True) as client:
            client.ask(prompt)
    except weft.Error as failed:
        families = [family.__name__ for family in type(failed).__mro__]
        return {"type": families[0], "families": families, "name": failed.name,
                "status": failed.status, "text": failed.text, "reason": failed.reason}
    return {"type": None}


def refused(node, model, prompt):
    """A refusal says what bound."""
    with weft.Client(node, model=model) as client:
        try:
            client.ask(prompt, radius_km=1, near=(0.0, -150.0))
        except weft.RefusedError as failed:
            return {"type": type(failed).__name__, "constraint": failed.constraint,
                    "best": failed.best, "retry_after_ms": failed.retry_after_ms}
    return {"type": None}


def slow(node, model, prompt):
    """A long answer that nobody reads waits outside, and is whole when it is read at last."""
    count = 60000
    wanted = " ".join(f"{prompt}{n}" for n in range(count))
    most = 0
    with weft.Client(node, model=model, max_tokens=2 * count) as client:
        late, other = client.stream(wanted), client.stream(wanted)
        read = []
        for piece in other:
            read.append(piece)
            most = max(most, len(late._sink.pieces), len(other._sink.pieces))
        held = late._sink.held
        late_text = "".join(late)

    async def in_loop():
        async with weft.AsyncClient(node, model=model, max_tokens=2 * count) as client:
            late, other = client.stream(wanted), client.stream(wanted)
            return ["".join([piece async for piece in stream]) for stream in (other, late)]
    return {"right": [text == wanted for text in
                      ("".join(read), late_text, *asyncio.run(in_loop()))],
            "held": held, "most": most, "limit": weft._core.HOLD_PIECES}


def hundred(node, model, prompt):
    """A hundred streams in one event loop, each with words of its own."""
    async def read(client, number):
        wanted = " ".join(f"{prompt}{number}.{word}" for word in range(20))
        pieces = []
        began = time.monotonic()
        async for piece in client.stream(wanted):
            pieces.append((time.monotonic(), piece))
        got = "".join(piece for _, piece in pieces)
        return got == wanted, len(pieces), began, pieces[0][0], pieces[-1][0]

    async def in_loop():
        async with weft.AsyncClient(node, model=model) as client:
            return await asyncio.gather(*(read(client, n) for n in range(STREAMS)))
    rows = asyncio.run(in_loop())
    return {"right": sum(row[0] for row in rows), "pieces": sum(row[1] for row in rows),
            "seconds": max(row[4] for row in rows) - min(row[2] for row in rows),
            # All had begun before the first had ended: they did run side by side.
            "together": max(row[3] for row in rows) < min(row[4] for row in rows)}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
