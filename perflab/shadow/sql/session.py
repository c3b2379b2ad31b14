"""Which side a database connection belongs to, and whether the running code may use it.

A connection belongs to one side for life. Marked work that connects to a known production database is
connected to its shadow, with the shadow's own login, instead (`twin_for`, `confirm`); to any other it is
refused. Before a connection sends anything the driver's hook asks `admit`: marked work on a production
connection is refused, and ordinary work that finds a shadow connection takes it over, so that it is
production's from then on, or, where that would not be the same, has it closed, as if it was lost.

Every driver's hook stands on this file; nothing here knows a driver.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

from opentelemetry.trace import INVALID_SPAN, Span, SpanKind

from perflab.config import Store
from perflab.shadow import handoff, scope
from perflab.shadow.scope import process
from perflab.shadow.sql.claims import Tally
from perflab.shadow.sql.takeover import give_over, leaves_state
from perflab.shadow.stores import Place, Twin, find, read_twins

KINDS = ("postgresql", "mariadb", "sqlite")
_twins: dict[str, tuple[Twin, ...]] = {}
_sessions: weakref.WeakKeyDictionary[Any, Session] = weakref.WeakKeyDictionary()


@dataclass(slots=True)
class Session:
    """What is known of one connection.

    Parameters
    ----------
    store : str
        The store it is a side of, ``""`` when it is of none.
    shadow : bool
        Whether marked work opened it and the server confirmed that it is the shadow.
    user, database : str
        Who is logged in, and where.
    kind : str
        ``postgresql``, ``mariadb`` or ``sqlite``: OpenTelemetry's ``db.system.name``.
    mode : str
        How the store isolates: ``database``, ``schema`` or ``table``.
    tally : Tally
        What the open transaction of ordinary work has written.
    unsettled : list of int
        When the commits began whose answers are not in yet (pipelines), Unix ns.
    passed : bool
        Whether something was done on it that nobody had to note (`scope.unwatched`).
    within : str
        In modes ``schema`` and ``table``: the schema, or what the names of shadow tables begin with.
    trace_id : int
        Of the marked work that opened it; 0 for upkeep, and for ordinary work.
    instead : callable or None
        Of a shadow: opens the connection its service had asked for, for ordinary work that finds this one.
        None where that may not be done: it is a pool's, or its session is not as it was when it was opened.
    lock : RLock
        Held while ordinary work takes it over, and by marked work that sends where the object stays.
    """

    store: str
    shadow: bool
    user: str
    database: str
    kind: str = "postgresql"
    mode: str = "database"
    tally: Tally = field(default_factory=Tally)
    unsettled: list[int] = field(default_factory=list)
    passed: bool = False
    within: str = ""
    trace_id: int = 0
    instead: Callable[..., Any] | None = None
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)

    def become(self, other: Session | None) -> None:
        """Be what is known of another connection from now on, for all who hold this one."""
        other = other or Session("", False, self.user, self.database, self.kind)
        for kept in fields(self):
            if kept.name != "lock":
                setattr(self, kept.name, getattr(other, kept.name))

    @property
    def claims(self) -> bool:
        """Whether what is written on it is to be claimed: ordinary work on a store's production side."""
        return bool(self.store) and not self.shadow


def read_stores(stores: Sequence[Store]) -> None:
    """Learn the target's databases; called before a driver is hooked, again does nothing.

    Raises
    ------
    ConfigError
        If a shadow's secret or a URL cannot be read.
    """
    if not _twins:
        _twins.update({kind: read_twins(stores, kind) for kind in KINDS})


def twins(kind: str) -> tuple[Twin, ...]:
    """Return the known databases of one kind."""
    return _twins.get(kind, ())


def keep(connection: Any, session: Session) -> None:
    """Remember what is known of a connection, on it where it has room."""
    try:
        connection._perflab = session
    except AttributeError:
        _sessions[connection] = session


def session_of(connection: Any) -> Session | None:
    """Return what is known of a connection; None for one that was opened behind our back."""
    found = getattr(connection, "_perflab", None)
    if found is None and _sessions:
        try:
            found = _sessions.get(connection)
        except TypeError:  # it cannot be remembered this way, so it was not
            return None
    return found if isinstance(found, Session) else None


