"""perflab demo: what it refuses before anything is started. The whole way is held by tests/acceptance."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--for", "1s"), "the load lasts from 2s to 10min"),
        (("--for", "soon"), "'soon' is not a duration"),
        (("--rate", "0"), "between 1 and 500"),
        (("--slow", "stock"), "is not ENTITY=MS"),
        (("--slow", "stock: SELECT stock=-1"), "is not ENTITY=MS"),
        (("--slow", "=5"), "is not ENTITY=MS"),
        (("--service", "stock"), "NAME=COMMAND"),
        (("--disable", "stock"), "SERVICE:HOOK"),
        (("--setting", "SHOP_X"), "NAME=VALUE"),
        (("--service", "nobody=true"), "there are: bank, catalogue"),
    ],
)
def test_wrong_words_are_refused_at_once(perflab, tmp_path, words, said):
    """Wrong input exits with 2, says what is right, and starts nothing."""
    # WHEN the demo is asked for nonsense
    done = perflab("demo", *words)
    # THEN it says what is wrong, without a traceback
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_place_it_cannot_write_to_is_said(perflab, tmp_path):
    """An output that cannot be made exits with 3 and names it."""
    # GIVEN a file where the directory should be
    (tmp_path / "out").write_text("a file")
    # WHEN the demo is to write there
    done = perflab("demo", "--out", "out")
    # THEN it could not do it
    assert done.returncode == 3
    assert "cannot write to out" in done.stderr
