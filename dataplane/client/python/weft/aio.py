# SPDX-License-Identifier: Apache-2.0
"""AsyncClient and AsyncStream: for asyncio. client.py has the same for threads."""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Optional

from ._core import Core, Reading, Sink
from .errors import Error
from .types import Answer, Prompt, Query, QueryFields

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class AsyncStream(Reading, AsyncIterator[str]):
    """An answer as it comes: pieces of text. Closing it early, or cancelling the task that reads
    it, cancels the request. Raises a weft.Error at its end unless it is complete."""

    def __init__(self, client: AsyncClient, sink: Sink) -> None:
        super().__init__(sink)
        self._client = client

    async def __anext__(self) -> str:
        sink = self._sink
        while not self._over:
            if sink.pieces:
                piece, resume = self._client._core.take(sink)
                if resume:
                    self._client._turn()
                return piece
            if sink.result is not None:
                self._over = True
                error = sink.error()
                if error is not None:
                    raise error
                break
            try:
                await self._more()
            except asyncio.CancelledError:
                self.close()
                raise
        raise StopAsyncIteration

    async def _more(self) -> None:
        if self._sink.wake is not None:
            raise RuntimeError("two tasks read one stream")
        future = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not future.done():
                future.set_result(None)

        self._sink.wake = wake
        try:
            await future
        finally:
            self._sink.wake = None

    def close(self) -> None:
        """Cancels if it is not over. The worker is told at once, and again while the client is
        open until it knows."""
        self._over = True
        self._client._drop(self._sink)

    async def aclose(self) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._over and self._sink.result is None:
            self._client._drop_later(self._sink)


class AsyncClient:
    """A connection to a mesh by one of its nodes, "HOST[:PORT]", or by
    this machine's own, "unix:PATH"; default: $WEFT_NODE. Fields of
    weft.Query given here are the defaults of its requests. Belongs to the event loop in which it
    is first used."""

    def __init__(self, node: Optional[str] = None, *, connect_tries: int = 0,
                 stall_timeout_ms: int = 0, **defaults: Unpack[QueryFields]) -> None:
        self._core = Core(node, dict(defaults), connect_tries, stall_timeout_ms)
        self._fd = self._core.fd()
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._timer: Optional[asyncio.TimerHandle] = None

    async def ask(self, prompt: Prompt | Query, **fields: Unpack[QueryFields]) -> Answer:
        """Asks and waits. Raises a weft.Error, with what had come in its `text`."""
        pieces: list[str] = []
        async with self.stream(prompt, **fields) as stream:
            try:
                async for piece in stream:
                    pieces.append(piece)
            except Error as error:
                error.text = "".join(pieces)
                raise
        assert stream.result is not None
        return Answer("".join(pieces), stream.result, stream.logprobs,
                      stream.embedding)

    def stream(self, prompt: Prompt | Query, **fields: Unpack[QueryFields]) -> AsyncStream:
        """Sends the request; the answer is read by `async for`."""
        self._attach()
        stream = AsyncStream(self, self._core.submit(prompt, dict(fields)))
        self._arm()
        return stream

    async def aclose(self) -> None:
        """Cancels what is open. More than once is fine."""
        if self._timer is not None:
            self._timer.cancel()
        if self._loop is not None and not self._core.closed:
            self._loop.remove_reader(self._fd)
        self._core.close()

    async def __aenter__(self) -> Self:
        self._attach()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _attach(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            loop.add_reader(self._fd, self._turn)
        elif self._loop is not loop:
            raise RuntimeError("this client belongs to another event loop")

    def _turn(self) -> None:
        if not self._core.closed:
            self._core.process()
            self._arm()

    def _arm(self) -> None:
        """Wakes up when the library wants to, although nothing comes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        timeout_ms = self._core.timeout_ms()
        if timeout_ms >= 0 and self._loop is not None:
            self._timer = self._loop.call_later(timeout_ms / 1e3, self._turn)

    def _drop(self, sink: Sink) -> None:
        self._core.drop(sink)
        self._turn()

    def _drop_later(self, sink: Sink) -> None:
        """For finalisers, which run anywhere."""
        self._core.drop(sink)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._turn)
