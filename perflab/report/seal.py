"""Whether a run's proof is as it was signed, seen from the report: checked when the report is made."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from markupsafe import Markup

from perflab.shadow.audit.signature import Checked, check, fingerprint
from perflab.units import NS_PER_S

if TYPE_CHECKING:
    from perflab.run import Run

ALTERED = "The proof was altered after it was signed."


def sealed(run: Run) -> Checked:
    """Check the run's signature, without its spans, which may be large; 'perflab shadow verify' reads all."""
    return check(run.path, spans=False)


def seal(run: Run) -> Markup:
    """Say who signed the proof, when, and whether it is still what was signed."""
    found = sealed(run)
    if not found.signed:
        said = "This proof is not signed, so nobody can tell whether it was altered."
        return Markup('<div class="note"><p>{}</p></div>').format(said)
    if found.altered:
        items = Markup("").join(Markup("<li>{}</li>").format(line) for line in found.altered)
        return Markup('<div class="alarm"><h3>Altered since it was signed</h3><ul>{}</ul>{}</div>').format(
            items, _signed(found)
        )
    return Markup('<div class="note"><p>{}</p>{}</div>').format(
        "Signed, and unaltered when this report was made.", _signed(found)
    )


def _signed(found: Checked) -> Markup:
    if not found.public_key:
        return Markup("")
    return Markup(
        "<p>Signed on {} with the key <code>{}</code>. That this is your key is told by comparing it, or by"
        " <code>perflab shadow verify --target NAME</code>.</p>"
    ).format(_moment(found.signed_ns), fingerprint(found.public_key))


def _moment(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / NS_PER_S, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
