"""What the preflight met before the load: services, stores, notices, as the run keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from perflab.report.cards import table

if TYPE_CHECKING:
    from perflab.run import Run


def met(run: Run) -> Markup:
    """Show every service and store the mark met before load was sent; nothing where no preflight was made."""
    found = run.preflight
    if not found:
        return Markup("")
    stores = [
        {
            "store or peer": row.get("store"),
            "state": row.get("state"),
            "accesses": row.get("calls"),
            "service": row.get("service"),
            "why": row.get("why"),
        }
        for row in found.get("stores") or []
    ]
    services = [
        {
            "service": row.get("service"),
            "agent": row.get("agent") or "none",
            "hooked": ", ".join(
                f"{name} {hook.get('version', '')}".strip()
                for name, hook in sorted((row.get("hooks") or {}).items())
                if hook.get("state") == "on"
            ),
            "not hooked": ", ".join(
                f"{name} is {hook.get('state')}"
                for name, hook in sorted((row.get("hooks") or {}).items())
                if hook.get("state") != "on"
            ),
            "not covered": ", ".join(row.get("uncovered") or []),
        }
        for row in found.get("services") or []
    ]
    parts = [Markup("<h3>What one marked request per endpoint met</h3>"), table(stores).html]
    parts += [Markup("<h3>Services and what is hooked in them</h3>"), table(services).html]
    notices = found.get("notices") or []
    if notices:
        items = Markup("").join(Markup("<li>{}</li>").format(notice) for notice in notices)
        parts.append(Markup("<ul>{}</ul>").format(items))
    return Markup("").join(parts)
