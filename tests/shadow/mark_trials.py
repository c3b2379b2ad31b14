"""Trials of the mark, in any number: false marks and unmarked requests through the inbound of a process.

`Trials` makes this process look attached to eight live runs, without a hook, and sends every claim through
`perflab.shadow.inbound.receive`, as the servers' hooks do.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from perflab.shadow.control import ControlList, ControlPublisher, ControlReader, LiveRun, encode, run_key
from perflab.shadow.inbound import Refused, receive
from perflab.shadow.ledger import Ledger
from perflab.shadow.mark import LIFE_S, Mark, RunKey, mint
from perflab.shadow.scope import process

KEY = b"a control key of the trials"
HEX = "0123456789abcdef"
Headers = dict[str, str]


class Trials:
    """Makes claims and has them judged; ``seed`` makes them the same again."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        now_s = int(time.time())
        tags = self.chance.sample(range(1, 0x10000), 10)
        self.live = [LiveRun(tag, f"run-{tag}", f"key-{tag}", now_s + 86_400) for tag in tags[:8]]
        self.over = LiveRun(tags[8], "over", "key-over", now_s + 86_400)
        self.keys = [run_key(KEY, run) for run in self.live]
        self.over_key = run_key(KEY, self.over)
        self.unknown_key = RunKey(tags[9], self.chance.randbytes(32), now_s + 86_400)
        self.kinds: dict[str, Callable[[], Headers]] = {
            "forged by another key": self.forged,
            "expired": self.expired,
            "of a run that is over": self.of_a_run_that_is_over,
            "of a run nobody knows": self.of_an_unknown_run,
            "one bit of the token flipped": self.token_bit,
            "one bit of a bare trace-id flipped": self.bare_bit,
            "one bit of the trace-id flipped beside the token": self.trace_bit,
            "cut short": self.cut,
            "made longer": self.longer,
            "in upper case": self.upper,
            "given twice": self.twice,
            "fields swapped with another's": self.swapped,
            "token of another request": self.of_another_request,
            "two tokens": self.two_tokens,
            "replayed": self.replayed,
            "replayed without its token": self.replayed_bare,
        }
        self.genuine: list[Headers] = []

    def genuine_claim(self) -> Headers:
        """Return a mark as the generator makes it."""
        return self.mark().headers(self.chance.getrandbits(63) + 1)

    def mark(self, key: RunKey | None = None, now_s: float | None = None) -> Mark:
        return mint(key or self.chance.choice(self.keys), self.chance.getrandbits(64), now_s)

    def headers(self, token: str, trace_id: int = 0) -> Headers:
        """Carry a token by one carrier or both, with a trace-id of its own or somebody's."""
        trace_id = trace_id or self.ordinary_id()
        sent = {"traceparent": f"00-{trace_id:032x}-{self.chance.getrandbits(63) + 1:016x}-01"}
        carriers = self.chance.choice((("tracestate",), ("baggage",), ("tracestate", "baggage")))
        return sent | dict.fromkeys(carriers, f"perflab={token}")

    def ordinary_id(self) -> int:
        return self.chance.getrandbits(128) or 1

    def forged(self) -> Headers:
        key = self.chance.choice(self.keys)
        made = self.mark(RunKey(key.tag, self.chance.randbytes(32), key.not_after_s))
        return self.headers(made.token, self.chance.choice((0, made.trace_id)))

    def expired(self) -> Headers:
        made = self.mark(now_s=time.time() - LIFE_S - self.chance.uniform(2, 9_999))
        return self.headers(made.token, self.chance.choice((0, made.trace_id)))

    def of_a_run_that_is_over(self) -> Headers:
        made = self.mark(self.over_key)
        bare = {"traceparent": made.headers(5)["traceparent"]}
        return self.chance.choice((bare, self.headers(made.token, made.trace_id), self.headers(made.token)))

    def of_an_unknown_run(self) -> Headers:
        made = self.mark(self.unknown_key)
        return self.headers(made.token, made.trace_id)

    def token_bit(self) -> Headers:
        made = self.mark()
        raw = bytearray(made.token.encode())
        raw[self.chance.randrange(len(raw))] ^= 1 << self.chance.randrange(8)
        return self.headers(raw.decode("latin-1"), self.chance.choice((0, made.trace_id)))

    def bare_bit(self) -> Headers:
        trace_id = self.mark().trace_id ^ 1 << self.chance.randrange(128)
        return {"traceparent": f"00-{trace_id:032x}-{5:016x}-01"}

    def trace_bit(self) -> Headers:
        made = self.mark()  # its tag is left as it is: with another it says nothing
        return self.headers(made.token, made.trace_id ^ 1 << self.chance.randrange(112))

    def cut(self) -> Headers:
        made = self.mark()
        return self.headers(made.token[: self.chance.randrange(len(made.token))], made.trace_id)

    def longer(self) -> Headers:
        made = self.mark()
        more = "".join(self.chance.choices(HEX, k=self.chance.randint(1, 40)))
        return self.headers(self.chance.choice((made.token + more, more + made.token)), made.trace_id)

    def upper(self) -> Headers:
        made = self.mark()
        token = made.token.upper()
        return self.headers(token if token != made.token else token[:-1], made.trace_id)

    def twice(self) -> Headers:
        made = self.mark()
        return self.headers(f"{made.token},perflab={made.token}", made.trace_id)

    def swapped(self) -> Headers:
        one, other = self.mark(), self.mark()
        fields, others = one.token.split("."), other.token.split(".")
        at = self.chance.choice([at for at in range(5) if fields[at] != others[at]])
        fields[at] = others[at]
        return self.headers(".".join(fields), one.trace_id)

    def of_another_request(self) -> Headers:
        return self.headers(self.mark().token, self.mark().trace_id)

    def two_tokens(self) -> Headers:
        one, other = self.mark(), self.mark()
        return self.headers(one.token, one.trace_id) | {
            "tracestate": f"perflab={one.token}",
            "baggage": f"perflab={other.token}",
        }

    def replayed(self) -> Headers:
        """Return a claim that was accepted before, as it was."""
        return dict(self.chance.choice(self.genuine))

    def replayed_bare(self) -> Headers:
        return {"traceparent": self.chance.choice(self.genuine)["traceparent"]}

    def accept_genuine(self, count: int) -> int:
        """Have genuine marks judged, so that they can be replayed; return how many were accepted."""
        self.genuine = [self.genuine_claim() for _ in range(count)]
        return sum(verdict(claim) == "marked" for claim in self.genuine)


