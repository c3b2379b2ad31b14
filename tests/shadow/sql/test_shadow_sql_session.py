"""Which side a connection belongs to, without any driver; the drivers' own tests use real servers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perflab.config import Secret, Store
from perflab.errors import ShadowError
from perflab.shadow import scope
from perflab.shadow.control import ControlPublisher, ControlReader, LiveRun
from perflab.shadow.ledger import LOST, Ledger
from perflab.shadow.mark import mint, new_tag
from perflab.shadow.sql import session
from perflab.shadow.sql.takeover import TAKEN_OVER
from perflab.shadow.stores import Place, Twin

KEY = b"a control key of the tests"
PRODUCTION = Place("10.0.0.5", 5432, "shop", "app")
SHADOW = Place("10.0.0.5", 5432, "shop_shadow", "shadow", "secret")


class Connection:
    """Any driver's."""


class Slotted:
    """A driver's that takes no attributes."""

    __slots__ = ("__weakref__",)


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> Twin:
    """One known store, in this process."""
    store = Store("orders", "postgresql", "postgresql://10.0.0.5/shop", Secret(env="X"))
    found = Twin(store, PRODUCTION, SHADOW)
    monkeypatch.setattr(session, "_twins", {"postgresql": (found,)})
    return found


@pytest.fixture
def shadow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[scope.Shadow]:
    """Mark a request of a live run; this process believes the list that names it."""
    tag = new_tag()
    with ControlPublisher(tmp_path / "control.json", KEY) as publisher:
        key = publisher.add(LiveRun(tag, "run", "run", int(time.time()) + 60))
        reader = ControlReader(str(tmp_path / "control.json"), KEY)
        reader.poll()
        monkeypatch.setattr(scope.process, "service", "cart", raising=False)
        monkeypatch.setattr(scope.process, "control", reader, raising=False)
        monkeypatch.setattr(scope.process, "ledger", Ledger(), raising=False)
        made = mint(key, secrets.randbits(64))
        yield scope.Shadow(tag, made.token, made.trace_id)


def test_a_known_database_has_a_twin(twin: Twin, shadow: scope.Shadow):
    """Its shadow is where marked work goes."""
    assert session.twin_for("postgresql", [PRODUCTION], shadow) is twin


@pytest.mark.parametrize("places", [[], [Place("10.0.0.9", 5432, "x")], [PRODUCTION, Place("b", 5432, "x")]])
def test_an_unknown_database_is_refused(twin: Twin, shadow: scope.Shadow, places: list[Place]):
    """One unknown place among several is enough."""
    with pytest.raises(ShadowError, match="not one of the target's stores"):
        session.twin_for("postgresql", places, shadow)


def test_a_denied_store_is_refused(monkeypatch: pytest.MonkeyPatch, shadow: scope.Shadow):
    """Mode = 'deny' says no to all marked work."""
    store = Store("orders", "postgresql", "postgresql://10.0.0.5/shop", Secret(env="X"), mode="deny")
    monkeypatch.setattr(session, "_twins", {"postgresql": (Twin(store, PRODUCTION, SHADOW),)})
    with pytest.raises(ShadowError, match="denied to shadow work"):
        session.twin_for("postgresql", [PRODUCTION], shadow)


def test_the_servers_word_confirms_a_shadow(twin: Twin, shadow: scope.Shadow):
    """Another database or another login than the shadow's is refused."""
    session.confirm(twin, SHADOW)
    for reached in (PRODUCTION, Place("10.0.0.5", 5432, "shop_shadow", "app")):
        with pytest.raises(ShadowError, match="what should be the shadow is"):
            session.confirm(twin, reached)


@pytest.mark.parametrize("make", [Connection, Slotted])
def test_connections_keep_their_sessions(twin: Twin, make: type):
    """On the connection where it has room, beside it where it has not."""
    connection = make()
    assert session.session_of(connection) is None
    session.keep_ordinary(connection, "postgresql", lambda: PRODUCTION)
    found = session.session_of(connection)
    assert found is not None
    assert (found.store, found.shadow, found.claims) == ("orders", False, True)


