"""What the cells of a template say with: banner, finding, cards, tables. Plain data in, escaped HTML out.

Nothing here computes a statistic. Every key of ``run.json`` may be missing, because a run that failed early
wrote few of them; what is missing is said to be missing. Markup comes only from the `Markup` literals of
this file: whatever is put into them is escaped on the way.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pandas as pd
from markupsafe import Markup

from perflab.report.seal import ALTERED, sealed
from perflab.units import NS_PER_S

if TYPE_CHECKING:
    from perflab.run import Run

MISSING = "—"

_VERDICTS: Mapping[str, tuple[str, str]] = {
    "passed": ("Passed", "Every threshold held and no guard tripped."),
    "failed": ("Failed", "A threshold of the scenario was not met."),
    "stopped": ("Stopped", "A guard ended the run to spare the real users."),
    "refused": ("Refused", "The run was not started."),
    "leaked": ("Leaked", "Marked work reached production."),
    "unfinished": ("Unfinished", "The run ended before it could give a verdict."),
}
_UNITS = ("_per_s", "_bytes", "_ratio", "_ms", "_ns", "_s")
_ACRONYMS = {"n": "n", "id": "id", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p99.9"}


@dataclass(frozen=True)
class Html:
    """A piece of a page, escaped, that a notebook shows as it is.

    Attributes
    ----------
    html : markupsafe.Markup
        The piece.
    """

    html: Markup

    def _repr_html_(self) -> str:
        return str(self.html)

    def __repr__(self) -> str:
        return f"Html({self.html.striptags()!r})"


def banner(run: Run, title: str = "Load test") -> Html:
    """Say how the run ended: the first thing on the page.

    Parameters
    ----------
    run : Run
        The run; ``run.json`` needs no key at all.
    title : str
        What kind of report this is.
    """
    info = run.info
    verdict = str(info.get("verdict") or "unfinished")
    word, meaning = _VERDICTS.get(verdict, (verdict.capitalize(), ""))
    shown = verdict if verdict in _VERDICTS else "unfinished"
    shown = "leaked" if sealed(run).altered else shown  # in red: what is altered is not believed
    reason = str(info.get("reason") or meaning)
    about = [
        title,
        *(str(info[key]) for key in ("scenario", "target") if info.get(key)),
        when(info),
        run.run_id,
    ]
    return Html(
        Markup(
            '<header class="banner is-{shown}"><p class="about">{about}</p>'
            '<h1><span class="mark"></span>{word}</h1><p class="reason">{reason} {safe}</p></header>'
        ).format(
            shown=shown,
            about=Markup(" · ").join(Markup("<span>{}</span>").format(part) for part in about if part),
            word=word,
            reason=reason,
            safe=_safe(run, reason),
        )
    )


def finding(bottlenecks: Any) -> Html:
    """Name the bottleneck, with its evidence and what mending it would buy; or say why none is named.

    Parameters
    ----------
    bottlenecks : Bottlenecks
        What `perflab.bottlenecks` returned.
    """
    first = bottlenecks.first
    if not first:
        answer = str(bottlenecks.answer)
        return Html(
            Markup(
                '<section class="finding"><p class="eyebrow">Bottleneck</p><p class="entity">{}</p>'
                '<p class="evidence">{}</p></section>'
            ).format(answer[:1].upper() + answer[1:], bottlenecks.sentence)
        )
    gain, low, high = (milliseconds(first.get(key)) for key in ("gain_ms", "low_ms", "high_ms"))
    facts = [
        ("of the time requests wait", show(first.get("share_ratio"), "share_ratio")),
        (f"gained per request by mending it ({low} to {high})", gain),
    ]
    parts = Markup("").join(
        Markup("<div><b>{}</b><span>{}</span></div>").format(value, label) for label, value in facts
    )
    advice = Markup('<p class="advice">{}</p>').format(first["advice"]) if first.get("advice") else ""
    return Html(
        Markup(
            '<section class="finding is-named"><p class="eyebrow">Bottleneck</p>'
            '<p class="entity">{}</p><div class="facts">{}</div><p class="evidence">{}</p>{}</section>'
        ).format(first["entity"], parts, first.get("evidence") or bottlenecks.sentence, advice)
    )


def tried(causal: Any) -> Html:
    """Say what an experiment within the run found.

    Parameters
    ----------
    causal : Causal
        What `perflab.fit_experiment` returned.
    """
    held = "latencies of this run hold these delays, the ranking is of requests without"
    if not causal.counts.get("undelayed"):
        held = "the times of this run hold these delays"
    return Html(
        Markup(
            '<section class="finding"><p class="eyebrow">By experiment</p><p class="entity">{}</p>'
            '<p class="evidence">{}</p><p class="advice">Its marked calls were delayed by turns: {}.</p>'
            "</section>"
        ).format(causal.verdict[:1].upper() + causal.verdict[1:], causal.sentence, held)
    )


def summary(run: Run, latency: Any = None) -> Html:
    """Show what was sent, how fast it was, what is proven, and how the real users fared: four cards.

    Parameters
    ----------
    run : Run
        The run.
    latency : Latency, optional
        Its ``overall``: ``p50_ms p99_ms`` over all endpoints, ``*_censored`` where that is a lower bound.
    """
    info, isolation = run.info, run.isolation
    overall = [] if latency is None else latency.overall.to_dict("records")
    cards = [
        _requests_card(info),
        _latency_card(overall[0] if overall else {}),
        _isolation_card(isolation, altered=bool(sealed(run).altered)),
        _users_card(info),
    ]
    return Html(Markup('<section class="cards">{}</section>').format(Markup("").join(cards)))


def note(text: str, *more: str) -> Html:
    """Show a sentence that explains, or says why something is not there."""
    lines = Markup("").join(Markup("<p>{}</p>").format(line) for line in (text, *more) if line)
    return Html(Markup('<div class="note">{}</div>').format(lines))


def table(
    rows: pd.DataFrame | Sequence[Mapping[str, Any]],
    columns: Sequence[str] = (),
    most: int = 20,
    empty: str = "Nothing to show.",
) -> Html:
    """Show a table, its numbers written by the unit their column's name ends in.

    Where there is a column ``p99_censored`` that is true, ``p99_ms`` is a lower bound and written ``≥``.

    Parameters
    ----------
    rows : pandas.DataFrame or sequence of mappings
        One per row.
    columns : sequence of str
        Which, in this order; those that are not there are passed over. Left out: all.
    most : int
        Rows shown; how many more there are is said below.
    empty : str
        What to say where there is no row.
    """
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if frame.empty:
        return note(empty)
    names = [name for name in columns if name in frame.columns] or [str(name) for name in frame.columns]
    records = frame.head(most).to_dict("records")
    is_number = {name: all(_is_number(record[name]) for record in records) for name in names}
    head = Markup("").join(
        Markup('<th scope="col"{}>{}</th>').format(_aside(is_number[name]), heading(name)) for name in names
    )
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                Markup("<td{}>{}</td>").format(_aside(is_number[name]), _cell(record, name)) for name in names
            )
        )
        for record in records
    )
    below = f"{len(frame) - most} more rows are not shown." if len(frame) > most else ""
    return Html(
        Markup(
            '<div class="table" tabindex="0"><table><thead><tr>{}</tr></thead>'
            "<tbody>{}</tbody></table></div>{}"
        ).format(head, body, Markup('<p class="below">{}</p>').format(below) if below else "")
    )


def counts(values: Mapping[str, Any], title: str = "") -> Html:
    """Show named numbers in a dense list: parameters, and what was counted, dropped or repaired."""
    items = Markup("").join(
        Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(heading(name), show(value, name))
        for name, value in values.items()
    )
    lead = Markup("<h3>{}</h3>").format(title) if title else ""
    return Html(Markup('<section class="counts">{}<dl>{}</dl></section>').format(lead, items))


def heading(name: str) -> str:
    """Turn a column's name into words and its unit.

    Examples
    --------
    >>> heading("p99_ms"), heading("error_ratio"), heading("offered_per_s"), heading("real_traces_left_out")
    ('p99, ms', 'error share', 'offered per s', 'real traces left out')
    """
    text, unit = str(name), ""
    for suffix in _UNITS:
        if text.endswith(suffix) and len(text) > len(suffix):
            text = text.removesuffix(suffix)
            unit = {"_ratio": " share", "_per_s": " per s"}.get(suffix, f", {suffix[1:]}")
            break
    if text in ("ratio", "share"):
        return "share"
    return " ".join(_ACRONYMS.get(word, word) for word in text.split("_")) + unit


def show(value: Any, name: str = "") -> str:
    """Write one value by the unit its name ends in; ``—`` for what is missing.

    Examples
    --------
    >>> show(12.3456, "p50_ms"), show(0.0123, "error_ratio"), show(None), show(True), show(12345)
    ('12.3', '1.2 %', '—', 'yes', '12,345')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NaT:
        return MISSING
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(show(item) for item in value) or MISSING
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {show(item)}" for key, item in value.items()) or MISSING
    if not _is_number(value):
        return str(value)
    if name.endswith("_ratio") or name == "ratio":
        percent = 100 * float(value)
        return f"{percent:.0f} %" if abs(percent) >= 9.95 or percent == 0 else f"{percent:.2g} %"
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}"
    size = abs(float(value))
    return f"{value:,.0f}" if size >= 100 else f"{value:.3g}"


