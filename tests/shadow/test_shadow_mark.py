"""The mark: three carriers, one judgement, and nothing but a valid claim becomes shadow."""

from __future__ import annotations

import hashlib
import hmac
import random
import secrets
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perflab.shadow.mark import LIFE_S, Judgement, RunKey, judge, mint, new_tag, renewed

NOW = 1_800_000_000
RUN = RunKey(0x1A2B, b"r" * 32, NOW + 600)
OTHER = RunKey(0x77EE, b"o" * 32, NOW + 600)
LIVE = {RUN.tag: RUN, OTHER.tag: OTHER}
NONCE = 0x0123_4567_89AB_CDEF
MARK = mint(RUN, NONCE, NOW)
STATE = f"perflab={MARK.token}"
UNRELATED = 0xFACE_0000_0000_0000_0000_0000_0000_0001


def by_hand(run: RunKey, low64: int) -> tuple[int, str]:
    """Make a mark from the words of the module's docstring, by other means."""
    upper, low = f"{run.tag:04x}", f"{low64:016x}"
    middle = hmac.new(run.key, f"trace-id{upper}{low}".encode(), hashlib.sha256).hexdigest()[:12]
    body = f"2.{upper}.{min(NOW + 120, run.not_after_s):08x}.{low}."
    signed = hmac.new(run.key, (body + upper + middle + low).encode(), hashlib.sha256).hexdigest()
    return int(upper + middle + low, 16), body + signed[:32]


def forged(token: str) -> str:
    return token[:-1] + ("0" if token[-1] != "0" else "1")


def verdict(trace_id: int = 0, state: str = "", baggage: str = "", live=LIVE, now=NOW, ended=None) -> str:
    found = judge(trace_id, state, baggage, live, now, ended)
    return found.reason if found.kind == "refused" else found.kind


@given(
    st.integers(0, 2**64 - 1), st.integers(1, 0xFFFF), st.integers(0, 300), st.binary(min_size=1, max_size=99)
)
def test_a_mark_is_made_as_documented(low64: int, tag: int, left_s: int, key: bytes):
    """Trace-id and token are the documented functions of tag, key, expiry and 64 random bits."""
    run = RunKey(tag, key, NOW + left_s)
    made = mint(run, low64, NOW + 0.9)
    assert (made.trace_id, made.token) == by_hand(run, low64)
    assert made.headers(7) == {
        "traceparent": f"00-{made.trace_id:032x}-0000000000000007-01",
        "tracestate": f"perflab={made.token}",
        "baggage": f"perflab={made.token}",
    }


@pytest.mark.parametrize(
    ("trace_id", "state", "baggage"),
    [
        (UNRELATED, STATE, ""),
        (UNRELATED, "", STATE),
        (MARK.trace_id, "", ""),
        (0, STATE, ""),
        (0, "", STATE),
        (MARK.trace_id, STATE, STATE),
        (UNRELATED, f"vendor=a;b,{STATE} , x=y", ""),
        (UNRELATED, "", f"user=7;ttl=1, {STATE};secret=no"),
        (UNRELATED, "", f"perflab = {MARK.token}"),
        (MARK.trace_id & (1 << 64) - 1, STATE, ""),
    ],
)
def test_each_carrier_alone_marks(trace_id: int, state: str, baggage: str):
    """A valid tracestate, baggage or trace-id is enough, and the token comes out the same."""
    assert judge(trace_id, state, baggage, LIVE, NOW) == Judgement("marked", RUN.tag, MARK.token, NONCE)


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        (f"perflab={forged(MARK.token)}", "forged"),
        (f"perflab={mint(RunKey(RUN.tag, b'x' * 32, RUN.not_after_s), NONCE, NOW).token}", "forged"),
        (f"perflab={MARK.token.replace(f'{NOW + LIFE_S:08x}', f'{NOW + 999:08x}')}", "forged"),
        (f"perflab={mint(RunKey(0x0BAD, RUN.key, RUN.not_after_s), 1, NOW).token}", "run not live"),
        (f"perflab={MARK.token.upper()}", "malformed"),
        (f"perflab={MARK.token}0", "malformed"),
        (f"perflab=1{MARK.token[1:]}", "malformed"),
        (f"perflab={MARK.token[:-33]}-{MARK.token[-32:]}", "malformed"),
        ("perflab=", "malformed"),
        ("perflab=2.é", "malformed"),
        (f"perflab={MARK.token[:-1]}é", "malformed"),
        (f"perflab=2.+1a2{MARK.token[6:]}", "malformed"),
        (f"perflab={MARK.token},perflab={MARK.token}", "malformed"),
        (f"perflab={MARK.token},perflab={mint(RUN, 2, NOW).token}", "malformed"),
    ],
)
@pytest.mark.parametrize("carrier", ["tracestate", "baggage"])
@pytest.mark.parametrize("trace_id", [0, UNRELATED, MARK.trace_id])
def test_a_claim_that_is_not_valid_is_refused(claim: str, why: str, carrier: str, trace_id: int):
    """Forged, altered, unknown, malformed and doubled claims are refused, even on a genuine trace-id."""
    found = verdict(trace_id, **{"state" if carrier == "tracestate" else "baggage": claim})
    assert found == why


