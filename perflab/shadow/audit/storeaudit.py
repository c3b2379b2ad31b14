"""The audit of one store: its change stream, its login's attempts, its accounts, its verdict.

Nothing that goes wrong here is raised; it becomes a sentence under ``not_checked``, and the store is not
proven. See `perflab.shadow.audit`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from perflab.config import Store
from perflab.errors import PerflabError
from perflab.shadow.refusal import Refusal, try_mariadb, try_postgresql, try_redis, with_login

from .attribution import Change, Claim, attribute
from .canary import CanaryWatch
from .captures import Capture, open_capture, shadow_login
from .shadowrows import count_shadow_rows
from .walcapture import WalCapture

_DRAIN_S = 20.0
_EXAMPLES = 10
_NO_SQLITE = (
    "anything: SQLite has no logins that production could refuse and no log of changes; counted were only the"
    " accesses of marked work"
)
_ALWAYS = (
    "a canary is found where a payload is stored as text; one that a service stores encrypted,"
    " compressed or encoded is"
    " not"
)
_LIKENESS = {
    "sql": "changes are compared by table (without its schema), kind and number of rows, not by values:"
    " one that equals a"
    " claim of the same"
    " moment is taken for it",
    "redis": "changes are compared by key, not by values: one of the same key and moment as a claim is"
    " taken for it",
}
_ELSEWHERE = (
    "production's changes at all: services wrote to this store while it was watched, and its change"
    " stream shows"
    " nothing; does 'audit' in perflab.toml lead to another server or database?"
)
_WEAKER = {
    "schema": "the shadow is another schema of production's database: its login can enter production",
    "table": "the shadow's tables lie beside production's: its login can enter production",
    "deny": "marked work is denied at this store, so nothing of it was tested here",
}


@dataclass(slots=True)
class Counts:
    """What became of production's changes; ``seen`` is the sum of the four that follow.

    ``background`` are those among them that services say they wrote outside of every request. ``unit`` is
    what was counted, ``examples`` describe the first unattributed ones without their values,
    which are real users' data.
    """

    unit: str = ""
    seen: int = 0
    attributed: int = 0
    opaque: int = 0
    expired: int = 0
    unattributed: int = 0
    background: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)

    def as_row(self) -> dict[str, Any]:
        """Return it as ``isolation.json`` has it."""
        return asdict(self)


class StoreAudit:
    """Watches one store's production side. Its methods never raise; `Audit` calls them in its order.

    Parameters
    ----------
    store : Store
        What is watched.
    run_id : str
        Whose canaries are searched.
    slack_ns : int
        By how much a change may lie outside its claim's interval.
    """

    def __init__(self, store: Store, run_id: str, slack_ns: int) -> None:
        self.store = store
        self.watch = CanaryWatch(store.name, run_id)
        self._slack_ns = slack_ns
        self._capture: Capture | None = None
        self._open = False
        self._refusals: list[Refusal] = []
        self._not_checked: list[str] = []
        self._shadow_rows: int | None = None
        self._opened_ns = self._ended_ns = 0

    def start(self) -> None:
        """Open the change stream, then let the shadow login knock."""
        if self.store.kind == "sqlite":
            self._not_checked.append(_NO_SQLITE)
            return
        if self.store.audit is None:
            self._not_checked.append(
                "production's changes: the store has no audit login in perflab.toml ('audit')"
            )
        else:
            self._streaming("production's changes", self._open_capture)
        self._knock()
        self._shadow_rows = count_shadow_rows(self.store)

    def read(self) -> None:
        """Read on; what is found is in `watch` at once, while the reading goes on."""
        if self._open and self._capture is not None:
            self._streaming("the rest of production's changes", self._capture.poll)

    def end(self) -> None:
        """End the window."""
        if self._open and self._capture is not None:
            self._streaming("the end of production's changes", self._capture.end)
            self._ended_ns = self._ended_ns or time.time_ns()

    def finish(
        self, claims: Sequence[dict[str, Any]], marked: Sequence[dict[str, Any]], canaries_sent: int
    ) -> dict[str, Any]:
        """Read to the end and return the store's row of ``isolation.json``."""
        if self._open and self._capture is not None:
            capture = self._capture
            self._streaming("the last of production's changes", lambda: capture.drain(_DRAIN_S))
        self._knock()
        counts = self._account(claims)
        on_shadow, elsewhere = self._places(marked)
        tried = sum(refusal.tried for refusal in self._refusals)
        refused = sum(refusal.refused for refusal in self._refusals)
        how = "; ".join(dict.fromkeys(refusal.how for refusal in self._refusals if refusal.how))
        reasons = self._reasons(counts, on_shadow, elsewhere, canaries_sent)
        not_checked = self._not_checked + (self._capture.not_checked if self._capture else [])
        return {
            "name": self.store.name,
            "kind": self.store.kind,
            "proven": not reasons and not not_checked and 0 < tried == refused,
            "login_refused": {"tried": tried, "refused": refused, "how": how},
            "marked_sessions": {"on_shadow": on_shadow, "elsewhere": elsewhere},
            "canaries": {"sent": canaries_sent, "hits": self.watch.hits},
            "changes": counts.as_row(),
            "shadow_changes": self._shadow_changes(),
            "not_checked": list(dict.fromkeys(not_checked)),
            "reasons": reasons,
            "limits": self._limits(counts),
        }

    def close(self) -> None:
        """Drop and disconnect; again does nothing."""
        self._open = False
        if self._capture is not None:
            with contextlib.suppress(Exception):  # whatever one store does, the others are closed too
                self._capture.close()

    def _streaming(self, what: str, step: Callable[[], object]) -> None:
        """Take a step of the change stream; when it fails the stream is over, and leaves nothing behind."""
        try:
            step()
        except Exception as error:
            self._not_checked.append(f"{what}: {_said(error)}")
            self.close()

    def _open_capture(self) -> None:
        self._capture = open_capture(self.store, self.watch)
        self._open = True
        self._opened_ns = time.time_ns()

    def _knock(self) -> None:
        """Try the shadow login on production."""
        if self.store.kind == "sqlite":
            return
        try:
            url = with_login(self.store.production, self.store.shadow.read())
            if self.store.kind == "redis":
                refusal = try_redis(url)
            elif self.store.kind == "mariadb":
                refusal = try_mariadb(url)
            else:
                witness = self._capture.session if isinstance(self._capture, WalCapture) else None
                refusal = try_postgresql(url, witness)
        except Exception as error:
            self._not_checked.append(f"whether production refuses the shadow login: {_said(error)}")
            return
        self._refusals.append(refusal)
        if refusal.unclear:
            self._not_checked.append(f"whether production refuses the shadow login: {refusal.unclear}")

    def _account(self, rows: Sequence[dict[str, Any]]) -> Counts:
        """Attribute the window's changes to claims, then removals to expiry."""
        capture = self._capture
        if capture is None:
            return Counts()
        try:
            claims = capture.claims(rows)
        except PerflabError as error:
            self._not_checked.append(f"who made production's changes: {error}")
            claims = []
        except (KeyError, ValueError, TypeError) as error:
            self._not_checked.append(f"who made production's changes: a malformed claim, {error!r}")
            claims = []
        changes = capture.changes()
        found = attribute(changes, claims, self._slack_ns)
        if found.exhausted:
            self._not_checked.append(
                "who made production's changes: too many overlapping claims to assign them all"
            )
        if not changes and self.store.kind != "redis" and self._claimed_inside(claims):
            self._not_checked.append(_ELSEWHERE)
        counts = Counts(
            capture.unit,
            sum(change.weight for change in changes),
            found.attributed,
            found.opaque,
            background=found.background,
        )
        for change in found.unattributed:
            if change.expirable and counts.expired + change.weight <= capture.removed_by_server:
                counts.expired += change.weight
                continue
            counts.unattributed += change.weight
            if len(counts.examples) < _EXAMPLES:
                counts.examples.append(_example(change))
        return counts

    def _claimed_inside(self, claims: Sequence[Claim]) -> bool:
        """Tell whether a claim of certain rows lies in the window with room on both sides."""
        begin_ns, end_ns = self._opened_ns + self._slack_ns, self._ended_ns - self._slack_ns
        return any(
            begin_ns <= claim.begin_ns and claim.end_ns <= end_ns for claim in claims if not claim.opaque
        )

    def _places(self, marked: Sequence[dict[str, Any]]) -> tuple[int, int]:
        """Count marked work's accesses on the shadow's login, and elsewhere."""
        try:
            user, database = shadow_login(self.store)
        except PerflabError:
            user = database = ""
        on_shadow = elsewhere = 0
        for session in marked:
            right = bool(session.get("shadow")) and session.get("user", user) in ("", user)
            if self.store.kind in ("postgresql", "mariadb"):
                right = right and session.get("database", database) in ("", database)
            calls = int(session["marked_calls"])
            on_shadow, elsewhere = on_shadow + calls * right, elsewhere + calls * (not right)
        return on_shadow, elsewhere

    def _reasons(self, counts: Counts, on_shadow: int, elsewhere: int, canaries_sent: int) -> list[str]:
        """Say in plain words what was checked and is not as it must be."""
        said: list[str] = []
        if self.store.mode in _WEAKER:
            said.append(f"mode {self.store.mode!r}: {_WEAKER[self.store.mode]}")
        if any(not refusal.kept_out and not refusal.unclear for refusal in self._refusals):
            said.append("production let the shadow login in")
        if not on_shadow:
            said.append("no marked work reached this store: nothing was tested here")
        if elsewhere:
            said.append(f"{elsewhere} accesses of marked work were not on the shadow login")
        if not canaries_sent:
            said.append("no canary was sent: payloads could not be told from real ones")
        if self.watch.hits:
            said.append(f"{self.watch.hits} changes of production carry a canary of this run")
        if counts.unattributed:
            said.append(
                f"{counts.unattributed} of {counts.seen} {counts.unit} of production are not accounted for"
                " by any attached service"
            )
        return said

    def _limits(self, counts: Counts) -> list[str]:
        """Say what the method cannot see here; it does not forbid "proven"."""
        said = list(self._capture.limits) if self._capture else []
        if counts.opaque:
            said.append(
                f"{counts.opaque} of {counts.seen} {counts.unit} are covered by time only: an attached"
                f" service wrote"
                " something then and could not say what; a write without a canary in that moment would"
                " look the same"
            )
        if counts.expired:
            said.append(
                f"{counts.expired} of {counts.seen} {counts.unit} are removals that no service made: the"
                " server counts as many keys, the shadow's among them, that it removed by itself"
            )
        if counts.background:
            said.append(
                f"{counts.background} of {counts.seen} {counts.unit} were written outside of every request,"
                " by threads and jobs of the services: what shadow work handed to them without its mark and"
                " without a canary would look the same"
            )
        if counts.attributed:
            said.append(_LIKENESS["redis" if self.store.kind == "redis" else "sql"])
        return [*said, _ALWAYS]

    def _shadow_changes(self) -> int:
        if self._capture is not None and self._capture.shadow_changes:
            return self._capture.shadow_changes
        after = count_shadow_rows(self.store)
        return max(0, after - self._shadow_rows) if after is not None and self._shadow_rows is not None else 0


def _example(change: Change) -> dict[str, Any]:
    return {"time_ns": change.time_ns, "where": change.where, "what": change.what}


def _said(error: Exception) -> str:
    text = str(error).strip()
    return text if isinstance(error, PerflabError) else f"{type(error).__name__}: {text}"
