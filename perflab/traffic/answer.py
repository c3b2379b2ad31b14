"""What an answer must be, and what is taken from it for later requests."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from msgspec import UNSET, Struct, UnsetType

from perflab.errors import TrafficError

FAILED_STATUS = 400
"""Without a ``status`` check, an answer of this status or above counts as failed."""

_STEP = re.compile(r"\.([A-Za-z_][\w-]*)|\[(-?\d+)\]|\['([^']+)'\]")


class JsonCheck(Struct, frozen=True, forbid_unknown_fields=True):
    """What must stand at one place of a JSON answer.

    Parameters
    ----------
    path : str
        ``$.items[0].id``: names and positions only.
    exists : bool
        Whether there must be something at ``path`` (``false``: nothing).
    equals : any, optional
        What must stand there.
    """

    path: str
    exists: bool = True
    equals: Any | UnsetType = UNSET


class Checks(Struct, frozen=True, forbid_unknown_fields=True):
    """What makes an answer a good one; all must hold.

    Parameters
    ----------
    status : tuple of int
        Statuses that are right; empty = anything below 500.
    json : tuple of JsonCheck
        What the JSON body must hold.
    contains : tuple of str
        Texts the body must hold.
    max_ms : float, optional
        Longest time from due to last byte.
    """

    status: tuple[int, ...] = ()
    json: tuple[JsonCheck, ...] = ()
    contains: tuple[str, ...] = ()
    max_ms: float | None = None


class Judgement(NamedTuple):
    """``failure`` is ``""`` for a good answer, else what was wrong; ``captured`` maps names to values."""

    failure: str
    captured: dict[str, Any]


class JsonPath:
    """A path of names and positions into JSON.

    Parameters
    ----------
    text : str
        ``$`` followed by ``.name``, ``['name']`` or ``[position]``.

    Raises
    ------
    TrafficError
        If the text is no such path.

    Examples
    --------
    >>> JsonPath("$.items[0]['unit price']").find({"items": [{"unit price": 3}]})
    (True, 3)
    >>> JsonPath("$.items[4]").find({"items": []})
    (False, None)
    """

    __slots__ = ("_steps", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        steps: list[str | int] = []
        at = 1
        while text.startswith("$") and (step := _STEP.match(text, at)):
            steps.append(int(step[2]) if step[2] else step[1] or step[3])
            at = step.end()
        if not text.startswith("$") or at != len(text):
            raise TrafficError(f"{text!r} is not a JSON path; write it as '$.items[0].id'")
        self._steps = tuple(steps)

    def find(self, value: Any) -> tuple[bool, Any]:
        """Return whether there is something at the path, and what."""
        for step in self._steps:
            try:
                if isinstance(value, dict) is not isinstance(step, str):
                    return False, None
                value = value[step]
            except (LookupError, TypeError):
                return False, None
        return True, value


class Judge:
    """Judges answers of one endpoint.

    Parameters
    ----------
    checks : Checks
        What an answer must be.
    capture : dict of str to str
        Name of a variable -> JSON path of its value.

    Attributes
    ----------
    needs_body : bool
        Whether the body must be kept to judge an answer.
    """

    __slots__ = ("_capture", "_contains", "_json", "_max_ns", "_status", "needs_body")

    def __init__(self, checks: Checks, capture: dict[str, str] | None = None) -> None:
        self._status = frozenset(checks.status)
        self._contains = tuple(text.encode() for text in checks.contains)
        self._json = tuple((JsonPath(check.path), check) for check in checks.json)
        self._capture = tuple((name, JsonPath(path)) for name, path in (capture or {}).items())
        self._max_ns = None if checks.max_ms is None else round(checks.max_ms * 1e6)
        self.needs_body = bool(self._contains or self._json or self._capture)

    def judge(self, status: int, body: bytes, latency_ns: int) -> Judgement:
        """Judge one whole answer.

        Parameters
        ----------
        status : int
            HTTP status.
        body : bytes
            Decoded body (empty if `needs_body` is false).
        latency_ns : int
            Time from due to last byte.

        Examples
        --------
        >>> Judge(Checks(status=(201,)), {"order_id": "$.id"}).judge(201, b'{"id": 7}', 0)
        Judgement(failure='', captured={'order_id': 7})
        """
        if self._status:
            if status not in self._status:
                return Judgement(f"status {status}", {})
        elif status >= FAILED_STATUS:
            return Judgement(f"status {status}", {})
        if self._max_ns is not None and latency_ns > self._max_ns:
            return Judgement(f"slower than {self._max_ns / 1e6:g} ms", {})
        for text in self._contains:
            if text not in body:
                return Judgement(f"body lacks {text.decode()!r}", {})
        return self._judge_json(body) if self._json or self._capture else Judgement("", {})

    def _judge_json(self, body: bytes) -> Judgement:
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            return Judgement("body is not JSON", {})
        for path, check in self._json:
            found, value = path.find(content)
            if found is not check.exists:
                return Judgement(f"{path.text} {'missing' if check.exists else 'present'}", {})
            if check.equals is not UNSET and (value != check.equals or type(value) is not type(check.equals)):
                return Judgement(f"{path.text} differs", {})
        captured = {}
        for name, path in self._capture:
            found, value = path.find(content)
            if not found or not isinstance(value, (str, int, float)):
                return Judgement(f"nothing to capture at {path.text}", {})
            captured[name] = value
        return Judgement("", captured)
