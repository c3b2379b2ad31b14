"""The tally of an open transaction against a naive one that remembers every row with its savepoints."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from perflab.shadow.audit.pgoutput import fingerprint
from perflab.shadow.sql.claims import OPAQUE, Tally
from perflab.shadow.sql.statement import read_statement

WRITES = ["INSERT INTO a VALUES (1)", "UPDATE b SET x = 1", "DELETE FROM a"]
SAVEPOINTS = [f"{how} {name}" for how in ("SAVEPOINT", "ROLLBACK TO", "RELEASE") for name in "pq"]
STEPS = st.one_of(
    st.tuples(st.sampled_from(WRITES), st.integers(0, 3)),
    st.tuples(st.sampled_from(SAVEPOINTS), st.just(0)),
)


class NoSavepointError(Exception):
    """PostgreSQL would have refused the step: there is no such savepoint."""


def naive(steps: list[tuple[str, int]]) -> str:
    """Keep a list of rows and savepoints in order; roll back by cutting it off."""
    log: list[tuple[str, str, str]] = []
    for text, rows in steps:
        words = text.split()
        if words[0] == "SAVEPOINT":
            log.append(("savepoint", words[1], ""))
        elif words[0] in ("ROLLBACK", "RELEASE"):
            at = max((i for i, entry in enumerate(log) if entry[:2] == ("savepoint", words[-1])), default=-1)
            if at < 0:
                raise NoSavepointError
            if words[0] == "ROLLBACK":
                del log[at + 1 :]
            else:
                log[at:] = [entry for entry in log[at:] if entry[0] == "row"]
        else:
            table = words[1] if words[0] == "UPDATE" else words[2]
            log += [("row", table, words[0].lower())] * rows
    counts = Counter((table, operation) for kind, table, operation in log if kind == "row")
    return fingerprint([(table, operation, rows) for (table, operation), rows in counts.items()])


@given(st.lists(STEPS, max_size=14))
def test_savepoints_take_rows_back(steps: list[tuple[str, int]]) -> None:
    """Any sequence of writes and savepoints leaves what a list of all rows leaves."""
    # Given: only steps the server would accept
    accepted: list[tuple[str, int]] = []
    for step in steps:
        try:
            naive([*accepted, step])
        except NoSavepointError:
            continue
        accepted.append(step)
    # When
    tally = Tally()
    for text, rows in accepted:
        tally.note(read_statement(text), rows)
    # Then: the audit reads it as what the change stream shows
    told = tally.take()
    assert (fingerprint(json.loads(told)) if told else "[]") == naive(accepted)
    assert tally.take() == ""


def test_what_cannot_be_counted_is_opaque() -> None:
    """A count the driver does not know, and a statement that may do anything."""
    for text, rows in (("INSERT INTO a VALUES (1)", -1), ("CALL f()", -1)):
        tally = Tally()
        tally.note(read_statement(text), rows)
        assert tally.take() == OPAQUE


def test_a_savepoint_nobody_saw_leaves_the_count_unsure() -> None:
    """Rows may or may not have been taken back; of nothing nothing is."""
    tally = Tally()
    tally.take_back("behind our back")
    assert tally.take() == ""
    tally.note(read_statement("INSERT INTO a VALUES (1)"), 1)
    tally.take_back("behind our back")
    assert tally.take() == OPAQUE


def test_reads_and_rollbacks_leave_nothing() -> None:
    """Nothing to claim, nothing left for the next transaction."""
    tally = Tally()
    tally.note(read_statement("SELECT 1"), 1)
    tally.note(read_statement("UPDATE a SET x = 1"), 0)
    assert tally.take() == ""
    tally.note(read_statement("CALL f()"), -1)
    tally.drop()
    assert tally.take() == ""