def test_every_altered_byte_is_refused():
    """No single byte of a token can be replaced by any other."""
    for position in range(len(MARK.token)):
        for byte in range(256):
            mutant = MARK.token[:position] + chr(byte) + MARK.token[position + 1 :]
            if mutant != MARK.token:
                for trace_id, baggage in ((0, ""), (MARK.trace_id, ""), (MARK.trace_id, f"perflab={mutant}")):
                    found = judge(trace_id, f"perflab={mutant}", baggage, LIVE, NOW)
                    assert found.kind == "refused", repr(mutant)


@pytest.mark.parametrize("carriers", [("state",), ("baggage",), ("state", "baggage"), ()])
def test_a_mark_ends_with_its_run(carriers: tuple[str, ...]):
    """Expired, ended, killed and stale: refused by whichever carrier claims it, the trace-id included."""
    # Given a mark that is good now, made late in its run and carried by its trace-id too
    made = mint(RUN, NONCE, RUN.not_after_s - 10)
    claim = dict.fromkeys(carriers, f"perflab={made.token}")
    assert verdict(made.trace_id, **claim) == "marked"
    # When its time is over, or its run is no longer listed but remembered, or the list is stale
    assert verdict(made.trace_id, **claim, now=RUN.not_after_s) == "marked"
    assert verdict(made.trace_id, **claim, now=RUN.not_after_s + 0.1) == "expired"
    assert verdict(made.trace_id, **claim, live={}, ended={RUN.tag: RUN}) == "run not live"
    stale = verdict(made.trace_id, **claim, live=None, ended={RUN.tag: RUN})
    # Then it is refused
    assert stale == ("stale control list" if carriers else "run not live")


@pytest.mark.parametrize("trace_id", [0, MARK.trace_id])
def test_a_token_has_a_life_of_its_own(trace_id: int):
    """Two minutes after it was made a token is worth nothing to a server; a message may have waited."""
    assert verdict(trace_id, STATE, now=NOW + LIFE_S) == "marked"
    assert verdict(trace_id, STATE, now=NOW + LIFE_S + 0.1) == "expired"
    # A message's token goes on as a fresh one, and ends with its run all the same
    found = judge(trace_id, STATE, "", LIVE, NOW + 300, waited=True)
    assert found == Judgement("marked", RUN.tag, mint(RUN, NONCE, NOW + 300).token, NONCE)
    over = judge(trace_id, STATE, "", LIVE, RUN.not_after_s + 0.1, waited=True)
    assert over.reason == "expired"


def test_work_that_lasts_sends_a_fresh_token():
    """From half its life on a token is made anew for what is sent, while its run is live."""
    assert renewed(MARK.token, LIVE, NOW + LIFE_S / 2) == MARK.token
    late = renewed(MARK.token, LIVE, NOW + 100)
    assert late == mint(RUN, NONCE, NOW + 100).token
    assert verdict(MARK.trace_id, f"perflab={late}", now=NOW + 200) == "marked"
    assert renewed(MARK.token, {}, NOW + 100) == MARK.token
    assert renewed(MARK.token, None, NOW + 100) == MARK.token


