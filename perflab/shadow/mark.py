"""The mark: how one request says, unforgeably, that it is shadow traffic of a live run.

It travels three ways, so that a hop that drops one does not lose it: a ``tracestate`` entry
``perflab=<token>``, the same token as baggage, and the trace-id itself. A valid token means shadow. The
trace-id can only affirm: one whose tag matches by chance is an ordinary trace, one whose HMAC is right
was made for a run. What claims to be marked and is not valid is *refused*, never treated as shadow and
never as ordinary. So is what was made for a run that is over: a hop that drops the token must not turn the
last requests of a killed run into ordinary ones.

A token and a trace-id that speak of the same run must have been made together. A trace-id of another tag, or
of none, says nothing beside a valid token (a hop began a new trace, or cut the id to 64 bits), unless it was
made for a run. So a hop that begins new traces has one marked request in 65,536 refused.

A token lives for `LIFE_S` from when it was made and never longer than its run: HTTP servers check that,
consumers of queues do not, for a message may wait (its run must be live all the same), and hooks put a fresh
token on what long work sends late (`renewed`). The trace-id has no room for a time. That one mark arrives
twice is for `perflab.shadow.replay` to see.

Judging an unmarked request costs two substring searches and one look-up, a tenth of an HMAC; only a trace-id
that carries a known tag (1 in 65,536 per run) costs one HMAC more. A marked one costs about one and a half
of `hmac.digest`: the run's key keeps both halves of its HMAC begun, the token's covers the trace-id too, and
a mark that came as it was made is not taken to pieces.

Token::

    2.<run tag, 4 hex>.<not after, Unix seconds, 8 hex>.<nonce, 16 hex>.<HMAC-SHA256, first 16 bytes, hex>

The trace-id is ``tag (2 bytes) | HMAC over tag and the low half (6 bytes) | low half (8 random bytes)``, and
the nonce is its low half. The token's HMAC, under the run's key too, covers all before it and the trace-id it
was made with. Version 1 had the run's expiry instead of its own and is not accepted.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

ENTRY = "perflab"
"""Key of the tracestate entry and of the baggage member."""

LIFE_S = 120
"""How long a token is accepted by HTTP servers after it was made."""

_CLAIM = f"{ENTRY}="
_TOKEN = re.compile(r"2\.[0-9a-f]{4}\.[0-9a-f]{8}\.[0-9a-f]{16}\.[0-9a-f]{32}")
_TOKEN_CHARACTERS = 65
_CLAIM_CHARACTERS = len(_CLAIM)
_BODY = 33
_LOW_64 = 0xFFFF_FFFF_FFFF_FFFF
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))
_BLOCK_BYTES = 64


@dataclass(frozen=True, slots=True)
class RunKey:
    """The key that marks one run's requests.

    Parameters
    ----------
    tag : int
        16 bit, the run's name inside trace-ids; never 0.
    key : bytes
        32 secret bytes, of this run alone.
    not_after_s : int
        Unix time after which its marks are refused.
    """

    tag: int
    key: bytes
    not_after_s: int
    _inner: Any = field(init=False, compare=False)
    _outer: Any = field(init=False, compare=False)

    def __post_init__(self) -> None:
        block = (self.key if len(self.key) <= _BLOCK_BYTES else hashlib.sha256(self.key).digest()).ljust(
            _BLOCK_BYTES, b"\0"
        )
        object.__setattr__(self, "_inner", hashlib.sha256(block.translate(_INNER)))
        object.__setattr__(self, "_outer", hashlib.sha256(block.translate(_OUTER)))

    def sign(self, message: bytes) -> str:
        """Return the HMAC-SHA256 of a message (RFC 2104) in hex, from the halves the key keeps begun."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.hexdigest()  # type: ignore[no-any-return]  # hashlib's objects have no public type

    def __repr__(self) -> str:
        return f"RunKey(tag={self.tag:#06x}, not_after_s={self.not_after_s})"


@dataclass(frozen=True, slots=True)
class Mark:
    """One request's mark: the trace-id it must use and the token it carries."""

    trace_id: int
    token: str

    def headers(self, span_id: int) -> dict[str, str]:
        """Return the request headers that carry the mark all three ways."""
        return {
            "traceparent": f"00-{self.trace_id:032x}-{span_id:016x}-01",
            "tracestate": f"{ENTRY}={self.token}",
            "baggage": f"{ENTRY}={self.token}",
        }


