"""What the cells of a template say with."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from perflab.report import cards
from perflab.run import Run

HOSTILE = "<script>alert('x')</script>"


def run_with(tmp_path, info=None, isolation=None):
    """Write a run directory that holds only this."""
    folder = tmp_path / "20260101T000000-test-0000"
    (folder / "spans").mkdir(parents=True)
    run = Run(folder)
    run.write_info(info or {})
    if isolation is not None:
        run.write_isolation(isolation)
    return run


def words(html):
    """Return the text of a piece, whitespace folded."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html._repr_html_())).strip()


@pytest.mark.parametrize(
    ("verdict", "word"),
    [
        ("passed", "Passed"),
        ("failed", "Failed"),
        ("stopped", "Stopped"),
        ("refused", "Refused"),
        ("leaked", "Leaked"),
    ],
)
def test_the_banner_says_the_verdict_in_a_word_and_a_class(tmp_path, verdict, word):
    """Colour comes from the class, the word says the same."""
    # When
    shown = cards.banner(run_with(tmp_path, {"verdict": verdict, "reason": "because of this"}))
    # Then
    assert f"is-{verdict}" in shown._repr_html_()
    assert word in words(shown)
    assert "because of this" in words(shown)


def test_a_run_without_a_verdict_is_unfinished(tmp_path):
    """A run.json with nothing in it still makes a banner."""
    assert "Unfinished" in words(cards.banner(run_with(tmp_path)))


def test_an_unknown_verdict_is_shown_but_gets_no_class_of_its_own(tmp_path):
    """A verdict is text of a file: it cannot choose its class."""
    # When
    html = cards.banner(run_with(tmp_path, {"verdict": '"><script>'}))._repr_html_()
    # Then
    assert "is-unfinished" in html
    assert "<script>" not in html


@pytest.mark.parametrize(
    ("isolation", "said"),
    [
        ({"stores": [{}, {}], "seen": 2, "proven": 2}, "Isolation is proven for all 2 stores."),
        ({"stores": [{}], "seen": 1, "proven": 1}, "Isolation is proven for its one store."),
        ({"stores": [{}, {}], "seen": 2, "proven": 1}, "Isolation is proven for only 1 of 2 stores."),
        ({"stores": [{}], "seen": 1, "proven": 1, "leaks": [{}, {}]}, "2 leaks into production were found."),
        (None, "Isolation is not proven."),
    ],
)
def test_the_banner_never_claims_more_isolation_than_is_proven(tmp_path, isolation, said):
    """Whatever the verdict, the first screen says for how many stores isolation is proven."""
    assert said in words(cards.banner(run_with(tmp_path, {"verdict": "passed"}, isolation)))


def test_a_named_bottleneck_comes_with_share_gain_interval_evidence_and_advice():
    """All five, in words and numbers."""
    # Given
    first = {
        "entity": "stock: SELECT stock",
        "share_ratio": 0.47,
        "gain_ms": 31.2,
        "low_ms": 28.0,
        "high_ms": 34.9,
    }
    found = SimpleNamespace(
        first={**first, "evidence": "It is slow.", "advice": "Mend it."}, answer="named", sentence=""
    )
    # When
    said = words(cards.finding(found))
    # Then
    for part in ("stock: SELECT stock", "47 %", "31.2 ms", "28 ms to 34.9 ms", "It is slow.", "Mend it."):
        assert part in said


@pytest.mark.parametrize("answer", ["nothing stands out", "not enough traces"])
def test_no_bottleneck_is_an_answer(answer):
    """Nothing is named then, and why is said."""
    # When
    said = words(cards.finding(SimpleNamespace(first=None, answer=answer, sentence="So it is.")))
    # Then
    assert said == f"Bottleneck {answer.capitalize()} So it is."


