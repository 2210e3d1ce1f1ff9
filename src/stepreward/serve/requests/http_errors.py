"""Errors in the form of OpenAI's interface, and the status of each kind of error."""

from __future__ import annotations

import math
import re
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from jinja2 import TemplateError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from stepreward.core.errors import (
    BudgetExhausted,
    InputError,
    MissingDataError,
    ModelError,
    PolicyError,
    SteprewardError,
    UnknownNameError,
)


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    """`invalid_request_error`, `authentication_error`, `rate_limit_error`, `backend_error` or `server_error`."""
    param: str | None = None
    """The field at fault."""
    code: str | int | None = None
    """A machine-readable code, or else the status, as in vLLM."""


class ErrorAnswer(BaseModel):
    """The body of every error."""

    error: ErrorBody


class ApiError(Exception):
    """An error as an HTTP answer.

    Args:
        status: of HTTP.
        message: what came, what was expected, what to do.
        param: the field at fault.
        code: machine-readable.
        retry_after: seconds after which the same request may succeed.
    """

    def __init__(
        self, status: int, message: str, *, param: str = "", code: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_after = status, message, param, code, retry_after

    @property
    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        kind = _KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        body = ErrorBody(message=self.message, type=kind, param=self.param or None, code=self.code or self.status)
        return ErrorAnswer(error=body).model_dump()

    def response(self) -> JSONResponse:
        """The whole answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body, self.status, headers)


_KINDS = {401: "authentication_error", 429: "rate_limit_error", 502: "backend_error", 504: "backend_error"}
ANSWERS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "The request cannot be answered as it is."},
    "5XX": {"model": ErrorAnswer, "description": "The server or what is behind it failed."},
}
"""Error responses of every route, for the OpenAPI document."""


_TOO_LONG = re.compile(
    r"refused with status 4\d\d.*(context_length_exceeded|context (length|size|window)|maximum model length)",
    re.S | re.I,
)
"""Messages by which OpenAI-compatible servers say that a prompt is too long, for which none has a status."""


def too_long(message: str) -> ApiError:
    """The answer to a conversation longer than the policy's context."""
    return ApiError(400, message, param="messages", code="context_length_exceeded")


def as_answer(error: Exception) -> ApiError:
    """The answer for an error."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):  # no such route, no such method, a body that is no JSON
        return ApiError(error.status_code, str(error.detail))
    if isinstance(error, RequestValidationError):
        # The fields at fault without their text, which is the user's.
        faults = [f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in error.errors()]
        first = error.errors()[0]["loc"][1:] if error.errors() else ()
        return ApiError(400, "; ".join(faults[:8]), param=".".join(map(str, first)))
    if isinstance(error, UnknownNameError | InputError | MissingDataError):
        return ApiError(400, str(error))
    if isinstance(error, BudgetExhausted):
        return ApiError(400, "the budget does not hold a single sample: raise it", code="budget")
    if isinstance(error, PolicyError) and _TOO_LONG.search(str(error)):
        return too_long(str(error))
    if isinstance(error, TemplateError):
        return ApiError(400, f"the chat template refuses these messages: {error}", param="messages")
    if isinstance(error, PolicyError | ModelError):
        return ApiError(502, f"the model behind this server failed: {error}", code="backend")
    if isinstance(error, SteprewardError | ValueError):
        return ApiError(400, str(error))
    return ApiError(500, "an unexpected error; see the server's log under this request's id")


async def answer_error(_: Request, error: Exception) -> JSONResponse:
    """Handler of all errors."""
    answer = as_answer(error).response()
    # The framework's own say more in headers, such as the methods that a path allows.
    answer.headers.update(getattr(error, "headers", None) or {})
    return answer


def raised_at(error: BaseException) -> str:
    """Where an error was raised: file and line only, as a message may contain a user's text."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}" if at is not None else "?"
