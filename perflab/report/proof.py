"""What a run can show for its promises: isolation, unharmed real users, thresholds and guards, errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from perflab.report.cards import MISSING, Html, counts, heading, note, show, table, when
from perflab.report.cost import agents_cost
from perflab.report.preflight import met
from perflab.report.seal import seal
from perflab.units import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    import pandas as pd

    from perflab.run import Run


_STORE_NOTES = (
    ("Why a store is not proven", "reasons"),
    ("What was not checked, and so is not proven", "not_checked"),
    ("What this proof cannot say", "limits"),
)
_EVIDENCE_SHOWN = 5
_WELL = (None, "ok", "up", "running", "attached")


def isolation(run: Run) -> Html:
    """Show, store by store, what proves that marked work stayed out of production, and what does not.

    Parameters
    ----------
    run : Run
        The run; without ``isolation.json`` this says that nothing is proven.
    """
    proof = run.isolation
    if not proof:
        return note("Nothing is proven: this run made no proof of isolation.")
    stores = proof.get("stores") or []
    parts = [_leaks(proof), seal(run)]
    parts.append(table([_store_row(store) for store in stores], empty="No store was seen.").html)
    parts += _changes(stores)
    for title, key in _STORE_NOTES:
        lines = [f"{store.get('name')}: {text}" for store in stores for text in store.get(key) or []]
        parts += _listed(title, lines)
    writes = proof.get("real_user_writes") or {}
    if writes:
        parts.append(
            Markup("<p>Of {} writes that real users had acknowledged meanwhile, {} are missing.</p>").format(
                show(writes.get("acknowledged")), show(writes.get("missing"))
            )
        )
    for key, title in (("refusals", "Marked work refused at a store"), ("outbound", "Outbound calls")):
        rows = proof.get(key) or []
        if rows:
            parts.append(Markup("<h3>{}</h3>").format(title) + table(rows).html)
    parts += [met(run), agents_cost()]
    return Html(Markup('<section class="proof">{}</section>').format(Markup("").join(parts)))


def real_users(run: Run) -> Html:
    """Compare the real users' latency and errors before, during and after the run."""
    phases = run.info.get("real_users") or {}
    rows = [
        {
            "phase": name,
            "requests": phase.get("n"),
            "p50_ms": phase.get("p50_ms"),
            "p99_ms": phase.get("p99_ms"),
            "error_ratio": phase.get("error_ratio"),
        }
        for name in ("before", "during", "after")
        if (phase := phases.get(name))
    ]
    return table(rows, empty="The real users were not measured in this run, so nothing can be said of them.")


def checks(run: Run) -> Html:
    """Show the scenario's thresholds and the guards: what was allowed, what was met, whether it held."""
    rows = [
        {
            "kind": "threshold",
            "of": item.get("endpoint"),
            **_measured(item, "value"),
            "result": {True: "held", False: "not held"}.get(item.get("passed"), "cannot say"),
        }
        for item in run.info.get("thresholds") or []
    ]
    rows += [
        {
            "kind": "guard",
            "of": str(item.get("of", MISSING)).replace("_", " "),
            **_measured(item, "worst"),
            "result": "tripped" if item.get("tripped") else "held",
        }
        for item in run.info.get("guards") or []
    ]
    return table(rows, empty="No threshold and no guard is recorded.")


def errors(run: Run, breakdown: pd.DataFrame | None = None) -> Html:
    """Show what went wrong: outcomes of requests, services that failed, holes that were named.

    Parameters
    ----------
    run : Run
        The run.
    breakdown : pandas.DataFrame, optional
        ``Latency.errors``; without it the outcomes counted in ``run.json`` are shown.
    """
    info = run.info
    outcomes = (info.get("requests") or {}).get("error_outcomes") or {}
    rows: Any = [{"outcome": name, "requests": number} for name, number in outcomes.items()]
    if breakdown is not None and len(breakdown):
        rows = breakdown
    nothing = "No request failed." if info.get("requests") else "No request is recorded."
    parts = [table(rows, empty=nothing).html]
    unwell = [item for item in info.get("services") or [] if item.get("state") not in _WELL]
    parts += _listed(
        "Services that were not well", (f"{item.get('name')}: {item.get('state')}" for item in unwell)
    )
    parts += _listed("Holes the mark cannot cross", (_as_text(hole) for hole in info.get("holes") or []))
    return Html(Markup("").join(parts))


def parameters(run: Run) -> Html:
    """Show what was run: scenario, target, times, phases, and the versions it was run with."""
    info = run.info
    phases = [
        f"{phase.get('name')} {show((phase['end_ns'] - phase['start_ns']) / NS_PER_S)} s"
        for phase in info.get("phases") or []
        if phase.get("start_ns") and phase.get("end_ns")
    ]
    told = {
        "run": run.run_id,
        "scenario": info.get("scenario"),
        "target": info.get("target"),
        "time": when(info) or None,
        "phases": phases,
        "holes accepted": [_as_text(hole) for hole in info.get("accepted_holes") or []],
        "delays planted": {
            name: f"{show(delay)} ms" for name, delay in (info.get("delays_ms") or {}).items()
        },
        "delayed by turns": _tried(info.get("experiment") or {}),
    }
    versions = [{"of": name, "version": told_of} for name, told_of in (info.get("versions") or {}).items()]
    parts = [counts(told, "What was run").html]
    if versions:
        parts += [Markup("<h3>Versions</h3>"), table(versions, most=100).html]
    return Html(Markup("").join(parts))


