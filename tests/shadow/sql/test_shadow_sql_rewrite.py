"""Statements of shadow work in modes ``schema`` and ``table``: what is sent instead, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perflab.errors import ShadowError
from perflab.shadow import scope
from perflab.shadow.ledger import Ledger
from perflab.shadow.sql.rewrite import rewrite, rewritten
from perflab.shadow.sql.rewrite_lexer import Unproven
from perflab.shadow.sql.rewrite_room import Room
from perflab.shadow.sql.session import Session, to_send

ROOMS = {
    "s": Room("postgresql", "schema", "shadow", "shop"),
    "t": Room("postgresql", "table", "p_", "shop"),
    "m": Room("mariadb", "table", "p_", "shop"),
}


def told() -> Iterator[tuple[str, str, str, str]]:
    """Read rewritten.txt: the room, the statement, how it ends, and with what."""
    lines = (Path(__file__).parent / "rewritten.txt").read_text().splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line[0] in ROOMS:
            ends = after[:1] in ("=", "!")
            yield line[0], line[2:], after[0] if ends else "=", after[2:] if ends else line[2:]


@pytest.mark.parametrize(("room", "text", "how", "what"), list(told()))
def test_every_kind_of_statement_has_its_answer(room: str, text: str, how: str, what: str) -> None:
    """Rewritten to the letter, or refused with its reason."""
    if how == "=":
        assert rewrite(text, ROOMS[room]) == what
    else:
        with pytest.raises(Unproven) as why:
            rewrite(text, ROOMS[room])
        assert what in str(why.value)


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Give this process what hooks need to refuse."""
    made = Ledger()
    monkeypatch.setattr(scope.process, "service", "cart", raising=False)
    monkeypatch.setattr(scope.process, "ledger", made, raising=False)
    return made


def test_what_is_not_proven_is_refused_and_counted(ledger: Ledger) -> None:
    """In mode schema; in mode database the login keeps apart, and the text stays as it is."""
    # Given
    apart = Session("orders", True, "app", "shop", mode="schema", within="shadow")
    # Then
    assert to_send(apart, "SELECT id FROM item") == 'SELECT id FROM "shadow".item'
    for _ in range(2):  # the second time from memory
        with pytest.raises(
            ShadowError, match=r"cannot be proven .* do_anything may do anything.*: SELECT do"
        ):
            rewritten(apart, "SELECT do_anything()")
    assert to_send(Session("orders", True, "app", "shop"), "SELECT do_anything()") == "SELECT do_anything()"
    assert [refusal["store"] for refusal in ledger.take()["refusals"]] == ["orders", "orders"]


def test_without_a_place_for_shadow_tables_nothing_passes(ledger: Ledger) -> None:
    """A session that does not know it refuses even a constant."""
    with pytest.raises(ShadowError, match="not known"):
        rewritten(Session("orders", True, "app", "shop", mode="table"), "SELECT 1")


def test_deep_and_long_statements_have_an_answer(ledger: Ledger) -> None:
    """One nested too deeply is refused, a long one is read."""
    apart = Session("orders", True, "app", "shop", mode="schema", within="shadow")
    with pytest.raises(ShadowError, match="cannot be proven"):
        rewritten(apart, f"SELECT {'(' * 5000}1{')' * 5000}")
    many = ", ".join("(%s)" for _ in range(5000))
    assert rewritten(apart, f"INSERT INTO item VALUES {many}") == f'INSERT INTO "shadow".item VALUES {many}'


def test_the_parser_is_only_imported_where_it_is_used() -> None:
    """Who has a shadow database does not pay for it."""
    code = (
        "import sys, perflab.shadow.sql.session, perflab.shadow.sql.rewrite; print('sqlglot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
