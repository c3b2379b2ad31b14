"""Where the mark travelled, from spans written by hand."""

from __future__ import annotations

from perflab.shadow.journey import Stop, stops
from perflab.shadow.preflight import Hop

SERVICES = {"gateway", "order", "stock"}


def hop(span: int, parent: int, service: str, kind: str, **more: object) -> Hop:
    told = {"shadow": True, "peer": "", "name": f"{kind} {span}", "start_ns": span, **more}
    return Hop("t", span, parent, service, kind, **told)  # type: ignore[arg-type]  # a literal


def test_a_request_is_a_tree_of_places():
    """Children stand in order of time under who called them."""
    found = stops(
        [
            hop(4, 3, "stock", "server"),
            hop(1, 0, "gateway", "server"),
            hop(3, 1, "gateway", "client", peer="stock"),
            hop(2, 1, "gateway", "client", name="SELECT cart"),
        ],
        SERVICES,
    )
    assert found == {
        "t": Stop(
            "gateway", "server 1", "server", "carried",
            (
                Stop("gateway", "SELECT cart", "client", "carried"),
                Stop(
                    "gateway", "client 3", "client", "carried",
                    (Stop("stock", "server 4", "server", "carried"),),
                ),
            ),
        )
    }  # fmt: skip


def test_a_call_nobody_answered_is_where_the_mark_died():
    """Only a call to an attached service: others show no work by nature."""
    found = stops(
        [
            hop(1, 0, "gateway", "server"),
            hop(2, 1, "gateway", "client", peer="stock"),
            hop(3, 1, "gateway", "client", peer="bank"),
        ],
        SERVICES,
    )
    to_stock, to_bank = found["t"].children
    assert [child.state for child in to_stock.children] == ["died"]
    assert to_bank.children == ()


def test_work_without_the_mark_is_lost():
    """The server span is there, the mark is not."""
    assert stops([hop(1, 0, "gateway", "server", shadow=False)], SERVICES)["t"].state == "lost"


def test_a_failed_place_of_a_refusing_service_is_refused():
    """The innermost failed span is where it was refused; what fails above it only passes it on."""
    found = stops(
        [
            hop(1, 0, "gateway", "server", failed=True),
            hop(2, 1, "gateway", "client", peer="order", failed=True),
            hop(3, 2, "order", "server", failed=True),
            hop(4, 3, "order", "client", name="INSERT x", failed=True),
        ],
        SERVICES,
        {"order"},
    )
    call = found["t"].children[0]
    assert (found["t"].state, call.state, call.children[0].state) == ("carried", "carried", "carried")
    assert call.children[0].children[0].state == "refused"


def test_broken_traces_are_shown_all_the_same():
    """Orphans become roots side by side; spans that are each other's parents are not lost, and end."""
    found = stops([hop(1, 9, "gateway", "server"), hop(2, 8, "order", "server")], SERVICES)
    assert [stop.service for stop in found["t"].children] == ["gateway", "order"]
    circle = stops([hop(1, 2, "gateway", "server"), hop(2, 1, "order", "server")], SERVICES)["t"]
    assert {circle.service, *(stop.service for stop in circle.children)} == {"gateway", "order"}


def test_deep_traces_need_no_recursion():
    """Twenty thousand calls below each other."""
    found = stops([hop(n, n - 1, "gateway", "internal") for n in range(1, 20_001)], SERVICES)
    depth, stop = 1, found["t"]
    while stop.children:
        depth, stop = depth + 1, stop.children[0]
    assert depth == 20_000
