"""``scenario.toml`` -> `Scenario`: which requests are sent, how often, and what their answers must be."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from perflab.config import read_toml
from perflab.errors import ConfigError, TrafficError
from perflab.traffic.answer import Checks, Judge
from perflab.traffic.request import VARIABLES, Context, RequestTemplate
from perflab.units import NS_PER_MS, duration_ns

_BUILT_IN = frozenset(name.partition(":")[0] for name in VARIABLES)
_PROBE = "perflab-canary-probe"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a run must have kept to for the verdict *passed*; judged after it, stops nothing.

    Parameters
    ----------
    p50, p95, p99 : str, optional
        Human duration the percentile of the latency (due to last byte) may not exceed.
    errors : float, optional
        Share of offered requests that may fail, 0-1.
    """

    p50: str | None = None
    p95: str | None = None
    p99: str | None = None
    errors: float | None = None

    def __post_init__(self) -> None:
        try:
            self.limits()
        except ConfigError as error:
            raise ValueError(str(error)) from error
        if self.errors is not None and not 0 <= self.errors <= 1:
            raise ValueError(f"'errors' is a ratio between 0 and 1, not {self.errors}")

    def limits(self) -> dict[str, float]:
        """Return the limits as numbers.

        Returns
        -------
        dict of str to float
            Keys among ``p50_ms p95_ms p99_ms error_ratio``; what has no limit is left out.

        Examples
        --------
        >>> Thresholds(p99="1.5s", errors=0.01).limits()
        {'p99_ms': 1500.0, 'error_ratio': 0.01}
        """
        texts = {"p50_ms": self.p50, "p95_ms": self.p95, "p99_ms": self.p99}
        found = {name: duration_ns(text) / NS_PER_MS for name, text in texts.items() if text is not None}
        return found if self.errors is None else {**found, "error_ratio": self.errors}


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of request.

    Parameters
    ----------
    name : str
        What tables and reports call it.
    url : str
        Path relative to the target's first address, or absolute. Variables: `perflab.traffic.request`.
    method : str
        HTTP method.
    weight : float
        How often it is sent, relative to the others.
    headers : dict of str to str
        Headers, values with variables.
    json : dict or list, optional
        Body as JSON, texts with variables.
    body : str, optional
        Body as text with variables.
    checks : Checks
        What its answers must be.
    thresholds : Thresholds
        What the run must have kept to for this endpoint.
    capture : dict of str to str
        Name of a variable -> JSON path of its value in the answer.
    """

    name: str
    url: str
    method: str = "GET"
    weight: float = 1.0
    headers: dict[str, str] = {}
    json: dict[str, Any] | list[Any] | None = None
    body: str | None = None
    checks: Checks = Checks()
    thresholds: Thresholds = Thresholds()
    capture: dict[str, str] = {}

    def template(self) -> RequestTemplate:
        """Return its request, compiled.

        Raises
        ------
        TrafficError
            If the request is not well-formed; the message names the endpoint.
        """
        try:
            return RequestTemplate(self.method, self.url, self.headers, self.json, self.body)
        except TrafficError as error:
            raise TrafficError(f"endpoint {self.name!r}: {error}") from error

    def judge(self) -> Judge:
        """Return the judge of its answers.

        Raises
        ------
        TrafficError
            If a JSON path is not well-formed; the message names the endpoint.
        """
        try:
            return Judge(self.checks, self.capture)
        except TrafficError as error:
            raise TrafficError(f"endpoint {self.name!r}: {error}") from error


class ConstantArrivals(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="constant"
):
    """``rate`` requests a second for ``over``."""

    rate: float
    over: str


class RampArrivals(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="ramp"):
    """A rate that rises or falls evenly ``from`` one ``to`` another ``over`` a time."""

    start: float = msgspec.field(name="from")
    end: float = msgspec.field(name="to")
    over: str


class StepArrivals(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="steps"):
    """One rate after another, ``each`` for the same time."""

    rates: tuple[float, ...]
    each: str


class PoissonArrivals(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="poisson"
):
    """Independent arrivals, ``rate`` a second on average, for ``over``."""

    rate: float
    over: str
    seed: int = 0


ArrivalPlan = ConstantArrivals | RampArrivals | StepArrivals | PoissonArrivals


class Holes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Services the mark is lost at, named because a run over them was decided on.

    Parameters
    ----------
    accept : tuple of str
        The holes as preflight words them.
    """

    accept: tuple[str, ...] = ()


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The traffic of a run.

    Parameters
    ----------
    name : str
        What reports call it.
    endpoints : tuple of Endpoint
        At least one.
    thresholds : Thresholds
        What the run as a whole must have kept to.
    arrivals : ConstantArrivals or RampArrivals or StepArrivals or PoissonArrivals, optional
        When requests are due, unless ``launch`` is told otherwise.
    holes : Holes
        Gaps in the shadow that are accepted.
    seed : int
        Seed of the endpoints' order and of ``${random:...}``.

    Raises
    ------
    TrafficError
        If an endpoint is not well-formed; the message names it and says what was available.
    """

    name: str
    endpoints: tuple[Endpoint, ...]
    thresholds: Thresholds = Thresholds()
    arrivals: ArrivalPlan | None = None
    holes: Holes = Holes()
    seed: int = 1

    def __post_init__(self) -> None:
        _check_weights(self.endpoints)
        needs = {endpoint.name: endpoint.template().captured for endpoint in self.endpoints}
        for endpoint in self.endpoints:
            endpoint.judge()
        _check_captures(self.endpoints, needs)
        self.order()

    @classmethod
    def load(cls, path: str | Path) -> Scenario:
        """Read ``scenario.toml``.

        Raises
        ------
        TrafficError
            If it cannot be read or used as written; the message says file, endpoint and what is there.
        """
        try:
            return read_toml(Path(path), cls)
        except ConfigError as error:
            raise TrafficError(str(error)) from error
        except TrafficError as error:
            raise TrafficError(f"{path}: {error}") from error

    def sequence(self, count: int, seed: int | None = None) -> np.ndarray:
        """Choose the endpoint of every arrival, by weight, up front.

        Parameters
        ----------
        count : int
            Number of arrivals.
        seed : int, optional
            Instead of the scenario's own.

        Returns
        -------
        numpy.ndarray of int16, shape (count,)
            Positions in `endpoints`; the same for the same seed and weights.
        """
        weights = np.array([endpoint.weight for endpoint in self.endpoints])
        edges = np.cumsum(weights) / weights.sum()
        drawn = np.random.default_rng(self.seed if seed is None else seed).random(count)
        chosen: np.ndarray = np.searchsorted(edges[:-1], drawn, side="right").astype(np.int16)
        return chosen

    def producers(self) -> dict[str, tuple[int, ...]]:
        """Return, for every captured name, the positions of the endpoints that capture it."""
        found: dict[str, tuple[int, ...]] = {}
        for at, endpoint in enumerate(self.endpoints):
            for name in endpoint.capture:
                found[name] = (*found.get(name, ()), at)
        return found

    def canary_carriers(self) -> frozenset[str]:
        """Return the names of the endpoints whose requests carry a canary (``${canary}``)."""
        probe = Context(canary=_PROBE, captured=defaultdict(str))
        carriers = []
        for endpoint in self.endpoints:
            request = endpoint.template().build(probe)
            written = (request.path, request.body, *(value for _, value in request.headers))
            if any(_PROBE.encode() in part for part in written):
                carriers.append(endpoint.name)
        return frozenset(carriers)

    def order(self) -> tuple[int, ...]:
        """Return the positions of all endpoints so that each finds captured what it needs.

        Raises
        ------
        TrafficError
            If there is no such order; the message names the endpoints that wait for each other.
        """
        needs = [endpoint.template().captured for endpoint in self.endpoints]
        waiting = list(range(len(needs)))
        placed: list[int] = []
        there: set[str] = set()
        while waiting:
            ready = [at for at in waiting if needs[at] <= there]
            if not ready:
                stuck = ", ".join(
                    f"{self.endpoints[at].name!r} needs {', '.join(sorted(needs[at] - there))}"
                    for at in waiting
                )
                raise TrafficError(f"endpoints wait for each other's captured values: {stuck}")
            placed.extend(ready)
            waiting = [at for at in waiting if at not in ready]
            there.update(name for at in ready for name in self.endpoints[at].capture)
        return tuple(placed)


def _check_weights(endpoints: tuple[Endpoint, ...]) -> None:
    if not endpoints:
        raise TrafficError("there is no endpoint; describe at least one under [[endpoints]]")
    names = [endpoint.name for endpoint in endpoints]
    for endpoint in endpoints:
        if not endpoint.name.strip():
            raise TrafficError(f"the endpoint with url {endpoint.url!r} has no name")
        if names.count(endpoint.name) > 1:
            raise TrafficError(f"endpoint {endpoint.name!r} is described twice; names must differ: {names}")
        if not (math.isfinite(endpoint.weight) and endpoint.weight > 0):
            raise TrafficError(
                f"endpoint {endpoint.name!r}: weight {endpoint.weight} sends nothing; "
                "use a number above 0 or leave the endpoint out"
            )


def _check_captures(endpoints: tuple[Endpoint, ...], needs: dict[str, frozenset[str]]) -> None:
    captured = {name for endpoint in endpoints for name in endpoint.capture}
    for endpoint in endpoints:
        own = sorted(set(endpoint.capture) & _BUILT_IN)
        if own:
            raise TrafficError(
                f"endpoint {endpoint.name!r}: capture {own[0]!r} is the name of a variable there is"
            )
        bad = [name for name in endpoint.capture if not name.isidentifier() or not name.isascii()]
        if bad:
            raise TrafficError(
                f"endpoint {endpoint.name!r}: capture {bad[0]!r} is not a name; use letters and _"
            )
        unknown = sorted(needs[endpoint.name] - captured)
        if unknown:
            known = ", ".join(f"${{{name}}}" for name in [*VARIABLES, *sorted(captured)])
            raise TrafficError(
                f"endpoint {endpoint.name!r}: ${{{unknown[0]}}} is neither a variable nor captured "
                f"by any endpoint; there are {known}"
            )