def test_a_stale_list_refuses_claims_and_leaves_the_rest():
    """Without a believed list every claim is refused and every request without a claim is ordinary."""
    assert verdict(UNRELATED, state=STATE, live=None) == "stale control list"
    assert verdict(UNRELATED, live=None) == "ordinary"
    assert verdict(UNRELATED, live={}) == "ordinary"


def test_carriers_that_contradict_each_other_are_refused():
    """Two valid tokens, or a token and a trace-id of another mark, are a contradiction."""
    second, other = mint(RUN, 99, NOW), mint(OTHER, 5, NOW)
    assert verdict(0, STATE, f"perflab={second.token}") == "contradiction"
    assert verdict(0, STATE, f"perflab={other.token}") == "contradiction"
    assert verdict(0, STATE, "perflab=") == "contradiction"
    assert verdict(other.trace_id, STATE, STATE) == "contradiction"
    assert verdict(second.trace_id, STATE, STATE) == "contradiction"
    over = {run.tag: run for run in (OTHER,)}
    assert verdict(other.trace_id, STATE, live={RUN.tag: RUN}, ended=over) == "contradiction"
    # a trace-id of the token's run is that of its mark, or it was altered
    assert verdict(RUN.tag << 112 | 5, STATE) == "contradiction"
    for bit in range(112):
        assert verdict(MARK.trace_id ^ 1 << bit, STATE) == ("contradiction" if bit < 64 else "forged")
    # but one that has another run's tag by chance decides nothing
    assert verdict(OTHER.tag << 112 | 12345, STATE, STATE) == "marked"


def test_unmarked_trace_ids_are_ordinary():
    """Of random trace-ids, half of them with a live tag, none is marked and none refused."""
    chance = random.Random(7)
    for number in range(20_000):
        trace_id = chance.getrandbits(128)
        if number % 2:
            trace_id = RUN.tag << 112 | trace_id & (1 << 112) - 1
        found = verdict(trace_id, "vendor=perf", "lab=1", live={RUN.tag: RUN}, ended={OTHER.tag: OTHER})
        assert found == "ordinary"


def test_every_altered_bit_of_a_trace_id_makes_it_ordinary():
    """A trace-id can only affirm: with any bit changed it is nobody's."""
    for bit in range(128):
        assert verdict(MARK.trace_id ^ 1 << bit) == "ordinary"


_WORDS = st.sampled_from(
    [
        "perflab",
        "=",
        ",",
        ";",
        " ",
        MARK.token,
        STATE,
        forged(MARK.token),
        "é",
        "\x00",
        "%70erflab",
        "a=b",
        ".",
    ]
)
_HEADERS = st.one_of(st.text(), st.lists(_WORDS, max_size=12).map("".join))


@settings(max_examples=300)
@given(st.integers(0, 2**128 - 1), _HEADERS, _HEADERS, st.sampled_from([None, {}, LIVE]))
@example(MARK.trace_id, "perflab" * 50_000, "=," * 50_000, LIVE)
def test_no_header_raises_and_only_the_token_marks(trace_id: int, state: str, baggage: str, live):
    """Whatever the headers hold, there is a judgement, and marked means the genuine token or trace-id."""
    found = judge(trace_id, state, baggage, live, NOW)
    if found.kind == "marked":
        assert found.tag == RUN.tag
        assert MARK.token in (state + baggage) or trace_id == MARK.trace_id
    if found.kind == "refused":
        assert "perflab" in state or "perflab" in baggage


def test_tags_and_representations():
    """A tag is 16 bit and never 0; a run's key shows itself to nobody."""
    assert all(0 < new_tag() <= 0xFFFF for _ in range(1_000))
    assert repr(RunKey(0x1A2B, secrets.token_bytes(32), int(time.time()))).startswith(
        "RunKey(tag=0x1a2b, not_"
    )
    assert "key=" not in repr(RUN)
