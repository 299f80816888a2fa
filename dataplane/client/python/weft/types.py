# SPDX-License-Identifier: Apache-2.0
"""What is asked and what comes back: Query, Message, Result, Answer."""
from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Optional, TypedDict, Union

from ._library import CMessage, CQuery, CQueryMore, CResult, library, text_of
from .errors import InvalidQueryError

if TYPE_CHECKING:
    from typing_extensions import Self


EMBEDS = ("mean", "last")


@dataclass(frozen=True)
class Message:
    """One message of a chat; role is "system", "user" or "assistant"."""
    role: str
    text: str


# A question of the user's, or a whole chat: Message, (role, text) or {"role": ..., "content": ...}.
Prompt = Union[str, Sequence[Union[Message, tuple[str, str], Mapping[str, str]]]]


class QueryFields(TypedDict, total=False):
    """The fields of a Query as keywords of ask() and stream()."""
    model: str
    raw: bool
    max_tokens: int
    temperature: float
    top_p: float
    min_p: float
    top_k: int
    seed: int
    tiers: tuple[int, int]
    near: tuple[float, float]
    radius_km: int
    vram_mib: int
    budget_ms: int
    end_to_end: bool
    tags: Iterable[str]
    priority: int
    session: str
    hedge: bool
    once: bool
    stop: Iterable[str]
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logprobs: int
    no_thinking: bool
    embed: str
    json: bool
    schema: str
    traceparent: str


@dataclass(frozen=True)
class Query:
    """A request; what is not given is not limited, or libweft's default. See weft_query(3)."""
    prompt: Prompt
    model: str = ""
    raw: bool = False  # the prompt is plain text to go on with, not a message
    max_tokens: int = 0  # 0 = 256
    temperature: float = 0.0  # 0 = always the likeliest token
    top_p: float = 0.0
    min_p: float = 0.0
    top_k: int = 0
    seed: int = 0
    tiers: Optional[tuple[int, int]] = None  # lowest and highest, 0 to 7
    near: Optional[tuple[float, float]] = None  # latitude, longitude; else the node asked
    radius_km: int = 0
    vram_mib: int = 0
    budget_ms: int = 0  # until the first token, or the last with end_to_end
    end_to_end: bool = False
    tags: Iterable[str] = ()  # policy tags the node must all have
    jurisdiction: str = ""  # only nodes in it: two capital letters, "DE"
    priority: int = 0  # 0 to 15, 15 first
    session: str = ""
    hedge: bool = False
    once: bool = False
    stop: Iterable[str] = ()  # strings that end the answer; none of them is in it
    repetition_penalty: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logprobs: int = 0  # for each token: its own and so many less one of the likeliest
    no_thinking: bool = False
    embed: str = ""  # "mean" or "last": no text but Answer.embedding, a vector of length 1
    json: bool = False  # the answer must be a JSON object
    schema: str = ""  # it must be JSON that meets this JSON Schema
    traceparent: str = ""  # W3C trace context: told to the worker, and by it to whom it asks
    tracestate: str = ""  # what belongs to it in the header of that name

    def messages(self) -> list[Message]:
        if isinstance(self.prompt, str):
            return [Message("user", self.prompt)]
        return [message_of(item) for item in self.prompt]


@dataclass(frozen=True)
class Result:
    """The account of a finished request. See weft_result(3)."""
    status: int
    finish: str  # "stop", "length", "cancelled", ...
    node: str
    backend: str
    tier: int
    prompt_tokens: int
    new_tokens: int
    total_us: int
    first_token_us: int
    queue_us: int
    prefill_us: int
    decode_us: int
    net_us: int
    constraint: str  # refused: what bound, in words; "" if nothing did
    constraint_best: int  # refused: best achievable figure of it, in constraint_unit
    constraint_unit: str
    retry_after_ms: int
    resends: int
    failovers: int
    hedged: bool
    gap_us: int
    cached_tokens: int  # of the prompt, that the worker knew already
    accepted_us: int  # until it was heard that the worker that served has accepted; 0 = none has
    mixed: int  # times it went on with other weights, or another way of computing, than before

    @classmethod
    def from_c(cls, c: CResult) -> Self:
        lib = library()
        bound = c.constraint != 0
        made: dict[str, Any] = {
            "finish": text_of(lib.weft_finish_name(c.finish)) if c.finish else "",
            "node": text_of(c.node),
            "backend": text_of(c.backend),
            "constraint": text_of(lib.weft_constraint_text(c.constraint)) if bound else "",
            "constraint_unit": text_of(lib.weft_constraint_unit(c.constraint)) if bound else "",
        }
        plain = {f.name: getattr(c, f.name) for f in fields(cls) if f.name not in made}
        return cls(**made, **plain)


