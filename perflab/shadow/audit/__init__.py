"""The proof of isolation: what production gained while a run went on, and who accounts for it.

A store is *proven* when all hold: the shadow login was refused by production each time it tried; all
marked work on it used that login, and there was some; canaries were sent, and none is in what production
gained; every change of production is accounted for by an agent's unmarked work, or by expiry; and nothing
of that was left unchecked. Else it is not proven, and ``reasons`` say why.

What counts as a *leak*: a canary in production, nothing else. A change nobody accounts for
(``unattributed``) may be a cron job, an engineer's psql, or a service without an agent: it forbids "proven",
is listed, and stops no run. Marked work on another login (``elsewhere``) may only have read: the same.

::

    with Audit(target.stores, run_id) as audit:
        audit.start()          # once every agent knows that the run is live, so that it files claims
        leaks = audit.poll()   # every half second or so, while the run goes on
        audit.end()            # the window ends here; the agents go on filing claims a little longer
        proof = audit.finish(claims, sessions, canaries_sent)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self

from perflab.config import Store
from perflab.units import NS_PER_MS, NS_PER_S

from .canary import LEAKS_KEPT, Leak
from .storeaudit import Counts, StoreAudit

__all__ = ["Audit", "Leak"]

_SLACK_NS = {
    "postgresql": 250 * NS_PER_MS,
    "mariadb": NS_PER_S + 250 * NS_PER_MS,
    "sqlite": 0,
    "redis": NS_PER_S,
}
_POLL_S = 0.3


class Audit:
    """Watches the production side of stores during one run.

    Parameters
    ----------
    stores : sequence of Store
        The target's stores; one without an ``audit`` login is never proven.
    run_id : str
        The run; its canaries begin with ``plc-<run_id>``.
    slack_ns : mapping of kind to int, optional
        By how much a change may lie outside its claim's interval (250 ms PostgreSQL, 1.25 s MariaDB, whose
        log tells whole seconds, 1 s Redis).
    """

    def __init__(
        self, stores: Sequence[Store], run_id: str, *, slack_ns: Mapping[str, int] | None = None
    ) -> None:
        slacks = {**_SLACK_NS, **(slack_ns or {})}
        self._audits = [StoreAudit(store, run_id, slacks[store.kind]) for store in stores]
        self._threads = ThreadPoolExecutor(max(len(stores), 1), "perflab-audit")
        self._reading: dict[StoreAudit, Future[None]] = {}
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Let the shadow logins knock, and open the change streams.

        What fails makes that store *not proven*, with the reason; it is never raised.
        """
        for audit in self._audits:
            audit.start()

    def poll(self) -> list[Leak]:
        """Read what production gained since the last call; bounded in time and count.

        The stores are read beside each other, so that one that answers slowly hides no leak in another; what
        is not read within 0.3 s goes on while the caller does, and is looked at by the next call.

        Returns
        -------
        list of Leak
            Those found since the last call.
        """
        for audit in self._audits:
            if audit not in self._reading and not self._closed:
                self._reading[audit] = self._threads.submit(audit.read)
        wait(self._reading.values(), timeout=_POLL_S)
        self._reading = {audit: work for audit, work in self._reading.items() if not work.done()}
        return [leak for audit in self._audits for leak in audit.watch.take()]

    def end(self) -> None:
        """End the window: what production does from here on needs no claim. Again does nothing."""
        self._await_reading()
        for audit in self._audits:
            audit.end()

    def finish(
        self,
        claims: Iterable[Mapping[str, Any]],
        sessions: Iterable[Mapping[str, Any]],
        canaries_sent: int | Mapping[str, int],
    ) -> dict[str, Any]:
        """Read to the end and say what is proven.

        Parameters
        ----------
        claims : iterable of mapping
            Writes of unmarked work: ``store``, ``fingerprint``, ``begin_ns``, ``end_ns``; all up to
            a moment after `end`.
        sessions : iterable of mapping
            Logins of marked work: ``store``, ``user``, ``database``, ``shadow``, ``marked_calls``.
        canaries_sent : int or mapping of store name to int
            Requests that carried a canary.

        Returns
        -------
        dict
            The content of ``isolation.json``: ``stores``, ``seen`` and ``proven`` (numbers of stores),
            ``leaks``. In a store's ``changes``, ``seen`` = ``attributed`` + ``opaque`` + ``expired`` +
            ``unattributed``, in transactions (PostgreSQL, MariaDB), commands (Redis) or, where only
            counters were left, rows; ``attributed`` have a claim of what was changed, ``opaque`` of the
            time alone. ``marked_sessions`` count store
            accesses. ``limits`` say what the method cannot see; they do not forbid "proven".
        """
        self.end()
        of_store: dict[str, list[dict[str, Any]]] = {}
        for claim in claims:
            of_store.setdefault(str(claim.get("store")), []).append(dict(claim))
        marked = [dict(session) for session in sessions if int(session.get("marked_calls", 0)) > 0]
        rows = []
        for audit in self._audits:
            name = audit.store.name
            sent = canaries_sent if isinstance(canaries_sent, int) else int(canaries_sent.get(name, 0))
            mine = [session for session in marked if session.get("store") == name]
            rows.append(audit.finish(of_store.get(name, []), mine, sent))
        known = {audit.store.name for audit in self._audits}
        strange = sorted({str(session.get("store")) for session in marked} - known)
        for name in strange:
            calls = sum(int(session["marked_calls"]) for session in marked if session.get("store") == name)
            rows.append(_unknown_store(name, calls))
        leaks = sorted(
            (leak for audit in self._audits for leak in audit.watch.leaks), key=lambda leak: leak.time_ns
        )
        return {
            "stores": rows,
            "seen": len(rows),
            "proven": sum(row["proven"] for row in rows),
            "leaks": [leak.as_row() for leak in leaks[:LEAKS_KEPT]],
        }

    def close(self) -> None:
        """Drop slots and publications and end all connections; again does nothing."""
        self._await_reading()
        self._closed = True
        self._threads.shutdown()
        for audit in self._audits:
            audit.close()

    def _await_reading(self) -> None:
        """Wait for readings that are under way: every one is bounded by a statement timeout."""
        wait(self._reading.values())
        self._reading = {}


def _unknown_store(name: str, calls: int) -> dict[str, Any]:
    """Write the row of a store that marked work met and the configuration does not know."""
    return {
        "name": name,
        "kind": "unknown",
        "proven": False,
        "login_refused": {"tried": 0, "refused": 0, "how": ""},
        "marked_sessions": {"on_shadow": 0, "elsewhere": calls},
        "canaries": {"sent": 0, "hits": 0},
        "changes": Counts().as_row(),
        "shadow_changes": 0,
        "not_checked": ["everything: marked work met this store, and perflab.toml does not describe it"],
        "reasons": [],
        "limits": [],
    }
