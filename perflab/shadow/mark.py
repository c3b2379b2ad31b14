"""The mark: how one request says, unforgeably, that it is shadow traffic of a live run.

It travels three ways, so that a hop that drops one does not lose it: a ``tracestate`` entry
``perflab=<token>``, the same token as baggage, and the trace-id itself. A valid token means shadow. The
trace-id can only affirm: one whose tag matches by chance is an ordinary trace, one whose HMAC is right
was made for a run. What claims to be marked and is not valid is *refused*, never treated as shadow and
never as ordinary. So is what was made for a run that is over: a hop that drops the token must not turn the
last requests of a killed run into ordinary ones.

Judging an unmarked request costs two substring searches and one look-up, a tenth of an HMAC; only a trace-id
that carries a known tag (1 in 65,536 per run) costs one HMAC more.

Token::

    1.<run tag, 4 hex>.<not after, Unix seconds, hex>.<nonce, 16 hex>.<HMAC-SHA256, first 16 bytes, hex>

The HMAC covers version, tag, expiry and nonce under the run's key. The trace-id is
``tag (2 bytes) | HMAC over tag and the low half (6 bytes) | low half (8 random bytes)``.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ENTRY = "perflab"
"""Key of the tracestate entry and of the baggage member."""

_TOKEN = re.compile(r"1\.([0-9a-f]{4})\.([0-9a-f]{8,10})\.([0-9a-f]{16})\.([0-9a-f]{32})")


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


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a request's carriers amount to.

    ``kind`` is ``ordinary``, ``marked`` or ``refused``; ``reason`` says why it was refused; ``tag`` and
    ``token`` are set when marked (the token is made anew when only the trace-id carried the mark).
    """

    kind: Literal["ordinary", "marked", "refused"]
    tag: int = 0
    token: str = ""
    reason: str = ""


ORDINARY = Judgement("ordinary")


def new_tag() -> int:
    """Return a random run tag: 16 bit, not 0."""
    return secrets.randbelow(0xFFFF) + 1


def mint(run_key: RunKey, low64: int) -> Mark:
    """Make the mark of one request.

    Parameters
    ----------
    run_key : RunKey
        Key of the run.
    low64 : int
        64 random bits, unique per request; they become the low half of the trace-id and the nonce.

    Returns
    -------
    Mark
    """
    return Mark(_trace_id(run_key, low64), _token(run_key, low64))


def judge(
    trace_id: int,
    tracestate: str,
    baggage: str,
    live: Mapping[int, RunKey] | None,
    now_s: float,
    ended: Mapping[int, RunKey] | None = None,
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

    Returns
    -------
    Judgement
        ``refused`` when a carrier claims a mark that is malformed, forged, expired, of a run that is not
        live, or when two carriers contradict each other.
    """
    in_state = _entry(tracestate) if ENTRY in tracestate else None
    in_baggage = _entry(baggage) if ENTRY in baggage else None
    if in_state is None and in_baggage is None:
        return _affirm(trace_id, live or {}, ended or {}, now_s)
    if in_state is not None and in_baggage is not None and in_state != in_baggage:
        return Judgement("refused", reason="contradiction")
    judgement = _check(in_state if in_state is not None else in_baggage or "", live, now_s)
    if judgement.kind != "marked" or trace_id >> 112 == judgement.tag:
        return judgement
    made_for_another_run = _affirm(trace_id, live or {}, {}, now_s).kind == "marked"
    return Judgement("refused", reason="contradiction") if made_for_another_run else judgement


def _check(token: str, live: Mapping[int, RunKey] | None, now_s: float) -> Judgement:
    match = _TOKEN.fullmatch(token)
    if match is None:
        return Judgement("refused", reason="malformed")
    if live is None:
        return Judgement("refused", reason="stale control list")
    run_key = live.get(int(match[1], 16))
    if run_key is None:
        return Judgement("refused", reason="run not live")
    if not hmac.compare_digest(_token(run_key, int(match[3], 16)), token):
        forged = int(match[2], 16) == run_key.not_after_s
        return Judgement("refused", reason="forged" if forged else "expiry altered")
    if now_s > run_key.not_after_s:
        return Judgement("refused", reason="expired")
    return Judgement("marked", run_key.tag, token)


def _affirm(
    trace_id: int, live: Mapping[int, RunKey], ended: Mapping[int, RunKey], now_s: float
) -> Judgement:
    tag = trace_id >> 112
    run_key = live.get(tag) or ended.get(tag)
    if run_key is None:
        return ORDINARY
    low64 = trace_id & 0xFFFF_FFFF_FFFF_FFFF
    if not hmac.compare_digest(_trace_id(run_key, low64).to_bytes(16, "big"), trace_id.to_bytes(16, "big")):
        return ORDINARY
    if tag not in live:
        return Judgement("refused", reason="run not live")
    if now_s > run_key.not_after_s:
        return Judgement("refused", reason="expired")
    return Judgement("marked", tag, _token(run_key, low64))


def _entry(header: str) -> str | None:
    """Return the value of the perflab member of a tracestate or baggage header; "" if there are two."""
    found: list[str] = []
    for member in header.split(","):
        name, sign, value = member.partition("=")
        if sign and name.strip() == ENTRY:
            found.append(value.partition(";")[0].strip())  # baggage may carry properties
    if not found:
        return None
    return found[0] if len(found) == 1 else ""


def _token(run_key: RunKey, nonce: int) -> str:
    body = f"1.{run_key.tag:04x}.{run_key.not_after_s:08x}.{nonce:016x}"
    return f"{body}.{hmac.digest(run_key.key, body.encode(), 'sha256')[:16].hex()}"


def _trace_id(run_key: RunKey, low64: int) -> int:
    tag = run_key.tag.to_bytes(2, "big")
    low = low64.to_bytes(8, "big")
    return int.from_bytes(tag + hmac.digest(run_key.key, b"trace-id" + tag + low, "sha256")[:6] + low, "big")
