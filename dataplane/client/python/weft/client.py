# SPDX-License-Identifier: Apache-2.0
"""Client and Stream: for threads. aio.py has the same for asyncio."""
from __future__ import annotations

import select
from collections.abc import Iterator
from typing import TYPE_CHECKING, Optional

from ._core import Core, Reading, Sink
from .errors import Error
from .types import Answer, Prompt, Query, QueryFields

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class Stream(Reading, Iterator[str]):
    """An answer as it comes: pieces of text. Closing it early cancels the request. Raises a
    weft.Error at its end unless it is complete."""

    def __init__(self, client: Client, sink: Sink) -> None:
        super().__init__(sink)
        self._client = client

    def __next__(self) -> str:
        sink = self._sink
        while not self._over:
            if sink.pieces:
                return self._client._core.take(sink)[0]
            if sink.result is not None:
                self._over = True
                error = sink.error()
                if error is not None:
                    raise error
                break
            try:
                self._client._turn()
            except BaseException:  # Ctrl-C above all: the worker must not go on for nobody
                self.close()
                raise
        raise StopIteration

    def close(self) -> None:
        """Cancels if it is not over; waits until the worker knows, a second at most."""
        self._over = True
        core = self._client._core
        core.drop(self._sink)
        while self._sink.result is None and not core.closed:
            self._client._turn()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._over and self._sink.result is None:
            self._client._core.drop(self._sink)
            self._client._core.try_process()


class Client:
    """A connection to a mesh by one of its nodes, "HOST[:PORT]", or by
    this machine's own, "unix:PATH"; default: $WEFT_NODE. Fields of
    weft.Query given here are the defaults of its requests."""

    def __init__(self, node: Optional[str] = None, *, connect_tries: int = 0,
                 stall_timeout_ms: int = 0, **defaults: Unpack[QueryFields]) -> None:
        self._core = Core(node, dict(defaults), connect_tries, stall_timeout_ms)
        self._poll = select.poll()
        self._poll.register(self._core.fd(), select.POLLIN)

    def ask(self, prompt: Prompt | Query, **fields: Unpack[QueryFields]) -> Answer:
        """Asks and waits. Raises a weft.Error, with what had come in its `text`."""
        pieces: list[str] = []
        with self.stream(prompt, **fields) as stream:
            try:
                pieces.extend(stream)
            except Error as error:
                error.text = "".join(pieces)
                raise
        assert stream.result is not None
        return Answer("".join(pieces), stream.result, stream.logprobs,
                      stream.embedding)

    def stream(self, prompt: Prompt | Query, **fields: Unpack[QueryFields]) -> Stream:
        """Sends the request; the answer is read by iterating. Streams of one client come in
        together, whichever is being read."""
        return Stream(self, self._core.submit(prompt, dict(fields)))

    def close(self) -> None:
        """Cancels what is open. More than once is fine."""
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _turn(self) -> None:
        """Waits for anything, then moves it."""
        timeout_ms = self._core.timeout_ms()
        self._poll.poll(timeout_ms if timeout_ms >= 0 else None)
        self._core.process()
