"""A request as a template: compiled once to segments, filled in for each arrival.

``${name}`` stands for a value; ``$${`` is a literal ``${``. The names every template knows are in
`VARIABLES`; any other must be captured from an answer by some endpoint of the scenario. A value is
written as its place demands: percent-encoded in a URL, JSON-escaped in JSON, refused in a header when it
would break the header. Nothing a server answered can therefore add a header, a parameter or a field.
"""

from __future__ import annotations

import json
import random
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote

from perflab.errors import TrafficError

VARIABLES: Mapping[str, str] = {
    "canary": "text found nowhere else, one per request; the audit looks for it in production",
    "uuid": "a random UUID",
    "random:LOW:HIGH": "a whole number from LOW to HIGH, both included",
    "seq": "0, 1, 2, ...: the number of the arrival in the run",
}
"""Variables every template knows -> what they stand for."""

ENGINE_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers a scenario may not set: the load engine writes them, or could not keep their promise."""

_MARK = re.compile(r"\$\$\{|\$\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RANDOM = re.compile(r"random:(-?\d+):(-?\d+)")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ABSOLUTE = re.compile(r"(https?)://([^/?#]*)(.*)", re.DOTALL | re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.%a-z]+\]|[^\[\]:@\s\\]+)(?::(\d{1,5}))?")
_UNPRINTED = re.compile(r"[\x00-\x20\x7f\\]")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_URL_SAFE = "/:?[]@!$&'()*+,;=%-._~"


@dataclass(slots=True)
class Context:
    """What one request is filled in with.

    Parameters
    ----------
    canary : str
        Text of ``${canary}``.
    seq : int
        Number of the arrival.
    random : random.Random
        Source of ``${random:...}`` and ``${uuid}``; seeded, so that a run can be repeated.
    captured : mapping of str to value
        Values captured from earlier answers.
    """

    canary: str = ""
    seq: int = 0
    random: random.Random = field(default_factory=lambda: random.Random(0))
    captured: Mapping[str, Any] = field(default_factory=dict)


class Request(NamedTuple):
    """One request, ready to be written on a connection.

    Headers are ``(name, value)`` pairs with lower-case names, without ``host``, ``content-length`` and
    the marks, which belong to the engine.
    """

    method: str
    path: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Variable(NamedTuple):
    """One ``${...}``: ``random`` with its bounds, another of `VARIABLES`, or a captured name."""

    name: str
    low: int = 0
    high: int = 0

    @property
    def is_captured(self) -> bool:
        """Whether its value comes from an answer."""
        return self.name not in ("canary", "uuid", "seq", "random")

    def value(self, context: Context) -> Any:
        """Return the value for one request."""
        if self.name == "canary":
            return context.canary
        if self.name == "seq":
            return context.seq
        if self.name == "random":
            return context.random.randint(self.low, self.high)
        if self.name == "uuid":
            return str(uuid.UUID(int=context.random.getrandbits(128), version=4))
        try:
            return context.captured[self.name]
        except KeyError:
            raise TrafficError(f"no value has been captured for ${{{self.name}}}") from None


_Encoder = Callable[[Any], bytes]
_Part = bytes | tuple[Variable, _Encoder]


class Template:
    """Text with variables, compiled to literal bytes and encoders.

    Parameters
    ----------
    parts : iterable of bytes or (Variable, encoder)
        In the order in which they are written.
    """

    __slots__ = ("_fixed", "_parts")

    def __init__(self, parts: Iterator[_Part]) -> None:
        merged: list[_Part] = []
        for part in parts:
            if merged and isinstance(part, bytes) and isinstance(merged[-1], bytes):
                merged[-1] += part
            else:
                merged.append(part)
        self._parts = tuple(merged)
        only = self._parts[0] if len(self._parts) == 1 else b"" if not self._parts else None
        self._fixed = only if isinstance(only, bytes) else None

    @property
    def captured(self) -> frozenset[str]:
        """Names of the captured values it needs."""
        variables = [part[0] for part in self._parts if not isinstance(part, bytes)]
        return frozenset(variable.name for variable in variables if variable.is_captured)

    def build(self, context: Context) -> bytes:
        """Return the text for one request.

        Raises
        ------
        TrafficError
            If a captured value is missing or cannot stand in this place.
        """
        if self._fixed is not None:
            return self._fixed
        try:
            return b"".join(
                part if isinstance(part, bytes) else part[1](part[0].value(context)) for part in self._parts
            )
        except UnicodeEncodeError as error:
            raise TrafficError(f"a captured value cannot be written as UTF-8: {error}") from error


class RequestTemplate:
    """A request of a scenario, compiled once.

    Parameters
    ----------
    method : str
        HTTP method; stored in upper case.
    url : str
        Path relative to the target's first address (``/orders``), or absolute (``http://host:port/orders``).
    headers : mapping of str to str
        Values may hold variables; names may not.
    json : dict or list, optional
        Body, sent as JSON. A text that is nothing but one variable keeps the variable's own type, so
        ``{"product": "${random:1:9}"}`` sends a number.
    body : str, optional
        Body as text. Values are escaped as the ``content-type`` header says: JSON, form, or as they are.

    Attributes
    ----------
    scheme : str
        ``http``, ``https``, or ``""`` for a relative URL.
    host : str
        Host of an absolute URL, ``""`` otherwise; IPv6 without brackets.
    port : int
        Port of an absolute URL (80 or 443 if not given), 0 otherwise.

    Raises
    ------
    TrafficError
        If URL, method or a header is not well-formed, a variable is unknown, or both bodies are given.
    """

    __slots__ = ("_body", "_headers", "_path", "host", "method", "port", "scheme")

    def __init__(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        json: dict[str, Any] | list[Any] | None = None,
        body: str | None = None,
    ) -> None:
        self.method = method.upper()
        if not _TOKEN.fullmatch(method) or self.method in ("CONNECT", "TRACE"):
            raise TrafficError(f"method {method!r} cannot be sent; use GET, POST, PUT, PATCH, DELETE or HEAD")
        self.scheme, self.host, self.port, path = _split_url(url)
        self._path = Template(_parts(path, _in_url, _literal_url))
        given = _checked_headers(headers or {})
        if json is not None and body is not None:
            raise TrafficError("both 'json' and 'body' are given; a request has one body")
        if json is not None:
            given.setdefault("content-type", "application/json")
            self._body = Template(_json_parts(json))
        else:
            if body is not None:
                given.setdefault("content-type", "text/plain; charset=utf-8")
            self._body = Template(_parts(body or "", _encoder_for(given.get("content-type", ""))))
        self._headers = tuple(
            (name.encode("ascii"), Template(_parts(value, _in_header))) for name, value in given.items()
        )

    @property
    def captured(self) -> frozenset[str]:
        """Names of the captured values it needs."""
        templates = [self._path, self._body, *(template for _, template in self._headers)]
        return frozenset().union(*(template.captured for template in templates))

    def build(self, context: Context) -> Request:
        """Fill the template in for one request.

        Raises
        ------
        TrafficError
            If a captured value is missing or cannot stand in its place.

        Examples
        --------
        >>> template = RequestTemplate("get", "/orders/${order_id}?note=${canary}")
        >>> template.build(Context(canary="plc 1", captured={"order_id": "a/b"})).path
        b'/orders/a%2Fb?note=plc%201'
        """
        return Request(
            self.method,
            self._path.build(context),
            tuple((name, template.build(context)) for name, template in self._headers),
            self._body.build(context),
        )


def _split_url(url: str) -> tuple[str, str, int, str]:
    if url.startswith("/") and not url.startswith("//"):
        return "", "", 0, url.partition("#")[0]
    absolute = _ABSOLUTE.fullmatch(url)
    if not absolute:
        raise TrafficError(
            f"url {url!r} is neither a path ('/orders') nor absolute ('http://host:port/orders')"
        )
    scheme, authority, rest = absolute[1].lower(), absolute[2], absolute[3].partition("#")[0]
    if "${" in authority:
        raise TrafficError(f"url {url!r}: the host of a URL cannot hold a variable")
    where = _AUTHORITY.fullmatch(authority)
    if not where:
        raise TrafficError(f"url {url!r}: {authority!r} is not a host or host:port")
    port = int(where[2]) if where[2] else (443 if scheme == "https" else 80)
    if not 0 < port < 65536:
        raise TrafficError(f"url {url!r}: there is no port {port}")
    return scheme, where[1].strip("[]"), port, rest if rest.startswith("/") else "/" + rest


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if not _TOKEN.fullmatch(name):
            raise TrafficError(f"{name!r} is not a header name")
        if lower in ENGINE_HEADERS:
            raise TrafficError(f"header {name!r} is written by the load engine; leave it out")
        if lower in given:
            raise TrafficError(f"header {name!r} is given twice")
        if _CONTROL.search(value):
            raise TrafficError(f"header {name!r} holds a line break or another control character")
        given[lower] = value.strip()
    return given


def _parts(text: str, encode: _Encoder, literal: Callable[[str], bytes] = str.encode) -> Iterator[_Part]:
    at = 0
    while mark := _MARK.search(text, at):
        yield literal(text[at : mark.start()])
        if mark[0] == "$${":
            yield literal("${")
            at = mark.end()
            continue
        end = text.find("}", mark.end())
        if end < 0:
            raise TrafficError(f"'${{' without its '}}' in {text!r}; write '$${{' for a literal '${{'")
        yield _variable(text[mark.end() : end]), encode
        at = end + 1
    yield literal(text[at:])


def _variable(name: str) -> Variable:
    if bounds := _RANDOM.fullmatch(name):
        low, high = int(bounds[1]), int(bounds[2])
        if low > high:
            raise TrafficError(f"${{{name}}}: {low} is above {high}")
        return Variable("random", low, high)
    if not _NAME.fullmatch(name) or name == "random":
        known = ", ".join(f"${{{known}}}" for known in VARIABLES)
        raise TrafficError(f"${{{name}}} is no variable; there are {known} and what endpoints capture")
    return Variable(name)


def _json_parts(value: Any) -> Iterator[_Part]:
    if isinstance(value, dict):
        for at, (key, item) in enumerate(value.items()):
            yield b", " if at else b"{"
            yield from _json_text(key)
            yield b": "
            yield from _json_parts(item)
        yield b"}" if value else b"{}"
    elif isinstance(value, (list, tuple)):
        yield b"["
        for at, item in enumerate(value):
            if at:
                yield b", "
            yield from _json_parts(item)
        yield b"]"
    elif isinstance(value, str):
        parts = [part for part in _parts(value, _as_json) if part != b""]
        if len(parts) == 1 and not isinstance(parts[0], bytes):
            yield parts[0]
        else:
            yield from _json_text(value)
    else:
        try:
            yield json.dumps(value, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise TrafficError(f"{value!r} cannot be sent as JSON: {error}") from error


def _json_text(text: str) -> Iterator[_Part]:
    yield b'"'
    yield from _parts(text, _inside_json, _inside_json)
    yield b'"'


def _encoder_for(content_type: str) -> _Encoder:
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return _inside_json
    return _in_url if kind == "application/x-www-form-urlencoded" else _as_is


def _literal_url(text: str) -> bytes:
    if _UNPRINTED.search(text):
        raise TrafficError(
            f"{text!r} in a URL holds a space, backslash or control character; percent-encode it"
        )
    return quote(text, safe=_URL_SAFE).encode("ascii")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _as_is(value: Any) -> bytes:
    return _text(value).encode()


def _in_url(value: Any) -> bytes:
    return quote(_text(value), safe="").encode("ascii")


def _inside_json(value: Any) -> bytes:
    return json.dumps(_text(value))[1:-1].encode("ascii")


def _as_json(value: Any) -> bytes:
    return json.dumps(value).encode("ascii")


def _in_header(value: Any) -> bytes:
    text = _text(value)
    if _CONTROL.search(text):
        raise TrafficError(
            f"value {text!r} cannot stand in a header: it holds a line break or control character"
        )
    return text.encode()
