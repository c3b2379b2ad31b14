"""Preflight: before a run, find every place where marked work would not be isolated.

First what the agents know of themselves (`static_holes`), before anything is sent; then one marked request
per endpoint, whose spans show where the mark travelled (`travelled_holes`). A run is refused while a hole is
open that the scenario does not accept by name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from perflab.shadow.fleet import Fleet


@dataclass(frozen=True, slots=True)
class Hole:
    """A place where marked work would not be isolated.

    Parameters
    ----------
    name : str
        What the scenario's ``[holes] accept`` calls it.
    why : str
        One sentence for people: what is wrong and what to do.
    service, store, trace_id : str
        Where it was seen, as far as known.
    """

    name: str
    why: str
    service: str = ""
    store: str = ""
    trace_id: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as ``run.json`` keeps it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Hop:
    """One span of a preflight request, as far as the preflight needs it."""

    trace_id: str
    span_id: int
    parent_span_id: int
    service: str
    kind: str
    shadow: bool
    peer: str
    name: str = ""
    start_ns: int = 0
    failed: bool = False


def static_holes(fleet: Fleet, wanted: Iterable[str]) -> list[Hole]:
    """Return what is known to be open before anything is sent.

    Parameters
    ----------
    fleet : Fleet
        The agents' reports.
    wanted : iterable of str
        The services the target lists as attached.
    """
    absent = sorted(set(wanted) - fleet.services())
    holes = [
        Hole(
            f"{name}: no agent",
            f"service {name!r} does not report; start it with perflab attach --service {name}",
            name,
        )
        for name in absent
    ]
    for name, formats in sorted(fleet.strange_formats().items()):
        listed = ", ".join(map(str, sorted(formats)))
        holes.append(
            Hole(
                f"{name}: agent format {listed}",
                f"the agent of service {name!r} reports in format {listed}, which this perflab does"
                " not read; install the agent and perflab in matching versions",
                name,
            )
        )
    for name in sorted(fleet.holes()):
        service, _, what = name.partition(": ")
        holes.append(
            Hole(name, f"in service {service!r}, {what}: what it writes would not be isolated", service)
        )
    return holes


def mixed_versions(fleet: Fleet, own: str) -> list[str]:
    """Say in plain words which services run other versions of the agent than this controller's.

    Parameters
    ----------
    fleet : Fleet
        The agents' reports.
    own : str
        The controller's version.
    """
    return [
        f"service {service!r} runs agent {versions['perflab']}; this is perflab {own}"
        for service, versions in sorted(fleet.versions().items())
        if versions["perflab"] != own
    ]


def travelled_holes(
    fleet: Fleet,
    hops: Sequence[Hop],
    samples: Iterable[Mapping[str, Any]],
    services: Collection[str],
) -> list[Hole]:
    """Return where marked requests were refused, lost their mark, or left the attached services.

    Parameters
    ----------
    fleet : Fleet
        The agents' reports, after the requests were answered.
    hops : sequence of Hop
        Their spans.
    samples : iterable of mapping
        Per endpoint: ``endpoint outcome status reason trace_id``.
    services : collection of str
        The attached services.
    """
    holes = [
        Hole(
            f"{refusal['service']}: {refusal['store']}",
            f"service {refusal['service']!r} may not use {refusal['store']}: {refusal['what']}",
            refusal["service"],
            refusal["store"],
            refusal["trace_id"],
        )
        for refusal in fleet.refusals
    ]
    for service, judged in sorted(fleet.marks().items()):
        holes += [
            Hole(f"{service}: {kind}", f"service {service!r} refused {count} marks ({kind})", service)
            for kind, count in sorted(judged.items())
            if kind != "marked"
        ]
    holes += _lost(hops, services)
    for sample in samples:
        if sample["outcome"] != "answered":
            what = sample.get("reason") or f"status {sample.get('status')}"
            holes.append(
                Hole(
                    f"endpoint {sample['endpoint']}: {sample['outcome']}",
                    f"the preflight request of {sample['endpoint']!r} failed: {sample['outcome']}, {what}",
                    trace_id=sample["trace_id"],
                )
            )
    return _once(holes)


def _lost(hops: Sequence[Hop], services: Collection[str]) -> list[Hole]:
    children: dict[tuple[str, int], list[Hop]] = {}
    for hop in hops:
        children.setdefault((hop.trace_id, hop.parent_span_id), []).append(hop)
    holes = []
    for hop in hops:
        if not hop.shadow:
            holes.append(
                Hole(
                    f"{hop.service}: mark lost",
                    f"service {hop.service!r} worked on a marked trace without the mark: lost on the way in",
                    hop.service,
                    trace_id=hop.trace_id,
                )
            )
        if hop.kind == "client" and hop.peer in services:
            served = [
                child for child in children.get((hop.trace_id, hop.span_id), ()) if child.kind == "server"
            ]
            if not served:
                holes.append(
                    Hole(
                        f"{hop.service} -> {hop.peer}: trace lost",
                        f"{hop.service!r} called {hop.peer!r}, "
                        "which shows no work for it; the mark may be lost",
                        hop.peer,
                        trace_id=hop.trace_id,
                    )
                )
    return holes


def _once(holes: Iterable[Hole]) -> list[Hole]:
    found: dict[str, Hole] = {}
    for hole in holes:
        found.setdefault(hole.name, hole)
    return list(found.values())


def unaccepted(holes: Iterable[Hole], accepted: Collection[str]) -> list[Hole]:
    """Return the holes the scenario does not name."""
    return [hole for hole in holes if hole.name not in accepted]
