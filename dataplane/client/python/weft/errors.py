# SPDX-License-Identifier: Apache-2.0
"""One exception for each status of schemas/status.def, in three families.

    Error
      RefusedError      nothing was done, and the mesh says why
      IncompleteError   it was begun and not finished; `text` is what had come
      SystemFailure     this machine's fault: a negative errno
        InvalidQueryError  (also a ValueError)
"""
from __future__ import annotations

import errno as _errno
import os
from typing import TYPE_CHECKING, Optional

from ._library import library, text_of

if TYPE_CHECKING:
    from .types import Result


class Error(Exception):
    """A request that did not end complete, or could not begin."""
    code = 0  # of the class; 0 = of a family

    def __init__(self, status: int, reason: str, result: Optional[Result] = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.result = result
        self.text = ""  # set by ask(): what had come

    @property
    def name(self) -> str:
        """Stable and for machines: "mesh_full", "worker_lost", ..., or "errno"."""
        return text_of(library().weft_status_name(self.status))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.status, self.reason, self.result), {"text": self.text}


class RefusedError(Error):
    """Nothing was done. The same request elsewhere or later may be answered."""

    @property
    def constraint(self) -> str:
        """What bound, in words; "" if nothing of the request did."""
        return self.result.constraint if self.result else ""

    @property
    def best(self) -> str:
        """The best achievable figure of that constraint with its unit; "" if it has none."""
        result = self.result
        unit = result.constraint_unit if result else ""
        return f"{result.constraint_best} {unit}" if result and unit else ""

    @property
    def retry_after_ms(self) -> int:
        """When to try again; 0 = no use."""
        return self.result.retry_after_ms if self.result else 0


class IncompleteError(Error):
    """Begun, but not finished."""


class SystemFailure(Error):
    """An error of this machine; `errno` says which."""

    @property
    def errno(self) -> int:
        return -self.status


class InvalidQueryError(SystemFailure, ValueError):
    """A request that cannot be put on the wire."""

    @classmethod
    def of(cls, reason: str) -> InvalidQueryError:
        return cls(-_errno.EINVAL, reason)


class UnknownModelError(RefusedError):
    code = -1001


class NoCapableNodeError(RefusedError):
    code = -1002


class BudgetInfeasibleError(RefusedError):
    code = -1003


class BudgetExpiredError(IncompleteError):
    code = -1004


class MeshFullError(RefusedError):
    code = -1005


class WorkerLostError(IncompleteError):
    code = -1006


class StalledError(IncompleteError):
    code = -1007


class UnreachableError(Error):
    code = -1008


class CancelledError(IncompleteError):
    """The request was cancelled. Not asyncio's exception of that name."""
    code = -1009


class BadRequestError(Error):
    code = -1010


class TooLongError(RefusedError):
    code = -1011


class VersionError(Error):
    code = -1012


class LoopError(Error):
    code = -1013


class CorruptError(IncompleteError):
    code = -1014


class WorkerFailedError(IncompleteError):
    code = -1015


class DrainingError(RefusedError):
    code = -1016


class ConfigError(Error):
    code = -1017


class ProtocolError(Error):
    code = -1018


def _family(cls: type[Error]) -> list[type[Error]]:
    return [cls, *(sub for child in cls.__subclasses__() for sub in _family(child))]


_BY_CODE = {cls.code: cls for cls in _family(Error) if cls.code != 0}
__all__ = sorted(cls.__name__ for cls in _family(Error))


def error_of(status: int, result: Optional[Result] = None) -> Error:
    """The exception for a status; one of a later release's is a plain Error."""
    if status in (-_errno.EINVAL, -_errno.E2BIG):
        return InvalidQueryError(status, os.strerror(-status), result)
    if -1000 < status < 0:
        return SystemFailure(status, os.strerror(-status), result)
    reason = text_of(library().weft_status_text(status))
    return _BY_CODE.get(status, Error)(status, reason, result)