@dataclass(frozen=True)
class Logprob:
    """A token, its bytes, and the natural logarithm of its probability."""
    token: int
    logprob: float
    data: bytes


@dataclass(frozen=True)
class Answer:
    """A complete answer and its account. With `logprobs` in the query: a list for each token, its
    own first, then the likeliest, best first."""
    text: str
    result: Result
    logprobs: Sequence[Sequence[Logprob]] = ()
    embedding: Sequence[float] = ()  # with `embed` in the query

    def __str__(self) -> str:
        return self.text


def message_of(item: Message | tuple[str, str] | Mapping[str, str]) -> Message:
    if isinstance(item, Message):
        return item
    if isinstance(item, Mapping):
        return Message(item["role"], item["content"])
    role, text = item
    return Message(role, text)


def whole(name: str, value: int, bits: int) -> int:
    """ctypes would cut a number that does not fit."""
    if not 0 <= value < 1 << bits:
        raise InvalidQueryError.of(f"{name} cannot be {value}")
    return value


def plain(name: str, value: str) -> bytes:
    """A C string: without a zero inside."""
    if "\0" in value:
        raise InvalidQueryError.of(f"{name} contains a zero")
    return value.encode()


def query_to_c(q: Query) -> tuple[CQuery, list[object]]:
    """The C struct, and what must stay alive as long as it is used."""
    c = CQuery(model=plain("model", q.model), temperature=q.temperature, top_p=q.top_p,
               min_p=q.min_p, end_to_end=q.end_to_end, hedge=q.hedge, once=q.once,
               no_thinking=q.no_thinking, repetition_penalty=q.repetition_penalty,
               presence_penalty=q.presence_penalty, frequency_penalty=q.frequency_penalty)
    for name in ("max_tokens", "top_k", "radius_km", "vram_mib", "budget_ms", "priority"):
        setattr(c, name, whole(name, getattr(q, name), 32))
    c.seed = whole("seed", q.seed, 64)
    c.logprobs = whole("logprobs", q.logprobs, 32)
    keep: list[object] = []
    if q.raw:
        if not isinstance(q.prompt, str):
            raise InvalidQueryError.of("raw takes a text, not messages")
        data = q.prompt.encode()
        c.text, c.text_len = data, len(data)
    else:
        texts = [(plain("role", m.role), m.text.encode()) for m in q.messages()]
        messages = (CMessage * len(texts))(*(CMessage(role, t, len(t)) for role, t in texts))
        keep += [texts, messages]
        c.messages, c.message_count = messages, len(texts)
    if q.tiers is not None:
        c.has_tiers = True
        c.tier_min, c.tier_max = (whole("tiers", tier, 32) for tier in q.tiers)
    if q.near is not None:
        c.has_position = True
        c.latitude_deg, c.longitude_deg = q.near
    tags = q.tags if isinstance(q.tags, str) else ",".join(q.tags)
    c.tags = plain("tags", tags) if tags else None
    if q.jurisdiction or q.tracestate:
        more = CQueryMore()
        more.jurisdiction = plain("jurisdiction", q.jurisdiction) if q.jurisdiction else None
        more.tracestate = plain("tracestate", q.tracestate) if q.tracestate else None
        keep.append(more)
        c.more = ctypes.pointer(more)
    if q.schema:
        c.format, c.format_text = 2, plain("schema", q.schema)
    elif q.json:
        c.format = 1
    if q.embed:
        if q.embed not in EMBEDS:
            raise InvalidQueryError.of(f"embed cannot be {q.embed}")
        c.embed = 1 + EMBEDS.index(q.embed)
    stops = [plain("stop", text) for text in ((q.stop,) if isinstance(q.stop, str) else q.stop)]
    if stops:
        c.stop, c.stop_count = (ctypes.c_char_p * len(stops))(*stops), len(stops)
        keep.append(stops)
    c.session = plain("session", q.session) if q.session else None
    c.traceparent = plain("traceparent", q.traceparent) if q.traceparent else None
    return c, keep
