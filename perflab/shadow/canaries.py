"""Marked work that lost its mark still carries its canary: what ordinary work sends and answers is searched.

A mark follows the running code. A list that a thread of the service empties, a row in a table of jobs, a
service without an agent on the way lose it, and what comes out at the other end is ordinary work for all we
can tell, but for the text ``plc-<run id>-<trace id>`` in its payload. So while a run is live, and for a
minute after it, whatever ordinary work is about to send to a store or to another service is searched for the
canaries of that run: it is refused, production is not touched, and the run ends. What ordinary requests are
answered with is searched too: shadow data that a service kept in its own memory has reached a real user,
and the run ends.

Texts are searched as they are: not what was compressed, encrypted or put into another case. The audit, which
searches what production gained, is behind this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NoReturn

from perflab.errors import ShadowError
from perflab.shadow import scope
from perflab.shadow.ledger import LOST
from perflab.shadow.scope import process

DEEPEST, MOST = 8, 10_000
"""How deep payloads are searched, and how many values of them."""
_TRACE_ID = re.compile(r"[0-9a-f]{32}")


def watch(store: str, payload: Any) -> None:
    """Refuse ordinary work that is about to send a canary; never anything else.

    Parameters
    ----------
    store : str
        Where it would go, for people.
    payload
        Text, bytes, or what holds them: sequences, mappings. Iterators are left alone.

    Raises
    ------
    ShadowError
        If there is a canary in it. The run ends.
    """
    known = process.control.canaries
    if known and scope.current() is None:
        trace_id = find(payload, known)
        if trace_id is not None:
            _refuse(store, trace_id)


def watch_answer(chunk: Any) -> None:
    """End the run whose canary stands in an answer to a real user; never raises."""
    known = process.control.canaries
    if known and scope.current() is None:
        trace_id = find(chunk, known)
        if trace_id is not None:
            why = (
                "an answer to a real user holds what shadow work had sent: the service kept it in its memory"
            )
            process.ledger.refuse(LOST, why, int(trace_id or "0", 16))


def find(payload: Any, known: Iterable[str]) -> str | None:
    """Return the trace id of the first canary in a payload, ``""`` where it is cut off; None: there is none.

    Parameters
    ----------
    payload
        As for `watch`.
    known : iterable of str
        What canaries begin with.

    Examples
    --------
    >>> find(["x", {"note": b"plc-r1-" + b"0" * 31 + b"7"}], ["plc-r1-"])[-1]
    '7'
    """
    for prefix in known:
        coded = prefix.encode()
        for value in _texts(payload):
            is_text = isinstance(value, str)
            at = value.find(prefix) if is_text else value.find(coded)
            if at >= 0:
                rest = value[at + len(prefix) : at + len(prefix) + 32]
                found = _TRACE_ID.match(rest if is_text else bytes(rest).decode("latin-1"))
                return found[0] if found else ""
    return None


def _texts(payload: Any) -> Iterable[Any]:
    """Return the texts and bytes in a payload."""
    if isinstance(payload, (str, bytes, bytearray)):
        return (payload,)
    found: list[Any] = []
    _gather(payload, found, DEEPEST)
    return found


def _gather(payload: Any, found: list[Any], deeper: int) -> None:
    if isinstance(payload, (str, bytes, bytearray)):
        found.append(payload)
    elif isinstance(payload, memoryview):
        found.append(bytes(payload))
    elif deeper and len(found) < MOST:
        if isinstance(payload, dict):
            payload = (*payload, *payload.values())
        elif isinstance(getattr(payload, "adapted", None), (str, bytes, dict, list)):  # psycopg2's wrappers
            payload = (payload.adapted,)
        elif isinstance(getattr(payload, "obj", None), (str, dict, list)):  # psycopg's
            payload = (payload.obj,)
        if isinstance(payload, (list, tuple, set, frozenset)):
            for item in payload:
                _gather(item, found, deeper - 1)


def _refuse(store: str, trace_id: str) -> NoReturn:
    why = "what shadow work had handed on was about to be sent as a real user's: its mark was lost on the way"
    process.ledger.refuse(LOST, f"{store}: {why}", int(trace_id or "0", 16))
    raise ShadowError(f"perflab refused work in service {process.service!r}: {store}: {why}")