class Judgement(NamedTuple):
    """What a request's carriers amount to.

    ``kind`` is ``ordinary``, ``marked`` or ``refused``; ``reason`` says why. ``tag``, ``token``
    and ``nonce`` are set when marked; the token is made anew when only the trace-id carried the mark, and for
    a message.
    """

    kind: Literal["ordinary", "marked", "refused"]
    tag: int = 0
    token: str = ""
    nonce: int = 0
    reason: str = ""


ORDINARY = Judgement("ordinary")


def new_tag() -> int:
    """Return a random run tag: 16 bit, not 0."""
    return secrets.randbelow(0xFFFF) + 1


def mint(run_key: RunKey, low64: int, now_s: float | None = None) -> Mark:
    """Make the mark of one request.

    Parameters
    ----------
    run_key : RunKey
        Key of the run.
    low64 : int
        64 random bits, unique per request; they become the low half of the trace-id and the nonce.
    now_s : float, optional
        Unix time its life begins; by default now.

    Returns
    -------
    Mark
    """
    return Mark(_trace_id(run_key, low64), _token(run_key, low64, time.time() if now_s is None else now_s))


def renewed(token: str, live: Mapping[int, RunKey] | None, now_s: float) -> str:
    """Return a token to send now: itself while it has half its life before it, else a fresh one of its mark.

    Parameters
    ----------
    token : str
        Of work whose mark was judged.
    live : mapping of tag to RunKey, or None
        As for `judge`; without its run the token stays as it is, to be refused where it arrives.
    now_s : float
        Unix time.
    """
    if int(token[7:15], 16) - now_s >= LIFE_S / 2:
        return token
    run_key = (live or {}).get(int(token[2:6], 16))
    return token if run_key is None else _token(run_key, int(token[16:32], 16), now_s)


def judge(
    trace_id: int,
    tracestate: str,
    baggage: str,
    live: Mapping[int, RunKey] | None,
    now_s: float,
    ended: Mapping[int, RunKey] | None = None,
    *,
    waited: bool = False,
) -> Judgement:
    """Judge what a request's headers claim.

    Parameters
    ----------
    trace_id : int
        The 128-bit id of its traceparent, 0 when it has none.
    tracestate, baggage : str
        The raw headers, ``""`` when absent.
    live : mapping of tag to RunKey, or None
        Runs that are live now; None when the list of live runs is stale: every claim is refused.
    now_s : float
        Unix time.
    ended : mapping of tag to RunKey, optional
        Runs that were live once, and are not now or not surely so: a trace-id made for one is refused.
    waited : bool
        Whether it is a message, which may be older than a token lives.

    Returns
    -------
    Judgement
        ``refused`` when a carrier claims a mark that is malformed, forged, expired, of a run that is not
        live, or when two carriers contradict each other.
    """
    if ENTRY not in tracestate and ENTRY not in baggage:
        return _affirm(trace_id, live or {}, ended or {}, now_s)
    if tracestate == baggage and live and not waited and tracestate.startswith(_CLAIM):
        as_made = _check_as_made(tracestate[_CLAIM_CHARACTERS:], trace_id, live, now_s)
        if as_made is not None:
            return as_made
    in_state = _entry(tracestate)
    in_baggage = in_state if baggage == tracestate else _entry(baggage)
    token = in_baggage if in_state is None else in_state
    if token is None:
        if _TOKEN.search(tracestate) or _TOKEN.search(baggage):
            return _refused("malformed")  # a hop has bent the member the mark was in
        return _affirm(trace_id, live or {}, ended or {}, now_s)
    if in_state is not None and in_baggage is not None and in_state != in_baggage:
        return _refused("contradiction")
    judgement = _check(token, trace_id, live, now_s, waited)
    if judgement.kind == "marked" and trace_id >> 112 != judgement.tag:
        other = _affirm(trace_id, live or {}, ended or {}, now_s)
        return judgement if other.kind == "ordinary" else _refused("contradiction")
    return judgement


