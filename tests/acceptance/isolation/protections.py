"""Protections that can be switched off inside a process that is running, each by its name.

A protection is switched off by putting something else in the place of the function that is it; what stood
there is put back by `switch_on`. The same is done in the tests' own process to what the controller does: the
audit and the signature. Hooks are not here: the agent itself can leave them out.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from attached_service import kept

Replaced = Iterator[tuple[Any, str, Any]]
"""Owner, name, and what is put there."""


def switch_off(names: Sequence[str]) -> None:
    """Switch protections off, by their names in `OFF`."""
    kept["whole"] = []
    for name in names:
        for owner, attribute, instead in OFF[name]():
            kept["whole"].append((owner, attribute, vars(owner)[attribute]))
            setattr(owner, attribute, instead)


def switch_on() -> None:
    """Put back what `switch_off` took away."""
    for owner, attribute, whole in reversed(kept.pop("whole", [])):
        setattr(owner, attribute, whole)


def _of(name: str) -> Any:
    return import_module(f"perflab.shadow.{name}")


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _always(*_: Any, **__: Any) -> bool:
    return True


def _fence() -> Replaced:
    yield _of("sql.session"), "admit", _nothing


def _fence_of_redis() -> Replaced:
    yield _of("redis"), "_admit", _nothing


def _confirmation() -> Replaced:
    yield _of("sql.session"), "confirm", _nothing


def _unknown_database() -> Replaced:
    """Let marked work connect to what is no known store, as its service asked."""
    from perflab.config import Secret, Store
    from perflab.shadow.stores import Twin

    session = _of("sql.session")
    whole = session.twin_for

    def twin_for(kind: str, places: Any, shadow: Any) -> Any:
        try:
            return whole(kind, places, shadow)
        except Exception:
            there = dataclasses.replace(places[0], password="secret")
            return Twin(Store("unknown", kind, "", Secret(env="NONE")), there, there)  # type: ignore[arg-type]

    yield session, "twin_for", twin_for


def _denial() -> Replaced:
    import msgspec

    session = _of("sql.session")
    known = {
        kind: tuple(
            dataclasses.replace(twin, store=msgspec.structs.replace(twin.store, mode="database"))
            if twin.store.mode == "deny"
            else twin
            for twin in twins
        )
        for kind, twins in session._twins.items()
    }
    yield session, "_twins", known


def _routing() -> Replaced:
    """Lead marked work to production's own database, with the shadow's login."""
    libpq = _of("sql.libpq")
    whole = libpq.shadow_login

    def to_production(twin: Any) -> dict[str, str]:
        return {**whole(twin), "dbname": twin.production.database}

    yield libpq, "shadow_login", to_production


def _live_run() -> Replaced:
    yield _of("scope"), "require_live", _nothing


def _stale_list() -> Replaced:
    yield _of("control"), "STALE_AFTER_S", 1e9


def _list_signature() -> Replaced:
    import json

    def opened(what: str, content: bytes, control_key: bytes) -> tuple[Any, bytes]:
        return json.loads(json.loads(content)["payload"]), control_key

    yield _of("control"), "opened", opened


def _newer_lists_only() -> Replaced:
    control = _of("control")
    whole = control.ControlReader.poll

    def poll(reader: Any) -> None:
        belief = reader._belief
        reader._belief = dataclasses.replace(
            belief, control=dataclasses.replace(belief.control, issued_s=0.0)
        )
        whole(reader)

    yield control.ControlReader, "poll", poll


def _kept_kills() -> Replaced:
    control = _of("control")
    whole = control._Belief.followed_by

    def followed_by(belief: Any, *arguments: Any) -> Any:
        return whole(dataclasses.replace(belief, killed=frozenset()), *arguments)

    yield control._Belief, "followed_by", followed_by


def _token_signature() -> Replaced:
    """Believe any signature of a token; those of trace-ids are bytes."""
    mark = _of("mark")
    compare = mark.hmac.compare_digest

    def compare_digest(one: Any, other: Any) -> bool:
        return isinstance(one, str) or bool(compare(one, other))

    yield mark, "hmac", SimpleNamespace(compare_digest=compare_digest)


def _trace_id_signature() -> Replaced:
    yield _of("mark"), "_is_genuine", _always


def _judging(change: Callable[..., tuple[Any, ...]]) -> Replaced:
    inbound = _of("inbound")
    whole = inbound.judge

    def judge(*arguments: Any, waited: bool = False) -> Any:
        return whole(*change(*arguments), waited=waited)

    yield inbound, "judge", judge


def _expiry() -> Replaced:
    return _judging(lambda trace, state, baggage, live, now, ended: (trace, state, baggage, live, 0, ended))


def _contradiction() -> Replaced:
    return _judging(lambda trace, state, baggage, *rest: (trace, state, state, *rest))


def _run_over() -> Replaced:
    return _judging(lambda trace, state, baggage, live, now, ended: (trace, state, baggage, ended, now, {}))


def _replay() -> Replaced:
    yield _of("replay").Arrivals, "is_first", _always


def _holes() -> Replaced:
    yield _of("ledger").Ledger, "holes", lambda *_: set()


def _watch_for_drivers() -> Replaced:
    """Watch for no import of a driver that is not covered."""
    imports = _of("imports")
    yield imports, "_waiting", {name: told for name, told in imports._waiting.items() if name != "pg8000"}


def _unhooked_libraries() -> Replaced:
    yield _of("imports"), "_before", {}


def _sockets() -> Replaced:
    sockets = _of("sockets")
    yield (
        sockets,
        "scope",
        SimpleNamespace(current=_nothing, permitted=_always, process=sockets.scope.process),
    )


def _outbound() -> Replaced:
    yield _of("outbound")._Call, "_decide", lambda _, url: url


def _attach() -> Replaced:
    yield _of("sql.sqlite3"), "_is_harmless", _always


def _user_locks() -> Replaced:
    yield _of("sql.pymysql_statements"), "refuse_shared", _nothing


def _upkeep() -> Replaced:
    yield _of("sql.psycopg3_statements"), "upkeep", lambda _: contextlib.nullcontext()


def _key_prefix() -> Replaced:
    yield _of("redis"), "shadowed", lambda arguments, _: arguments


def _first_reading() -> Replaced:
    """Overlook every table of a query."""
    yield _of("sql.rewrite"), "read_query", lambda *_: []


def _second_reading() -> Replaced:
    yield _of("sql.rewrite"), "_prove", _nothing


def _canaries() -> Replaced:
    yield _of("audit.canary").CanaryWatch, "row", lambda *_: False


def _canaries_inside() -> Replaced:
    yield _of("canaries"), "find", _nothing


def _lingering() -> Replaced:
    yield _of("lingering"), "look", _nothing


def _libpq() -> Replaced:
    yield _of("sql.psycopg3_libpq"), "scope", SimpleNamespace(current=_nothing, permitted=_always)


def _attribution() -> Replaced:
    """Take every change for claimed."""
    storeaudit, attribution = _of("audit.storeaudit"), _of("audit.attribution")

    def attribute(changes: Any, *_: Any) -> Any:
        return attribution.Attribution(sum(change.weight for change in changes), 0, (), False)

    yield storeaudit, "attribute", attribute


def _accounts_of_sessions() -> Replaced:
    def places(_: Any, sessions: Any) -> tuple[int, int]:
        return sum(int(session["marked_calls"]) for session in sessions), 0

    yield _of("audit.storeaudit").StoreAudit, "_places", places


def _knock() -> Replaced:
    """Take it for granted that production refuses the shadow login."""
    storeaudit = _of("audit.storeaudit")
    yield storeaudit, "try_postgresql", lambda *_: storeaudit.Refusal(1, 1, "taken for granted")


def _reason(words: str) -> Replaced:
    """Give one reason against a proof no more."""
    audit = _of("audit.storeaudit").StoreAudit
    whole = audit._reasons

    def reasons(*arguments: Any) -> list[str]:
        return [said for said in whole(*arguments) if words not in said]

    yield audit, "_reasons", reasons


def _claims() -> Replaced:
    yield _of("sql.session"), "claim", _nothing


def _elsewhere() -> Replaced:
    yield _of("audit.storeaudit").StoreAudit, "_claimed_inside", lambda *_: False


def _digests() -> Replaced:
    yield _of("audit.signature"), "_compare", lambda *_: ([], [])


def _genuine() -> Replaced:
    yield _of("audit.signature"), "_is_genuine", _always


def _known_signer() -> Replaced:
    checked = _of("audit.signature").Checked
    yield checked, "holds", property(lambda found: found.signed and not found.altered)


OFF: dict[str, Callable[[], Replaced]] = {
    "the fence": _fence,
    "the fence of redis": _fence_of_redis,
    "the confirmation": _confirmation,
    "the refusal of unknown databases": _unknown_database,
    "the denial": _denial,
    "the routing": _routing,
    "the check for a live run": _live_run,
    "the age of the list": _stale_list,
    "the list's signature": _list_signature,
    "the order of lists": _newer_lists_only,
    "the memory of kills": _kept_kills,
    "the token's signature": _token_signature,
    "the trace-id's signature": _trace_id_signature,
    "the token's end": _expiry,
    "the check for contradictions": _contradiction,
    "the check for runs that are over": _run_over,
    "the memory of arrivals": _replay,
    "the check for holes": _holes,
    "the watch for drivers": _watch_for_drivers,
    "the refusal of unhooked libraries": _unhooked_libraries,
    "the guard of sockets": _sockets,
    "the list of peers": _outbound,
    "the closing of libpq": _libpq,
    "the search of what ordinary work sends": _canaries_inside,
    "the look for threads that go on": _lingering,
    "the authorizer": _attach,
    "the refusal of user locks": _user_locks,
    "the upkeep": _upkeep,
    "the prefix": _key_prefix,
    "the first reading": _first_reading,
    "the second reading": _second_reading,
    "the search for canaries": _canaries,
    "the attribution": _attribution,
    "the account of sessions": _accounts_of_sessions,
    "the knock": _knock,
    "the claims": _claims,
    "the look for claims elsewhere": _elsewhere,
    "the look for marked work": lambda: _reason("no marked work reached"),
    "the look for canaries sent": lambda: _reason("no canary was sent"),
    "the digests": _digests,
    "the signature": _genuine,
    "the signer": _known_signer,
}
"""Name -> what it puts where."""