def twin_for(kind: str, places: Sequence[Place], shadow: scope.Shadow) -> Twin:
    """Return the store marked work gets the shadow of, instead of connecting to these places.

    Parameters
    ----------
    kind : str
        Of the store.
    places : sequence of Place
        Every place the connection may lead to.
    shadow : Shadow
        The mark of the work.

    Raises
    ------
    ShadowError
        If they are not one known database, the store denies shadow work, or the run is over.
    """
    name = " or ".join(_named(kind, place) for place in places) or kind
    scope.require_live(shadow, name)
    known = twins(kind)
    found = [find(known, place) for place in places]
    sides = {side.twin.store.name: side.twin for side in found if side is not None}
    if None in found or len(sides) != 1:
        listed = ", ".join(twin.store.production for twin in known) or "none"
        scope.refuse(
            name, f"this database is not one of the target's stores ({listed}); nothing was connected", shadow
        )
    twin = next(iter(sides.values()))
    if twin.store.mode == "deny":
        scope.refuse(twin.store.name, "this store is denied to shadow work (mode = 'deny')", shadow)
    return twin


def keep_shadow(connection: Any, twin: Twin) -> Session:
    """Remember that marked work opened a connection to a shadow; `confirm` it before it is handed out."""
    there, store, shadow = twin.shadow, twin.store, scope.current() or scope.IDLE
    session = Session(
        store.name, True, there.user, there.database, store.kind, store.mode, within=store.within,
        trace_id=shadow.trace_id,
    )  # fmt: skip
    keep(connection, session)
    return session


def confirm(twin: Twin, reached: Place) -> None:
    """Refuse a connection whose server says that it is not the shadow: a pooler may lead anywhere.

    Parameters
    ----------
    twin : Twin
        The store whose shadow it should be.
    reached : Place
        Where it is, with the database and the user *as the server says*.

    Raises
    ------
    ShadowError
        If it is another place, or another login.
    """
    there = twin.shadow
    if not reached.same_store(there) or (there.user and reached.user != there.user):
        scope.refuse(
            twin.store.name,
            f"what should be the shadow is {reached.host}:{reached.port}, database {reached.database!r} for"
            f" user {reached.user!r}, not {there.host}:{there.port}, {there.database!r} for {there.user!r}",
        )


def keep_ordinary(connection: Any, kind: str, where: Callable[[], Place]) -> None:
    """Remember which store the writes of a new connection of ordinary work are claimed for; never raises.

    Parameters
    ----------
    connection
        A driver's connection.
    kind : str
        Of the store.
    where : callable
        Returns the place it leads to; what it raises is counted, and the connection is of no store.
    """
    before, made = session_of(connection), None
    try:
        place = where()
        found = find(twins(kind), place)
        store = found.twin.store.name if found is not None and found.side == "production" else ""
        made = Session(store, False, place.user, place.database, kind)
        if before is None or not before.shadow:
            keep(connection, made)
    except Exception:  # whatever it is, ordinary work must get its connection
        process.ledger.step_aside("sql: a connection could not be told")
    if before is not None and before.shadow:
        before.become(made)  # it was taken over


def admit(
    session: Session | None,
    kind: str,
    close: Callable[[], BaseException | None],
    take_over: Callable[[Callable[..., Any]], bool] | None = None,
) -> None:
    """Check, before a connection sends anything, that the running code may use it.

    Parameters
    ----------
    session : Session or None
        What is known of the connection.
    kind : str
        For people, where nothing is known of it.
    close : callable
        Closes the connection at once, without a word to the server where possible, and returns the driver's
        error of a lost connection; None if it was closed already.
    take_over : callable, optional
        Makes the connection production's, opened by what it is given (`Session.instead`); tells whether it
        could be done.

    Raises
    ------
    ShadowError
        If marked work would use a production connection, or its run is over.
    BaseException
        What ``close`` returned: ordinary work had found a shadow connection. What the driver raised: there
        was no connecting to production.
    """
    shadow = scope.current()
    if shadow is None:
        if session is not None and session.shadow:
            give_over(session, close, take_over)
    elif session is None or not session.shadow:
        scope.refuse(
            f"{kind} {session.database if session else ''}".strip(),
            "this connection was opened for production before the marked request (kept outside a known pool)",
            shadow,
        )
    elif shadow.tag:
        scope.require_live(shadow, session.store or session.kind)
        if session.store:  # a database in memory is no store
            process.ledger.session(session.store, session.user, session.database, shadow=True)