def milliseconds(value: Any) -> str:
    """Write milliseconds with their unit, ``—`` for none."""
    return f"{show(value, 'x_ms')} ms" if _is_number(value) and not math.isnan(float(value)) else MISSING


def when(info: Mapping[str, Any]) -> str:
    """Return when a run took place, in UTC, or ""."""
    moments = [
        datetime.fromtimestamp(info[key] / NS_PER_S, UTC)
        for key in ("started_ns", "ended_ns")
        if _is_number(info.get(key))
    ]
    if not moments:
        return ""
    text = moments[0].strftime("%Y-%m-%d %H:%M:%S")
    if len(moments) == 2:
        same_day = moments[0].date() == moments[1].date()
        text += " to " + moments[1].strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S")
    return text + " UTC"


def _cell(record: Mapping[str, Any], name: str) -> str:
    is_bound = bool(record.get(f"{name.removesuffix('_ms')}_censored", False))
    return ("≥ " if is_bound else "") + show(record[name], name)


def _card(title: str, value: str, unit: str, lines: Sequence[str], state: str = "") -> Markup:
    return Markup(
        '<div class="card{}"><h2>{}</h2><p class="value">{}<small>{}</small></p><ul>{}</ul></div>'
    ).format(
        f" is-{state}" if state else "",
        title,
        value,
        unit,
        Markup("").join(Markup("<li>{}</li>").format(line) for line in lines if line),
    )


