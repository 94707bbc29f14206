"""Every refusal that Vestnik can give, as RFC 9457 problems.

AppError                  a code, a status, one sentence; never changes once published
|- BadRequest      400    the request cannot be read at all
|- Unauthorized    401    who is asking?
|- Forbidden       403    known, but not allowed
|- NotFound        404
|- Conflict        409    the thing is in a state that forbids this
|- StaleVersion    412    If-Match names an older version
|- TooLarge        413
|- WrongMediaType  415
|- Invalid         422    readable, but something in it is wrong: `errors` says where
|- MatchRequired   428    an update without If-Match
|- TooMany         429
`- Unavailable     503
"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong: where (RFC 6901 JSON pointer), a code for programs, a sentence that says what to change."""

    pointer: str
    code: str
    detail: str

    def as_json(self) -> dict[str, str]:
        return {"pointer": self.pointer, "code": self.code, "detail": self.detail}


class AppError(Exception):
    """A refusal: `detail` is one sentence for a person, `code` is for programs."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 400
    title: ClassVar[str] = "Error"

    def __init__(self, detail: str = "", *, code: str | None = None, errors: list[FieldError] | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.problem_code = code or self.code
        self.errors = errors or []
        self.headers = headers or {}


class BadRequest(AppError):
    code, status, title = "bad_request", 400, "The request cannot be read"


class Unauthorized(AppError):
    code, status, title = "unauthorized", 401, "A valid key or token is needed"

    def __init__(self, detail: str = "", *, code: str | None = None) -> None:
        super().__init__(detail, code=code, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(AppError):
    code, status, title = "forbidden", 403, "This caller may not do that"


class NotFound(AppError):
    code, status, title = "not_found", 404, "There is no such thing"


class Conflict(AppError):
    code, status, title = "conflict", 409, "The present state does not allow that"


class StaleVersion(AppError):
    code, status, title = "stale_version", 412, "It was changed meanwhile: read it again"


class TooLarge(AppError):
    code, status, title = "too_large", 413, "The request is too large"


class WrongMediaType(AppError):
    code, status, title = "unsupported_media_type", 415, "This content type is not taken here"


class Invalid(AppError):
    code, status, title = "invalid", 422, "Something in the request is wrong"


class MatchRequired(AppError):
    code, status, title = "match_required", 428, "Send If-Match with the ETag that you have read"


class TooMany(AppError):
    code, status, title = "too_many_requests", 429, "Too many requests"


class Unavailable(AppError):
    code, status, title = "unavailable", 503, "Not available just now: try again"


class ConfigurationError(Exception):
    """The environment or a file is wrong: the commands say this one line and end with 2."""


def pointer(*steps: str | int) -> str:
    """RFC 6901: `/data/amount` of ("data", "amount")."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def field_invalid(steps: tuple[str | int, ...], code: str, detail: str) -> Invalid:
    """An Invalid that names one field."""
    return Invalid(detail, errors=[FieldError(pointer(*steps), code, detail)])
