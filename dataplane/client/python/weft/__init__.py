# SPDX-License-Identifier: Apache-2.0
"""Ask a Weft mesh: Client for threads, AsyncClient for asyncio; see README.md."""
from .aio import AsyncClient, AsyncStream
from .client import Client, Stream
from .errors import *  # noqa: F403  (its __all__)
from .errors import __all__ as _errors
from .types import Answer, Logprob, Message, Prompt, Query, QueryFields, Result

__version__ = "0.1.0"
__all__ = ["Answer", "AsyncClient", "AsyncStream", "Client", "Logprob", "Message", "Prompt",
           "Query", "QueryFields", "Result", "Stream", *_errors]
