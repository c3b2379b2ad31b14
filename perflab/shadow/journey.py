"""Where the mark travelled: the preflight's requests as trees, and what was met on the way.

Pure: spans and agents' reports in, plain data out. `perflab.cli.preflight` draws it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from perflab.config import Outbound, Store
from perflab.shadow.fleet import Fleet
from perflab.shadow.preflight import Hop

State = Literal["carried", "died", "lost", "refused"]
_CONNECTORS = ("client", "producer")


@dataclass(frozen=True, slots=True)
class Stop:
    """One place a marked request came to.

    Parameters
    ----------
    service, name, kind : str
        As in the span table.
    state : {'carried', 'died', 'lost', 'refused'}
        ``carried``: it worked with the mark; ``lost``: it worked without; ``died``: a call that should have
        come here shows no work; ``refused``: shadow work was refused here.
    children : tuple of Stop
        What it called, in order of time.
    """

    service: str
    name: str
    kind: str
    state: State
    children: tuple[Stop, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "service": self.service,
            "name": self.name,
            "kind": self.kind,
            "mark": self.state,
            "calls": [child.as_dict() for child in self.children],
        }


def stops(hops: Sequence[Hop], services: Collection[str], refused: Collection[str] = ()) -> dict[str, Stop]:
    """Return where each preflight request went: trace-id -> the place it came to first.

    Parameters
    ----------
    hops : sequence of Hop
        Spans of the preflight's requests.
    services : collection of str
        The attached services; a call to one of them that shows no work there is where the mark died.
    refused : collection of str
        Services that refused shadow work of these requests.

    Returns
    -------
    dict
        A trace nothing was seen of is left out; several roots are put under one of kind ``trace``.
    """
    found: dict[str, list[Hop]] = {}
    for hop in hops:
        found.setdefault(hop.trace_id, []).append(hop)
    return {trace_id: _tree(of_trace, services, refused) for trace_id, of_trace in found.items()}


def _tree(hops: Sequence[Hop], services: Collection[str], refused: Collection[str]) -> Stop:
    known = {hop.span_id for hop in hops}
    children: dict[int, list[Hop]] = {}
    roots: list[Hop] = []
    for hop in sorted(hops, key=lambda hop: (hop.start_ns, hop.span_id)):
        inner = hop.parent_span_id in known and hop.parent_span_id != hop.span_id
        (children.setdefault(hop.parent_span_id, []) if inner else roots).append(hop)
    seen: set[int] = set()
    made = [_stop(root, children, services, refused, seen) for root in roots]
    # spans that are each other's parents hang nowhere: they are shown all the same
    made += [_stop(hop, children, services, refused, seen) for hop in hops if hop.span_id not in seen]
    return made[0] if len(made) == 1 else Stop("", "several roots", "trace", "carried", tuple(made))


def _stop(
    hop: Hop,
    children: Mapping[int, Sequence[Hop]],
    services: Collection[str],
    refused: Collection[str],
    seen: set[int],
) -> Stop:
    """Make the place of a span, without recursion: traces may be deep."""
    made: dict[int, Stop] = {}
    pending = [hop]
    while pending:
        current = pending[-1]
        seen.add(current.span_id)
        below = [child for child in children.get(current.span_id, ()) if child is not current]
        missing = [child for child in below if child.span_id not in made and child.span_id not in seen]
        if missing:
            pending += reversed(missing)
            continue
        pending.pop()
        made[current.span_id] = _place(
            current, [made[child.span_id] for child in below if child.span_id in made], services, refused
        )
    return made[hop.span_id]


def _place(hop: Hop, below: list[Stop], services: Collection[str], refused: Collection[str]) -> Stop:
    if hop.kind in _CONNECTORS and hop.peer in services and not any(stop.kind == "server" for stop in below):
        below = [*below, Stop(hop.peer, "no work seen for this call", "server", "died")]
    state: State = "carried" if hop.shadow else "lost"
    if hop.failed and hop.service in refused and not any(stop.state == "refused" for stop in below):
        state = "refused"
    return Stop(hop.service, hop.name, hop.kind, state, tuple(below))


def services_seen(fleet: Fleet, wanted: Iterable[str]) -> list[dict[str, Any]]:
    """Return what is known of each service: its agent, its hooks, what it does not cover.

    Parameters
    ----------
    fleet : Fleet
        The agents' reports.
    wanted : iterable of str
        The services the target lists as attached.

    Returns
    -------
    list of dict
        ``service``, ``agent`` (version, "" without one), ``processes``, ``hooks`` (name -> state, version,
        reason), ``uncovered`` (drivers by name), ``marks`` (how marks were judged).
    """
    versions, processes, hooks = fleet.versions(), fleet.processes(), fleet.hooks()
    uncovered, marks = fleet.uncovered(), fleet.marks()
    return [
        {
            "service": name,
            "agent": versions.get(name, {}).get("perflab", ""),
            "processes": processes.get(name, 0),
            "hooks": hooks.get(name, {}),
            "uncovered": sorted(uncovered.get(name, ())),
            "marks": dict(marks.get(name, {})),
        }
        for name in sorted({*wanted, *fleet.services()})
    ]


def stores_seen(fleet: Fleet, stores: Sequence[Store], outbound: Sequence[Outbound]) -> list[dict[str, Any]]:
    """Return every store and peer marked work met, and those it did not.

    Parameters
    ----------
    fleet : Fleet
        The agents' reports.
    stores, outbound
        Of the target.

    Returns
    -------
    list of dict
        ``store``, ``state``, ``calls``, ``service``, ``why``. States: ``covered`` (marked work used its
        shadow), ``denied`` (refused by configuration), ``unknown`` (refused: nobody listed it), ``not met``.
    """
    rows: list[dict[str, Any]] = []
    configured = {store.name for store in stores}
    denied = {store.name for store in stores if store.mode == "deny"}
    denied |= {peer.name for peer in outbound if peer.action == "deny"}
    calls: dict[tuple[str, str], int] = {}
    for session in fleet.sessions():
        if session["shadow"]:
            key = (str(session["store"]), str(session["service"]))
            calls[key] = calls.get(key, 0) + int(session["marked_calls"])
    for (store, service), count in sorted(calls.items()):
        rows.append({"store": store, "state": "covered", "calls": count, "service": service, "why": ""})
    for peer in fleet.outbound():
        state = "denied" if peer["action"] == "deny" else "covered"
        rows.append(
            {"store": peer["name"], "state": state, "calls": peer["marked_calls"], "service": "",
             "why": f"outbound: {peer['action']}"}
        )  # fmt: skip
    refused: dict[tuple[str, str, str], int] = {}
    for refusal in fleet.refusals:
        key3 = (refusal["store"], refusal["service"], refusal["what"])
        refused[key3] = refused.get(key3, 0) + 1
    for (store, service, why), count in sorted(refused.items()):
        state = "denied" if store in denied else "refused" if store in configured else "unknown"
        rows.append({"store": store, "state": state, "calls": count, "service": service, "why": why})
    met = {row["store"] for row in rows}
    rows += [
        {
            "store": store.name,
            "state": "not met",
            "calls": 0,
            "service": "",
            "why": "no preflight request used it",
        }
        for store in stores
        if store.name not in met
    ]
    return rows
