"""Errors in OpenAI's form, as its client maps them to exceptions."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer that is an error.

    Args:
        status: HTTP status.
        message: What happened and what to do.
        param: The field that is to blame.
        code: For programs.
        retry_after_s: When to try again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Headers beside the body."""
        headers = {} if self.retry_after_s is None else {"retry-after": f"{max(1, round(self.retry_after_s))}"}
        return {**headers, "www-authenticate": "Bearer"} if self.status == 401 else headers
