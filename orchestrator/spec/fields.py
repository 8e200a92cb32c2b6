"""The building blocks of the sweep file: a closed, frozen section, and the values its fields take.

It must not know any particular section; a refusal carries what `spec_file` needs to say where and what to do.
"""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from orchestrator.errors import looks_like_secret


def refusal(
    message: str, remedy: str | None = None, *, at: tuple[str | int, ...] = (), is_secret: bool = False
) -> PydanticCustomError:
    """Error of a validator; `at` is the path below the validated value, `is_secret` hides the value."""
    context = {"message": message, "remedy": remedy, "at": at, "is_secret": is_secret}
    return PydanticCustomError("ttc", "{message}", context)


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise refusal("is not the base URL of a model server", "write it as http://HOST:PORT/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        remedy = (
            "leave it out of the URL, put the key into an environment variable and name that in api_key_env"
        )
        raise refusal("holds a user, a password or a query", remedy, is_secret=True)
    path = parts.path.rstrip("/")
    if path.endswith(("/completions", "/embeddings", "/models")):
        raise refusal("is the URL of one call, not of a server", "write the part up to and including /v1")
    if not path:
        raise refusal("has no path", f"write {parts.scheme}://{parts.netloc}/v1")
    return url.rstrip("/")


def _check_variable(name: str) -> str:
    if looks_like_secret(name) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        remedy = (
            "put the key into an environment variable and write its NAME here, for example OPENAI_API_KEY"
        )
        raise refusal("is not the name of an environment variable", remedy, is_secret=True)
    return name


def check_store(url: str) -> str:
    """The URL, if it names a kind of database that there is a store for."""
    if "://" in url and not re.match(r"(sqlite|postgres|postgresql)(\+[a-z0-9]+)?://", url):
        remedy = "write sqlite:///FILE.db, or postgresql://USER@HOST/DATABASE"
        raise refusal("is not the URL of a SQLite or PostgreSQL database", remedy)
    return url


def _check_scalar(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        raise refusal("wants one value, or a list of values", "write a text or a number")
    return value


def _as_tuple(value: Any) -> Any:
    """One value where a list may stand."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def as_kind(value: Any) -> Any:
    """A name where a mapping with `kind` may stand."""
    return {"kind": value} if isinstance(value, str) else value


def as_column(value: Any) -> Any:
    """A name where a mapping with `column` may stand."""
    return {"column": value} if isinstance(value, str) else value


NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Url = Annotated[str, AfterValidator(_check_url)]
Variable = Annotated[str, AfterValidator(_check_variable)]
Urls = Annotated[tuple[Url, ...], BeforeValidator(_as_tuple, json_schema_input_type=str | list[str])]
Scalar = Annotated[str | int | float | bool | None, BeforeValidator(_check_scalar)]
Choice = Annotated[
    tuple[Scalar, ...],
    BeforeValidator(_as_tuple, json_schema_input_type=Scalar | list[Scalar]),
    Field(min_length=1),
]


class Section(BaseModel):
    """A part of the sweep file: frozen, strict, and closed to names it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
