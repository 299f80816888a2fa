# SPDX-License-Identifier: Apache-2.0
"""What both clients share: one weft_client_t, its callbacks, and a Sink for each open request."""
from __future__ import annotations

import codecs
import ctypes
import dataclasses
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Optional

from ._library import DONE_FN, TEXT_FN, COpts, CResult, library
from .errors import CancelledError, Error, error_of
from .types import Logprob, Prompt, Query, Result, plain, query_to_c, whole


HOLD_PIECES = 4096  # a stream of which so many are unread is held back


class Sink:
    """Where the callbacks put a request's text and its end. Does not know who reads it, so that a
    reader that is dropped can be noticed."""
    __slots__ = ("key", "request", "pieces", "logprobs", "embedding", "result", "wake", "held",
                 "_decoder")

    def __init__(self, key: int) -> None:
        self.key = key
        self.request: Optional[int] = None  # None: not submitted, or gone
        self.pieces: deque[str] = deque()
        self.logprobs: list[list[Logprob]] = []
        self.embedding: list[float] = []
        self.result: Optional[Result] = None
        self.wake: Optional[Callable[[], None]] = None
        self.held = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def put(self, data: bytes, final: bool = False) -> None:
        piece = self._decoder.decode(data, final)  # a piece may end inside a character
        if piece:
            self.pieces.append(piece)
        if self.wake is not None:
            self.wake()

    def end(self, result: Result) -> None:
        self.request = None
        self.result = result
        self.put(b"", True)

    def error(self) -> Optional[Error]:
        if self.result is None or self.result.status == 0:
            return None
        return error_of(self.result.status, self.result)


class Reading:
    """What both streams are: an answer that is being read, and what is known of it."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._over = False

    @property
    def result(self) -> Optional[Result]:
        """The account; None while the answer is still coming."""
        return self._sink.result

    @property
    def logprobs(self) -> list[list[Logprob]]:
        """Of the tokens that have come, if the query asked for them."""
        return self._sink.logprobs

    @property
    def embedding(self) -> list[float]:
        """When it is over, if the query asked for one."""
        return self._sink.embedding


class Core:
    """One connection. The lock keeps the library in one thread at a time; it is never held while
    waiting, and never taken by what the garbage collector runs, which only leaves a note."""

    def __init__(self, node: Optional[str], defaults: dict[str, Any], connect_tries: int,
                 stall_timeout_ms: int) -> None:
        self._client = ctypes.c_void_p()  # first, for __del__
        self._lib = library()
        node = node or os.environ.get("WEFT_NODE")
        if not node:
            raise ValueError("no node; give HOST[:PORT] or unix:PATH, or set WEFT_NODE")
        Query("", **defaults)  # unknown fields are found here, not with the first request
        self._defaults = defaults
        self._lock = threading.Lock()
        self._sinks: dict[int, Sink] = {}
        self._dropped: deque[int] = deque()
        self._resumed: deque[int] = deque()
        self._keys = itertools.count(1)
        self._text_fn, self._done_fn = _callbacks(self._sinks)
        opts = COpts(node=plain("node", node), connect_tries=whole("tries", connect_tries, 32),
                     stall_timeout_ms=whole("stall_timeout_ms", stall_timeout_ms, 32))
        rc = self._lib.weft_client_create(ctypes.byref(self._client), ctypes.byref(opts))
        if rc != 0:
            raise error_of(rc)

    def __del__(self) -> None:
        if self._client:
            self.close()

    @property
    def closed(self) -> bool:
        return not self._client

    def close(self) -> None:
        """Cancels what is open; streams that are still read end with CancelledError."""
        with self._lock:
            client, self._client = self._client, ctypes.c_void_p()
            if client:
                self._lib.weft_client_destroy(client)
        gone = dataclasses.replace(Result.from_c(CResult()), status=CancelledError.code,
                                   finish="cancelled")
        for key in list(self._sinks):
            self._sinks.pop(key).end(gone)

    def fd(self) -> int:
        return int(self._lib.weft_client_fd(self._client))

    def timeout_ms(self) -> int:
        """Until process() must be called although nothing came; -1 = never."""
        noted = self._dropped or self._resumed
        return 0 if noted else int(self._lib.weft_client_timeout_ms(self._client))

    def submit(self, prompt: Prompt | Query, changes: dict[str, Any]) -> Sink:
        if isinstance(prompt, Query):
            query = dataclasses.replace(prompt, **changes)
            if not query.model and "model" in self._defaults:
                query = dataclasses.replace(query, model=self._defaults["model"])
        else:
            query = Query(prompt, **{**self._defaults, **changes})
        c, keep = query_to_c(query)
        request = ctypes.c_void_p()
        sink = Sink(next(self._keys))
        with self._lock:
            self._check()
            self._sinks[sink.key] = sink
            rc = self._lib.weft_submit(self._client, ctypes.byref(c), self._text_fn, self._done_fn,
                                       sink.key, ctypes.byref(request))
            if rc != 0:
                del self._sinks[sink.key]
                raise error_of(rc)
            if sink.result is None:
                sink.request = request.value
        del keep
        return sink

    def process(self) -> None:
        """Moves what there is to move; pieces and ends land in the sinks."""
        with self._lock:
            self._check()
            while self._resumed:
                self._release(self._sinks.get(self._resumed.popleft()))
            while self._dropped:
                sink = self._sinks.get(self._dropped.popleft())
                self._release(sink)
                if sink is not None and sink.request is not None:
                    self._lib.weft_cancel(sink.request)
            self._lib.weft_client_process(self._client)

    def _release(self, sink: Optional[Sink]) -> None:
        if sink is not None and sink.request is not None and sink.held:
            sink.held = False
            self._lib.weft_hold(sink.request, False)

    def drop(self, sink: Sink) -> None:
        """Nobody wants the rest. Takes effect with the next process(); any thread, any time."""
        if sink.result is None:
            self._dropped.append(sink.key)

    def take(self, sink: Sink) -> tuple[str, bool]:
        """The next piece, and whether process() should be called: the reader has caught up."""
        piece = sink.pieces.popleft()
        resume = sink.held and not sink.pieces
        if resume:
            self._resumed.append(sink.key)
        return piece, resume

    def try_process(self) -> None:
        """process() if nobody is in the middle of it: for finalisers."""
        if self._client and not self._lock.locked():
            self.process()

    def _check(self) -> None:
        if not self._client:
            raise RuntimeError("this client is closed")


def _callbacks(sinks: dict[int, Sink]) -> tuple[Any, Any]:
    """The two C callbacks; they know the sinks only, or a client would keep itself alive."""
    hold, text_logprobs = library().weft_hold, library().weft_text_logprobs
    embedding = library().weft_embedding

    def on_text(request: int, text: int, length: int, key: int) -> None:
        sink = sinks[key]
        count = ctypes.c_size_t()
        rows = text_logprobs(request, ctypes.byref(count))
        if count.value:
            sink.logprobs.append([
                Logprob(row.token, row.logprob, ctypes.string_at(row.text, row.len))
                for row in rows[:count.value]])
        sink.put(ctypes.string_at(text, length))
        if len(sink.pieces) >= HOLD_PIECES and not sink.held:
            sink.held = True
            hold(request, True)  # here, not later: one process() can bring a whole answer

    def on_done(request: int, result: Any, key: int) -> None:
        sink = sinks.pop(key)
        count = ctypes.c_size_t()
        values = embedding(request, ctypes.byref(count))
        sink.embedding = values[:count.value] if count.value else []
        sink.end(Result.from_c(result.contents))

    return TEXT_FN(on_text), DONE_FN(on_done)
