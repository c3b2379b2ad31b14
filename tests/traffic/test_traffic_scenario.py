"""Scenarios from files."""

from __future__ import annotations

import numpy as np
import pytest

from perflab.errors import TrafficError
from perflab.traffic.answer import Checks
from perflab.traffic.scenario import Endpoint, RampArrivals, Scenario, Thresholds

WHOLE = """
name = "checkout"
seed = 3

[thresholds]
p99 = "800ms"
errors = 0.01

[arrivals]
kind = "ramp"
from = 2
to = 40
over = "20s"

[holes]
accept = ["mail: not attached"]

[[endpoints]]
name = "pay"
method = "POST"
url = "/orders/${order_id}/pay"
weight = 1
json = { note = "${canary}" }

[[endpoints]]
name = "order"
method = "POST"
url = "/orders"
weight = 3
headers = { x-user = "u${random:1:500}" }
json = { product = "${random:1:9}" }
capture = { order_id = "$.id" }
[endpoints.checks]
status = [201]
json = [{ path = "$.id", exists = true }, { path = "$.state", equals = "new" }]
contains = ["id"]
max_ms = 1500
[endpoints.thresholds]
p95 = "500ms"
"""


def load(tmp_path, text):
    path = tmp_path / "scenario.toml"
    path.write_text(text, encoding="utf-8")
    return Scenario.load(path)


def test_a_whole_scenario_is_read(tmp_path):
    """Every key of the file arrives where it belongs."""
    # Given a file with every key, When it is read
    scenario = load(tmp_path, WHOLE)
    # Then it is all there
    assert scenario.name == "checkout"
    assert scenario.thresholds.limits() == {"p99_ms": 800.0, "error_ratio": 0.01}
    assert scenario.arrivals == RampArrivals(2, 40, "20s")
    assert scenario.holes.accept == ("mail: not attached",)
    pay, order = scenario.endpoints
    assert (pay.method, pay.checks) == ("POST", Checks())
    assert order.checks.status == (201,)
    assert order.checks.json[1].equals == "new"
    assert order.thresholds == Thresholds(p95="500ms")
    # and the endpoint that captures comes before the one that needs
    assert scenario.order() == (1, 0)
    assert scenario.producers() == {"order_id": (1,)}


def test_endpoints_are_drawn_by_weight_and_seed():
    """The sequence follows the weights and repeats with the seed."""
    scenario = Scenario("s", tuple(Endpoint(name, "/", weight=w) for name, w in [("a", 1), ("b", 3)]))
    first = scenario.sequence(10_000)
    assert np.array_equal(first, scenario.sequence(10_000))
    assert not np.array_equal(first, scenario.sequence(10_000, seed=2))
    # a binomial share of 3/4 over 10,000 lies within 5 standard deviations (5 * 0.0043)
    assert abs(first.mean() - 0.75) < 0.022


def endpoint(more, name="a"):
    return f'[[endpoints]]\nname = "{name}"\n{more}\n'


@pytest.mark.parametrize(
    ("endpoints", "match"),
    [
        ("endpoints = []", "no endpoint"),
        (endpoint('url = "/"\nweight = 0'), "'a': weight 0.0 sends nothing"),
        (endpoint('url = "/"\nweight = nan'), "weight nan"),
        (endpoint('url = "/"') * 2, "'a' is described twice"),
        (endpoint('url = "/${oder}"'), r"'a': \$\{oder\} is neither.*there are .*\$\{canary\}"),
        (endpoint('url = "/"\njson = {}\nbody = "x"'), "'a': both 'json' and 'body'"),
        (endpoint('url = "/"\ncapture = { seq = "$.id" }'), "'seq' is the name of a variable"),
        (endpoint('url = "/"\ncapture = { "a-b" = "$.id" }'), "'a-b' is not a name"),
        (endpoint('url = "/"\ncapture = { x = "id" }'), "'a': 'id' is not a JSON path"),
        (endpoint('url = "/"\n[endpoints.checks]\nstatos = [2]'), r"statos.*endpoints\[0\].checks"),
        (endpoint('url = "/"\n[endpoints.thresholds]\np99 = "fast"'), "'fast' is not a duration"),
        (endpoint('url = "/"\n[endpoints.thresholds]\nerrors = 5'), "ratio between 0 and 1"),
        (endpoint('url = "/"\nspeed = 3'), "unknown field `speed`"),
        (
            endpoint('url = "/${y}"\ncapture = { x = "$.x" }')
            + endpoint('url = "/${x}"\ncapture = { y = "$.y" }', "b"),
            "'a' needs y, 'b' needs x",
        ),
    ],
)
def test_mistakes_are_named_with_file_and_endpoint(tmp_path, endpoints, match):
    """The message leads to the place in the file."""
    with pytest.raises(TrafficError, match=match) as caught:
        load(tmp_path, 'name = "s"\n' + endpoints)
    assert "scenario.toml" in str(caught.value)


def test_unreadable_files_are_named(tmp_path):
    """No file and no TOML are told apart."""
    with pytest.raises(TrafficError, match="No such file"):
        Scenario.load(tmp_path / "none.toml")
    with pytest.raises(TrafficError, match="not valid TOML"):
        load(tmp_path, "name = ")


def test_only_endpoints_that_write_a_canary_carry_one():
    """A canary in path, header or body counts; its literal text does not."""
    # Given one endpoint for each place, and two without
    endpoints = (
        Endpoint(name="path", url="/a?q=${canary}"),
        Endpoint(name="header", url="/", headers={"x-note": "${canary}"}),
        Endpoint(name="json", url="/", method="POST", json={"note": ["c: ${canary}"], "id": "${id}"}),
        Endpoint(name="body", url="/", method="POST", body="${canary}"),
        Endpoint(name="none", url="/", capture={"id": "$.id"}),
        Endpoint(name="literal", url="/", method="POST", body="$${canary}"),
    )
    # When they are asked for, then those that write it are named
    carriers = Scenario(name="s", endpoints=endpoints).canary_carriers()
    assert carriers == {"path", "header", "json", "body"}