def test_what_an_experiment_found_is_told():
    """With the entity, the verdict, and that delays are in the run's times."""
    found = SimpleNamespace(verdict="confirmed", sentence="It was so.", counts={"undelayed": 3})
    said = words(cards.tried(found))
    assert said.startswith("By experiment Confirmed It was so. Its marked calls were delayed")
    assert said.endswith("the ranking is of requests without.")
    # and where there are no others, the ranking is of delayed ones, too
    found.counts["undelayed"] = 0
    assert words(cards.tried(found)).endswith("the times of this run hold these delays.")


def test_an_empty_run_says_of_each_card_that_nothing_is_known(tmp_path):
    """No request, no latency, no proof, no real users: four cards that say so, none green."""
    # When
    shown = cards.summary(run_with(tmp_path))
    # Then
    for part in (
        "no request was recorded",
        "no latency was measured",
        "no proof was made",
        "were not measured",
    ):
        assert part in words(shown)
    assert "is-good" not in shown._repr_html_()


def test_what_is_not_proven_is_never_green(tmp_path):
    """One of two stores: watch. A leak: bad, though all stores count as proven."""
    # Given
    half = run_with(tmp_path / "a", {}, {"stores": [{"proven": True}, {"proven": False}]})
    leaking = run_with(tmp_path / "b", {}, {"stores": [{"proven": True}], "leaks": [{}]})
    whole = run_with(tmp_path / "c", {}, {"stores": [{"proven": True}], "seen": 1, "proven": 1})
    # When / Then
    assert "card is-watch" in cards.summary(half)._repr_html_()
    assert "card is-bad" in cards.summary(leaking)._repr_html_()
    assert "card is-good" in cards.summary(whole)._repr_html_()


def test_a_latency_among_unanswered_requests_is_a_bound(tmp_path):
    """p99 is censored, the median is not."""
    # Given
    overall = pd.DataFrame([{"p50_ms": 12.0, "p99_ms": 1000.0, "p50_censored": False, "p99_censored": True}])
    # When
    said = words(cards.summary(run_with(tmp_path), SimpleNamespace(overall=overall)))
    # Then
    assert "≥ 1,000 ms" in said
    assert "median 12 ms" in said


def test_a_table_writes_numbers_by_their_unit_and_bounds_as_bounds():
    """Ratios as percent, counts grouped, missing as a dash, censored with a sign."""
    # Given
    frame = pd.DataFrame(
        {
            "endpoint": ["pay", "see"],
            "n": [12345, 6],
            "p99_ms": [12.3456, np.nan],
            "p99_censored": [True, False],
            "error_ratio": [0.0123, 0.0],
        }
    )
    # When
    said = words(cards.table(frame, ["endpoint", "n", "p99_ms", "error_ratio", "not there"]))
    # Then
    assert said == "endpoint n p99, ms error share pay 12,345 ≥ 12.3 1.2 % see 6 — 0 %"


def test_rows_beyond_the_limit_are_counted():
    """Of 30 rows 20 are shown."""
    # When
    said = words(cards.table([{"x": f"row {number}"} for number in range(30)]))
    # Then
    assert "row 19" in said
    assert "row 20" not in said
    assert "10 more rows are not shown." in said


def test_an_empty_table_says_what_it_was_told_to_say():
    """Never a table without rows."""
    assert words(cards.table([], empty="No store was seen.")) == "No store was seen."


@pytest.mark.parametrize(
    "make",
    [
        lambda text: cards.note(text),
        lambda text: cards.table([{text: text}]),
        lambda text: cards.counts({text: text}, text),
        lambda text: cards.finding(SimpleNamespace(first=None, answer=text, sentence=text)),
        lambda text: cards.tried(SimpleNamespace(verdict=text, sentence=text, counts={})),
        lambda text: cards.finding(
            SimpleNamespace(
                first={"entity": text, "evidence": text, "advice": text}, answer="named", sentence=text
            )
        ),
    ],
)
def test_text_from_anywhere_is_escaped(make):
    """No piece lets markup through, wherever the text comes from."""
    # When
    html = make(HOSTILE)._repr_html_()
    # Then
    assert "<script" not in html.lower()
    assert "&lt;" in html