def verdict(claim: Headers) -> str:
    """Return ``marked``, ``ordinary`` or ``refused: why``."""
    try:
        return "ordinary" if receive(claim)[1] is None else "marked"
    except Refused as refused:
        return f"refused: {refused}"


@contextmanager
def attached_to(trials: Trials, directory: Path) -> Iterator[Trials]:
    """Make this process look attached while the runs of the trials are live."""
    control = directory / "control.json"
    before = dict(vars(process))
    reader = ControlReader(str(control), KEY)
    control.write_bytes(encode(ControlList(time.time(), (trials.over,)), KEY))
    reader.poll()
    with ControlPublisher(control, KEY) as publisher:
        for run in trials.live:
            publisher.add(run)
        process.service, process.ledger, process.control = "shop", Ledger(), reader
        reader.start()
        try:
            yield trials
        finally:
            vars(process).clear()
            vars(process).update(before)


def try_false_marks(trials: Trials, count: int) -> dict[str, Counter[str]]:
    """Have false marks judged, as many of each kind; return the verdicts of each kind."""
    verdicts: dict[str, Counter[str]] = {kind: Counter() for kind in trials.kinds}
    names = list(trials.kinds)
    for number in range(count):
        if number % 50_000 == 0:  # fresh ones, so that what is replayed is not refused for its age
            assert trials.accept_genuine(1_000) == 1_000
        kind = names[number % len(names)]
        verdicts[kind][verdict(trials.kinds[kind]())] += 1
    return verdicts


def try_unmarked(trials: Trials, count: int) -> Counter[str]:
    """Have unmarked requests with random trace-ids judged, some with others' tracestate and baggage."""
    verdicts: Counter[str] = Counter()
    others = ({}, {"tracestate": "vendor=a;b"}, {"baggage": "user=7"})
    ids = trials.chance.getrandbits
    for number in range(count):
        sent = {"traceparent": f"00-{ids(128) or 1:032x}-00000000000000f7-01", **others[number % 3]}
        verdicts[verdict(sent)] += 1
    return verdicts