def events(run: Run) -> Html:
    """Show what happened during the run, oldest first: phases, guards, approvals, services that died."""
    happened = run.events
    started = min((int(item["time_ns"]) for item in happened if "time_ns" in item), default=0)
    rows = [
        {
            "at, s": f"{(int(item.get('time_ns', started)) - started) / NS_PER_S:.1f}",
            "event": item.get("event"),
            "details": _details(item),
        }
        for item in happened
    ]
    return table(rows, most=60, empty="The run left no record of events.")


def _details(event: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in event.items() if name not in ("time_ns", "event")}
    return show(rest["name"] if set(rest) == {"name"} else rest)


def _measured(item: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return metric, limit and worst value in the unit the metric's name ends in."""
    metric = str(item.get("metric", ""))
    limit, worst = (show(item.get(name), metric) for name in ("limit", key))
    return {"metric": heading(metric), "limit": limit, "worst": worst}


def _leaks(proof: Mapping[str, Any]) -> Markup:
    leaks = proof.get("leaks") or []
    if not leaks:
        return Markup("")
    evidence = [_evidence(leak) for leak in leaks[:_EVIDENCE_SHOWN] if leak.get("evidence")]
    return Markup('<div class="alarm"><h3>Marked work reached production ({})</h3>{}{}</div>').format(
        len(leaks),
        table(leaks, ("store", "where", "what", "trace_id"), most=50).html,
        Markup("").join(_listed("Evidence", evidence)),
    )


def _evidence(leak: Mapping[str, Any]) -> str:
    """Say where a leak stands in production's log, and what it wrote; others' values are not in it."""
    moment = when({"started_ns": leak["time_ns"]}) if leak.get("time_ns") else ""
    place = [
        f"{name} {leak[name]}" for name in ("transaction", "position") if leak.get(name)
    ]  # Redis has neither
    return ": ".join(
        (", ".join([str(leak.get("where")), *([moment] if moment else []), *place]), str(leak["evidence"]))
    )


def _changes(stores: Iterable[Mapping[str, Any]]) -> list[Markup]:
    """Show what production gained, store by store, and who accounts for it."""
    rows = []
    for store in stores:
        changes = store.get("changes") or {}
        if changes.get("seen"):
            rows.append(
                {
                    "store": store.get("name"),
                    "counted in": changes.get("unit") or MISSING,
                    "seen": changes.get("seen"),
                    "claimed by a service": changes.get("attributed", 0),
                    "covered by time only": changes.get("opaque", 0),
                    "written outside of requests": changes.get("background", 0),
                    "expired by the server": changes.get("expired", 0),
                    "nobody accounts for": changes.get("unattributed", 0),
                    "changes of the shadow": store.get("shadow_changes"),
                }
            )
    if not rows:
        return []
    parts = [Markup("<h3>What production gained meanwhile, and who wrote it</h3>"), table(rows).html]
    examples = [
        f"{store.get('name')}: {example.get('what') or example.get('where')}"
        for store in stores
        for example in (store.get("changes") or {}).get("examples") or []
    ]
    return [*parts, *_listed("Changes nobody accounts for", examples)]


def _store_row(store: Mapping[str, Any]) -> dict[str, Any]:
    login = store.get("login_refused") or {}
    sessions = store.get("marked_sessions") or {}
    canaries = store.get("canaries") or {}
    changes = store.get("changes") or {}
    return {
        "store": store.get("name"),
        "kind": store.get("kind"),
        "result": "proven" if store.get("proven") else "not proven",
        "shadow login refused by production": _of(login.get("refused"), login.get("tried"), "tries"),
        "marked sessions on it": _of(sessions.get("on_shadow"), _sum(sessions), ""),
        "canaries found": _of(canaries.get("hits"), canaries.get("sent"), "sent"),
        "changes attributed": _of(changes.get("attributed"), changes.get("seen"), "")
        if changes.get("unit", MISSING)
        else "not seen",
    }


def _of(part: Any, whole: Any, unit: str) -> str:
    if part is None and whole is None:
        return MISSING
    if isinstance(part, bool) or isinstance(whole, bool):
        return "not tried" if whole is False else "yes" if part else "no"
    if not whole and unit == "tries":
        return "not tried"
    return f"{show(part)} of {show(whole)}" + (f" {unit}" if unit else "")


def _sum(sessions: Mapping[str, Any]) -> int | None:
    values = [sessions.get("on_shadow"), sessions.get("elsewhere")]
    return (
        sum(int(value) for value in values if value is not None)
        if any(v is not None for v in values)
        else None
    )


def _listed(title: str, lines: Iterable[str]) -> list[Markup]:
    items = Markup("").join(Markup("<li>{}</li>").format(line) for line in lines)
    return [Markup("<h3>{}</h3><ul>{}</ul>").format(title, items)] if items else []


def _tried(experiment: Mapping[str, Any]) -> str | None:
    """Say what an experiment delayed, None for no experiment."""
    if not experiment:
        return None
    most_ms = max((block["delay_ns"] for block in experiment["blocks"]), default=0) / NS_PER_MS
    played = f"{len(experiment['blocks'])} of {experiment['asked']} blocks"
    return f"{experiment['entity']}: marked calls only, up to {show(most_ms)} ms, {played}"


def _as_text(hole: Any) -> str:
    return (
        ", ".join(f"{key} {value}" for key, value in hole.items()) if isinstance(hole, Mapping) else str(hole)
    )
