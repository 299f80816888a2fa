# SPDX-License-Identifier: Apache-2.0
"""libweft.so.1 in ctypes: where it is, its structs, its functions. The structs are those of
weft/client.h field by field; a test compares them with the C compiler's own layout."""
from __future__ import annotations

import ctypes
import functools
import os
from ctypes import (POINTER, c_bool, c_char, c_char_p, c_double, c_float, c_int, c_size_t, c_uint32,
                    c_uint64, c_void_p)
from pathlib import Path

SONAME = "libweft.so.1"


class COpts(ctypes.Structure):
    _fields_ = [
        ("node", c_char_p),
        ("connect_tries", c_uint64),
        ("stall_timeout_ms", c_uint32),
        ("reserved", c_uint64 * 8),
    ]


class CMessage(ctypes.Structure):
    _fields_ = [("role", c_char_p), ("text", c_char_p), ("len", c_size_t)]


class CQueryMore(ctypes.Structure):
    _fields_ = [
        ("jurisdiction", c_char_p),
        ("tracestate", c_char_p),
        ("reserved", c_uint64 * 6),
    ]


class CQuery(ctypes.Structure):
    _fields_ = [
        ("model", c_char_p),
        ("messages", POINTER(CMessage)),
        ("message_count", c_size_t),
        ("text", c_char_p),
        ("text_len", c_size_t),
        ("max_tokens", c_uint32),
        ("temperature", c_float),
        ("top_p", c_float),
        ("min_p", c_float),
        ("top_k", c_uint32),
        ("seed", c_uint64),
        ("has_tiers", c_bool),
        ("tier_min", c_uint32),
        ("tier_max", c_uint32),
        ("radius_km", c_uint32),
        ("vram_mib", c_uint32),
        ("budget_ms", c_uint32),
        ("end_to_end", c_bool),
        ("tags", c_char_p),
        ("has_position", c_bool),
        ("latitude_deg", c_double),
        ("longitude_deg", c_double),
        ("priority", c_uint32),
        ("session", c_char_p),
        ("hedge", c_bool),
        ("once", c_bool),
        ("no_thinking", c_bool),
        ("logprobs", c_uint32),
        ("repetition_penalty", c_float),
        ("presence_penalty", c_float),
        ("frequency_penalty", c_float),
        ("stop", POINTER(c_char_p)),
        ("stop_count", c_size_t),
        ("embed", c_uint32),
        ("format", c_uint32),
        ("traceparent", c_char_p),
        ("format_text", c_char_p),
        ("more", POINTER(CQueryMore)),
    ]


class CResult(ctypes.Structure):
    _fields_ = [
        ("status", c_int),
        ("finish", c_int),
        ("node", c_char * 32),
        ("backend", c_char * 16),
        ("tier", c_uint32),
        ("prompt_tokens", c_uint32),
        ("new_tokens", c_uint32),
        ("total_us", c_uint64),
        ("first_token_us", c_uint64),
        ("queue_us", c_uint64),
        ("prefill_us", c_uint64),
        ("decode_us", c_uint64),
        ("net_us", c_uint64),
        ("constraint", c_int),
        ("constraint_best", c_uint32),
        ("retry_after_ms", c_uint32),
        ("resends", c_uint32),
        ("failovers", c_uint32),
        ("hedged", c_bool),
        ("gap_us", c_uint64),
        ("cached_tokens", c_uint32),
        ("accepted_us", c_uint64),
        ("mixed", c_uint32),
        ("reserved32", c_uint32),
        ("reserved", c_uint64 * 5),
    ]


class CLogprob(ctypes.Structure):
    _fields_ = [("token", c_uint32), ("logprob", c_float), ("text", c_void_p), ("len", c_size_t)]


# The C name of each, for the test.
STRUCTS = {"weft_client_opts": COpts, "weft_message": CMessage, "weft_query": CQuery,
           "weft_query_more": CQueryMore,
           "weft_result": CResult, "weft_logprob": CLogprob}

TEXT_FN = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_size_t, c_void_p)
DONE_FN = ctypes.CFUNCTYPE(None, c_void_p, POINTER(CResult), c_void_p)

PROTOTYPES = {
    "weft_client_create": (c_int, POINTER(c_void_p), POINTER(COpts)),
    "weft_client_destroy": (None, c_void_p),
    "weft_client_fd": (c_int, c_void_p),
    "weft_client_timeout_ms": (c_int, c_void_p),
    "weft_client_process": (c_int, c_void_p),
    "weft_submit": (c_int, c_void_p, POINTER(CQuery), TEXT_FN, DONE_FN, c_void_p,
                    POINTER(c_void_p)),
    "weft_cancel": (None, c_void_p),
    "weft_hold": (None, c_void_p, c_bool),
    "weft_text_logprobs": (POINTER(CLogprob), c_void_p, POINTER(c_size_t)),
    "weft_embedding": (POINTER(c_float), c_void_p, POINTER(c_size_t)),
    "weft_status_text": (c_char_p, c_int),
    "weft_status_name": (c_char_p, c_int),
    "weft_finish_name": (c_char_p, ctypes.c_uint),
    "weft_constraint_text": (c_char_p, ctypes.c_uint),
    "weft_constraint_unit": (c_char_p, ctypes.c_uint),
}


def candidates() -> list[str]:
    """What to try, in this order."""
    given = os.environ.get("WEFT_LIBRARY")
    if given:
        return [given]  # and nothing else: whoever sets it means it
    beside = Path(__file__).resolve().parent / SONAME
    return [*([str(beside)] if beside.exists() else []), SONAME]


@functools.lru_cache(maxsize=None)
def library() -> ctypes.CDLL:
    """libweft, loaded once. ImportError says where it was looked for."""
    tried = []
    for path in candidates():
        try:
            found = ctypes.CDLL(path)
        except OSError as error:
            tried.append(str(error))
            continue
        for name, (result, *arguments) in PROTOTYPES.items():
            function = getattr(found, name)
            function.restype, function.argtypes = result, arguments
        return found
    raise ImportError(f"{SONAME} cannot be loaded: {'; '.join(tried)}. Install libweft, or set "
                      "WEFT_LIBRARY to the file.")


def text_of(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")