def _requests_card(info: Mapping[str, Any]) -> Markup:
    requests = info.get("requests") or {}
    lines = [
        f"late {show(requests.get('late'))}, missed {show(requests.get('missed'))}",
        f"errors {show(requests.get('errors'))}",
    ]
    return _card(
        "Requests sent",
        show(requests.get("sent")),
        f" of {show(requests.get('offered'))} offered",
        lines if requests else ["no request was recorded"],
    )


def _latency_card(overall: Mapping[str, Any]) -> Markup:
    def bound(key: str) -> str:
        return ("≥ " if overall.get(f"{key}_censored") else "") + show(overall.get(f"{key}_ms"), "x_ms")

    lines = ["measured from when each request was due" if overall else "no latency was measured"]
    if overall.get("p50_ms") is not None:
        lines.insert(0, f"median {bound('p50')} ms")
    return _card("Latency, p99", bound("p99"), " ms", lines)


def _isolation_sentence(isolation: Mapping[str, Any]) -> str:
    stores = isolation.get("stores") or []
    seen, proven = isolation.get("seen", len(stores)), isolation.get("proven", 0)
    leaks = len(isolation.get("leaks") or [])
    if leaks:
        return f"{leaks} leaks into production were found."
    if not seen:
        return "Isolation is not proven."
    if proven == seen:
        return (
            "Isolation is proven for its one store."
            if seen == 1
            else f"Isolation is proven for all {seen} stores."
        )
    return f"Isolation is proven for only {show(proven)} of {show(seen)} stores."


def _safe(run: Run, reason: str) -> str:
    """Say whether isolation is proven, unless the reason does; a proof that was altered says nothing."""
    if sealed(run).altered:
        return ALTERED
    return "" if "isolation is proven" in reason.lower() else _isolation_sentence(run.isolation)


def _isolation_card(isolation: Mapping[str, Any], *, altered: bool = False) -> Markup:
    stores = isolation.get("stores") or []
    seen = isolation.get("seen", len(stores))
    proven = isolation.get("proven", sum(bool(store.get("proven")) for store in stores))
    leaks = len(isolation.get("leaks") or [])
    if not isolation:
        return _card("Isolation", "not proven", "", ["no proof was made in this run"], "watch")
    if altered:
        return _card("Isolation", "altered", "", [ALTERED], "bad")
    state = "bad" if leaks else "good" if seen and proven == seen else "watch"
    lines = [f"leaks {leaks}", "" if proven == seen else "what is not proven is listed below"]
    return _card("Isolation", f"{show(proven)} of {show(seen)}", " stores proven", lines, state)


def _users_card(info: Mapping[str, Any]) -> Markup:
    users = info.get("real_users") or {}
    before, during = users.get("before") or {}, users.get("during") or {}
    if not during:
        return _card("Real users", MISSING, "", ["they were not measured in this run"], "watch")
    errors = [show(phase.get("error_ratio"), "x_ratio") for phase in (before, during)]
    lines = [f"before the run {milliseconds(before.get('p99_ms'))}", f"errors {errors[0]}, then {errors[1]}"]
    return _card("Real users, p99 during", show(during.get("p99_ms"), "x_ms"), " ms", lines)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _aside(is_number: bool) -> Markup:
    return Markup(' class="number"') if is_number else Markup("")
