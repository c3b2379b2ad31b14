"""Gates: read, refused where they are none, and failing only when that is certain."""

from __future__ import annotations

import pytest
from made_shop import shop

from perflab.analysis.compare import Comparison, compare
from perflab.analysis.gate import Gate, judge_gate, parse_gate
from perflab.errors import AnalysisError, ConfigError


@pytest.fixture(scope="module")
def slowed() -> Comparison:
    """Return a comparison with 4 ms added to a call of 1.6 ms on one of three operations."""
    return compare(shop(1, 500), shop(2, 500, slow={"order -> stock": 4}))


@pytest.mark.parametrize(
    ("text", "metric", "target", "or_equal", "limit", "kind"),
    [
        ("p99 > 5%", "p99", "", False, 0.05, "relative"),
        ("p999>=-2.5 %", "p999", "", True, -0.025, "relative"),
        ("mean@perflab: order > 20ms", "mean", "perflab: order", False, 20, "level"),
        ("p50 @ a@b > +1.5s", "p50", "a@b", False, 1500, "change"),
        ("errors > 0.01", "errors", "", False, 0.01, "level"),
        ("errors >= +.01", "errors", "", True, 0.01, "change"),
        ("share:order -> stock > 0.3", "share", "order -> stock", False, 0.3, "level"),
        ("exclusive: a: b @ c > -3ms", "exclusive", "a: b @ c", False, -3, "change"),
    ],
)
def test_gates_are_read(text: str, metric: str, target: str, or_equal: bool, limit: float, kind: str):
    """Metric, entity and entry, operator, value; with or without room between them."""
    gate = parse_gate(text)
    assert gate.limit == pytest.approx(limit)
    assert (gate.metric, gate.target, gate.or_equal, gate.kind) == (metric, target, or_equal, kind)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a gate; write METRIC"),
        ("p99", "is not a gate"),
        ("p99 < 5%", "is not a gate"),
        ("p99 >", "is not a gate"),
        ("p98 > 5%", "there is no metric 'p98'; there are p50, p90, p95, p99, p999, mean, errors"),
        ("p99 > 5", "'5' is no value for p99; write '5%' for a change relative to before, '+20ms'"),
        ("p99 > 5 bananas", "'5 bananas' is no value"),
        ("p99 > %", "'%' is no value"),
        ("errors > 1ms", "'1ms' is no value for errors; write '5%' for a change relative to before, '+0.01'"),
        ("share > 5%", "lacks an entity"),
        ("p99@ > 5%", "lacks an entry operation"),
    ],
)  # fmt: skip
def test_what_is_no_gate_is_told(text: str, said: str):
    """With what would be one."""
    with pytest.raises(ConfigError) as caught:
        parse_gate(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "outcome", "strict_outcome"),
    [
        ("exclusive:order -> stock > 100%", "failed", "failed"),
        ("exclusive:order -> stock @ perflab: order > +3ms", "failed", "failed"),
        ("exclusive:order -> stock @ perflab: order > +4ms", "not certain", None),
        ("exclusive:order -> stock @ perflab: order > 5s", "passed", "passed"),
        ("share:order -> stock @ perflab: order > 0.15", "failed", "failed"),
        ("p50 @ perflab: order > 5%", "failed", "failed"),
        ("p50 @ perflab: browse >= 20%", "passed", "passed"),
        ("p50 > 1ms", "failed", "failed"),
        ("p999 > 5%", "cannot say", None),
        ("errors > 0", "not certain", "passed"),
        ("errors >= 0", "failed", "failed"),
        ("errors > 0.5", "passed", "passed"),
        ("errors > 5%", "not certain", "passed"),
    ],
)
def test_gates_fail_when_it_is_certain(
    slowed: Comparison, text: str, outcome: str, strict_outcome: str | None
):
    """By the whole interval; strictly, by the estimate."""
    ruling = judge_gate(parse_gate(text), slowed)
    assert (ruling.gate, ruling.outcome) == (text, outcome), ruling.sentence
    if strict_outcome:
        assert judge_gate(parse_gate(text), slowed, strict=True).outcome == strict_outcome


def test_why_is_said(slowed: Comparison):
    """The sentence has both values, the change with its interval, and the reason."""
    told = judge_gate(parse_gate("exclusive:order -> stock @ perflab: order > 5%"), slowed).sentence
    assert told.startswith("exclusive +")
    assert "of perflab: order; the whole interval is above +5 %" in told
    told = judge_gate(parse_gate("p999 > 5%"), slowed).sentence
    assert "too few requests: 500 before and 500 after, p999 needs 3,688 of each" in told
    told = judge_gate(parse_gate("p50 > 5ms"), slowed, strict=True).sentence
    assert "after of all requests; the estimate is above 5 ms (strict)" in told


def test_a_new_entity_is_infinitely_slower():
    """What took no time before fails any relative gate."""
    renamed = shop(2, 200)
    renamed["name"] = renamed["name"].cat.rename_categories({"SELECT stock": "SELECT goods"})
    found = compare(shop(1, 200), renamed)
    assert judge_gate(parse_gate("exclusive:stock: SELECT goods > 900%"), found).outcome == "failed"
    assert judge_gate(parse_gate("exclusive:stock: SELECT stock > 0%"), found).outcome == "passed"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exclusive:nowhere > 5%", "'nowhere' is on no critical path; there are "),
        (
            "share:order -> stock @ nowhere > 5%",
            "no requests of 'nowhere'; there are 'all', 'perflab: browse'",
        ),
        ("p99@nowhere > 5%", "no requests of 'nowhere'"),
    ],
)
def test_what_is_not_there_is_told(slowed: Comparison, text: str, said: str):
    """With what is there."""
    gate = parse_gate(text)
    assert isinstance(gate, Gate)
    with pytest.raises(AnalysisError) as caught:
        judge_gate(gate, slowed)
    assert said in str(caught.value)