def _check_as_made(token: str, trace_id: int, live: Mapping[int, RunKey], now_s: float) -> Judgement | None:
    """Return the judgement of a good mark whose three carriers came as they were made; None for any other.

    Nearly every mark is one: it is judged by what its text is, and only a bad one is taken to pieces.
    """
    if len(token) != _TOKEN_CHARACTERS or not token.isascii():
        return None
    run_key = live.get(trace_id >> 112)
    if run_key is None:
        return None
    written = trace_id.to_bytes(16, "big").hex()
    if token[2:6] != written[:4] or token[16:32] != written[16:]:
        return None
    genuine = run_key.sign((token[:_BODY] + written).encode())[:32]
    if not hmac.compare_digest(token[_BODY:], genuine):
        return None
    if now_s > run_key.not_after_s or now_s > int(token[7:15], 16):
        return None
    return Judgement("marked", run_key.tag, token, trace_id & _LOW_64)


def _check(
    token: str, trace_id: int, live: Mapping[int, RunKey] | None, now_s: float, waited: bool
) -> Judgement:
    """Judge a token; a trace-id of its run is judged with it, by the same HMAC."""
    if len(token) != _TOKEN_CHARACTERS or not token.startswith("2."):
        return _refused("malformed")
    try:
        tag, nonce = int(token[2:6], 16), int(token[16:32], 16)
        run_key = live.get(tag) if live is not None else None
        if run_key is None:
            return _refused(_unsigned(token, "stale control list" if live is None else "run not live"))
        if trace_id >> 112 != tag:
            trace_id = _trace_id(run_key, nonce)
        elif trace_id & _LOW_64 != nonce:
            return _refused(_unsigned(token, "contradiction"))
        if not hmac.compare_digest(token[_BODY:], _signature(run_key, token[:_BODY], trace_id)):
            return _refused(_unsigned(token, "forged"))
    except (ValueError, TypeError):  # not hex, not ASCII
        return _refused("malformed")
    # what is signed was written by us, so its parts are what they should be
    if now_s > run_key.not_after_s or (not waited and now_s > int(token[7:15], 16)):
        return _refused("expired")
    return Judgement("marked", tag, _token(run_key, nonce, now_s) if waited else token, nonce)


def _unsigned(token: str, reason: str) -> str:
    """Return why a token is refused that nothing vouches for."""
    return reason if _TOKEN.fullmatch(token) else "malformed"


def _affirm(
    trace_id: int, live: Mapping[int, RunKey], ended: Mapping[int, RunKey], now_s: float
) -> Judgement:
    tag = trace_id >> 112
    run_key = live.get(tag) or ended.get(tag)
    if run_key is None or not _is_genuine(trace_id, run_key):
        return ORDINARY
    if tag not in live:
        return _refused("run not live")
    if now_s > run_key.not_after_s:
        return _refused("expired")
    nonce = trace_id & _LOW_64
    return Judgement("marked", tag, _token(run_key, nonce, now_s), nonce)


def _refused(reason: str) -> Judgement:
    return Judgement("refused", reason=reason)


def _entry(header: str) -> str | None:
    """Return the value of the perflab member of a tracestate or baggage header; "" if there are two."""
    if header.startswith(_CLAIM) and len(header) == len(_CLAIM) + _TOKEN_CHARACTERS and "," not in header:
        return header[len(_CLAIM) :]  # nothing but the mark: as it leaves the generator
    found: list[str] = []
    for member in header.split(","):
        name, sign, value = member.partition("=")
        if sign and name.strip() == ENTRY:
            found.append(value.partition(";")[0].strip())  # baggage may carry properties
    if not found:
        return None
    return found[0] if len(found) == 1 else ""


def _token(run_key: RunKey, nonce: int, now_s: float) -> str:
    expires_s = min(int(now_s) + LIFE_S, run_key.not_after_s)
    body = f"2.{run_key.tag:04x}.{expires_s:08x}.{nonce:016x}."
    return body + _signature(run_key, body, _trace_id(run_key, nonce))


def _signature(run_key: RunKey, body: str, trace_id: int) -> str:
    return run_key.sign(b"%s%032x" % (body.encode(), trace_id))[:32]


def _trace_id(run_key: RunKey, low64: int) -> int:
    middle = run_key.sign(b"trace-id%04x%016x" % (run_key.tag, low64))[:12]
    return run_key.tag << 112 | int(middle, 16) << 64 | low64


def _is_genuine(trace_id: int, run_key: RunKey) -> bool:
    genuine = _trace_id(run_key, trace_id & _LOW_64)
    return hmac.compare_digest(genuine.to_bytes(16, "big"), trace_id.to_bytes(16, "big"))