def test_a_connection_that_cannot_be_told_is_counted(twin: Twin, shadow: scope.Shadow):
    """Ordinary work keeps its connection."""
    session.keep_ordinary(Connection(), "postgresql", lambda: 1 // 0)
    assert scope.process.ledger.take()["stepped_aside"] == {"sql: a connection could not be told": 1}


def test_ordinary_work_takes_a_shadow_connection_over(twin: Twin, shadow: scope.Shadow):
    """Once, with what opens what its service had asked for; all who hold its session see production's."""
    connection, given = Connection(), []
    held = session.keep_shadow(connection, twin)
    held.instead = lambda: "production"

    def take_over(instead):
        given.append(instead())
        session.keep_ordinary(connection, "postgresql", lambda: PRODUCTION)
        return True

    for _ in range(2):
        session.admit(session.session_of(connection), "postgresql", lambda: 1 // 0, take_over)
    assert given == ["production"]
    assert session.session_of(connection) is held
    assert (held.shadow, held.store, held.database, held.claims, held.instead) == (
        False, "orders", "shop", True, None
    )  # fmt: skip
    report = scope.process.ledger.take()
    assert (report["stepped_aside"], report["refusals"]) == ({TAKEN_OVER: 1}, [])
    token = scope.enter(shadow)
    try:
        with pytest.raises(ShadowError, match="opened for production before"):
            session.admit(session.session_of(connection), "postgresql", lambda: None, take_over)
    finally:
        scope.leave(token)


@pytest.mark.parametrize("why", ["the driver", "the statement", "the object"])
def test_a_connection_that_may_not_be_taken_over_is_lost(why: str, twin: Twin, shadow: scope.Shadow):
    """The driver has no way, marked work left something in the session, or this object cannot."""
    connection = Connection()
    held = session.keep_shadow(connection, twin)
    held.instead = lambda: "production"
    if why == "the statement":
        assert session.to_send(held, "SET search_path = shop") == "SET search_path = shop"
    with pytest.raises(ConnectionError):
        session.admit(
            held,
            "postgresql",
            lambda: ConnectionError("lost"),
            None if why == "the driver" else lambda _: why != "the object",
        )
    assert [refusal["store"] for refusal in scope.process.ledger.take()["refusals"]] == [LOST]


def test_a_connection_taken_over_that_cannot_be_told_is_ordinary(twin: Twin, shadow: scope.Shadow):
    """It is of no store, and no shadow any more."""
    connection = Connection()
    held = session.keep_shadow(connection, twin)
    session.keep_ordinary(connection, "postgresql", lambda: 1 // 0)
    assert (held.shadow, held.store, session.session_of(connection)) == (False, "", held)


def test_only_marked_work_may_use_a_shadow_connection(twin: Twin, shadow: scope.Shadow):
    """Ordinary work that finds one has it closed; production is closed to marked work."""
    ours, theirs = Connection(), Connection()
    session.keep_shadow(ours, twin)
    session.keep_ordinary(theirs, "postgresql", lambda: PRODUCTION)
    lost = ConnectionError("lost")
    # ordinary work
    session.admit(session.session_of(theirs), "postgresql", lambda: lost)
    with pytest.raises(ConnectionError):
        session.admit(session.session_of(ours), "postgresql", lambda: lost)
    session.admit(session.session_of(ours), "postgresql", lambda: None)  # it was closed already
    # marked work
    token = scope.enter(shadow)
    try:
        session.admit(session.session_of(ours), "postgresql", lambda: lost)
        for connection in (theirs, Connection()):
            with pytest.raises(ShadowError, match="opened for production before"):
                session.admit(session.session_of(connection), "postgresql", lambda: lost)
    finally:
        scope.leave(token)
    assert scope.process.ledger.take()["sessions"] == [
        {"store": "orders", "user": "shadow", "database": "shop_shadow", "shadow": True, "marked_calls": 1}
    ]