def to_send(session: Session | None, text: str) -> str:
    """Return the statement a driver sends instead of ``text``: another one in modes ``schema`` and ``table``.

    What it leaves in a shadow's session is remembered: ordinary work cannot take that over.

    Raises
    ------
    ShadowError
        If in those modes it cannot be proven to reach shadow tables only.
    """
    if session is None or not session.shadow:
        return text
    if session.instead is not None and leaves_state(session.kind, text):
        session.instead = None
    if session.mode == "database":
        return text
    from perflab.shadow.sql.rewrite import rewritten  # who has a shadow database does not pay for it

    return rewritten(session, text)


NOT_KEPT = INVALID_SPAN  # of what is done below a span that sampling left out
LOST = "perflab: this connection belonged to a load test; it was closed"
"""What ordinary work is told that found a shadow connection."""


def begin_span(name: str, session: Session | None, text: str = "") -> Span:
    """Start the span of a statement or of a transaction's end.

    Parameters
    ----------
    name : str
        Operation and table, or the ending.
    session : Session or None
        Of the connection.
    text : str
        The statement; its head is kept.
    """
    if scope.left_out():
        return NOT_KEPT
    attributes = {
        "db.system.name": session.kind if session else "other_sql",
        "db.query.summary": name,
        "db.namespace": session.database if session else "",
    }
    if text:
        attributes["db.query.text"] = text[:2000]
    return scope.begin(name, SpanKind.CLIENT, attributes)


def pass_by(connection: Any) -> bool:
    """Tell whether a call on a connection may go on without being noted, and remember that one did."""
    if not scope.in_no_trace() or scope.current() is not None or not process.control.quiet:  # unwatched()
        return False
    try:
        connection._perflab.passed = True
    except AttributeError:  # it is kept elsewhere, or nothing is known of it
        session = session_of(connection)
        if session is not None:
            session.passed = True
    return True


def catch_up(session: Session | None, *, alone: bool) -> None:
    """Note that a transaction may have written what nobody noted: it began before anybody had to.

    Parameters
    ----------
    session : Session or None
        Of the connection.
    alone : bool
        Whether no transaction is open: then whatever was passed by is settled.
    """
    if session is not None and session.passed:
        session.passed = False
        session.tally.opaque = session.tally.opaque or not alone


def settle(session: Session, began_ns: int, *, kept: bool) -> None:
    """Claim what an ordinary transaction wrote, now that it ended.

    Parameters
    ----------
    session : Session
        Of the connection.
    began_ns : int
        When its end began, Unix ns.
    kept : bool
        Whether it was, or may have been, committed.
    """
    fingerprint = session.tally.take()
    if kept and fingerprint:
        claim(session, fingerprint, began_ns)


def claim(session: Session, fingerprint: str, began_ns: int) -> None:
    """File a claim, if any run is live to need it.

    Parameters
    ----------
    session : Session
        Of the connection.
    fingerprint : str
        What was written (`perflab.shadow.sql.claims`).
    began_ns : int
        When the commit began, Unix ns.
    """
    if process.control.live:
        process.ledger.claim(
            session.store, fingerprint, began_ns, time.time_ns(), background=not handoff.in_request()
        )


@contextmanager
def upkeep(session: Session | None) -> Iterator[None]:
    """Do what must be possible on a shadow connection even when the run is over: roll it back, close it."""
    if session is None or not session.shadow:
        yield
        return
    token = scope.enter(scope.IDLE)
    try:
        yield
    finally:
        scope.leave(token)


def _named(kind: str, place: Place) -> str:
    if kind == "sqlite":
        return f"sqlite:///{place.database}"
    return f"{kind}://{place.host}:{place.port}/{place.database}"
