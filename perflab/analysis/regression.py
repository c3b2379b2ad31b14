"""What got slower against a baseline, ranked by what it costs an average request.

Entry operations are compared one by one and weighed by how often they occur now, so that a change of mix is
no regression. An entity regressed if the time it adds is more than chance (Benjamini-Hochberg over all rows
of `perflab.analysis.difference`: at most 5 % of those called so are expected to be false), more than makes a
difference in practice, and more than what everything else drifted: two runs on one machine are never quite
alike, and a few per cent on every entity are the machine's, not an entity's. How much that is, the entities
themselves tell: by the median of their ratios and how those scatter about it.

Where calls run side by side, the critical path may move from one to another and back without any request
being slower for it. So nothing regressed in an entry operation whose requests as a whole did not get slower,
by more than chance and by 5 %; and an entity adds at most what its requests are longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

DRIFT_SPREADS = 4.0
"""How many spreads beyond the median ratio are still drift."""

_SCALE = 1.4826  # of a median absolute deviation, for it to be the standard deviation of normal values
_MIN_COMPARED = 5


@dataclass(frozen=True)
class Drift:
    """By how much everything is slower than in the baseline.

    Attributes
    ----------
    median_ratio : float
        The middle of the ratios of exclusive time per request, after over before.
    most_ratio : float
        A ratio that is still drift.
    """

    median_ratio: float
    most_ratio: float

    @classmethod
    def of(cls, differences: pd.DataFrame) -> Drift:
        """Tell drift from the rows of `perflab.analysis.difference.compare_paths`.

        Rows count by the time they had, so that the many that take next to none do not hide what the others
        do. With fewer than five of them there is no telling: then nothing is drift.
        """
        both = differences[(differences["before_ms"] > 0) & (differences["after_ms"] > 0)]
        if len(both) < _MIN_COMPARED:
            return cls(1.0, 1.0)
        ratio = np.log((both["after_ms"] / both["before_ms"]).to_numpy())
        weight = np.sqrt(both["before_ms"].to_numpy())
        middle = weighted_median(ratio, weight)
        spread = _SCALE * weighted_median(np.abs(ratio - middle), weight)
        return cls(float(np.exp(middle)), float(np.exp(max(0.0, middle) + DRIFT_SPREADS * spread)))


def weighted_median(values: Floats, weights: Floats) -> float:
    """Return the value at which half of the weight is reached.

    Examples
    --------
    >>> weighted_median(np.array([1.0, 2.0, 9.0]), np.array([1.0, 1.0, 1.0]))
    2.0
    >>> weighted_median(np.array([1.0, 2.0, 9.0]), np.array([1.0, 1.0, 5.0]))
    9.0
    """
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][int(np.searchsorted(reached, reached[-1] / 2))])


def find_regressions(differences: pd.DataFrame, requests: Mapping[str, int]) -> pd.DataFrame:
    """Sum up per entity what it adds to an average request, and tell whether that is a regression.

    Parameters
    ----------
    differences : pandas.DataFrame
        Of `perflab.analysis.difference.compare_paths`, also of entry operations with few requests.
    requests : mapping of str to int
        Requests of each entry operation now.

    Returns
    -------
    pandas.DataFrame
        One row per entity: ``entity added_ms low_ms high_ms regressed evidence``. ``added_ms`` is the sum of
        its ``delta_ms`` (at most ``request_delta_ms``) over the entry operations, each weighed by its part
        of ``requests``; the interval's half widths add up as independent errors do (NaN where one is
        unknown, for want of requests). ``evidence`` is of the entry operation where it adds most in all.
    """
    columns = ["entity", "added_ms", "low_ms", "high_ms", "regressed", "evidence"]
    if differences.empty:
        return pd.DataFrame({name: pd.Series(dtype="object") for name in columns})
    drift = Drift.of(differences[differences["p_value"].notna()])
    differences = differences[differences["delta_ms"].notna()]
    total = max(1, sum(requests.values()))
    weight = np.array([requests.get(entry, 0) / total for entry in differences["entry"]])
    most = np.maximum(differences["request_delta_ms"].to_numpy(), 0.0)
    delta = np.minimum(differences["delta_ms"].to_numpy(), most)
    table = pd.DataFrame(
        {
            "entity": differences["entity"],
            "added_ms": weight * delta,
            "below": (weight * (differences["delta_ms"] - differences["low_ms"]).to_numpy()) ** 2,
            "above": (weight * (differences["high_ms"] - differences["delta_ms"]).to_numpy()) ** 2,
            "regressed": _has_regressed(differences, drift),
            "entry": differences["entry"],
            "evidence": differences["evidence"],
        }
    )
    by_entity = table.groupby("entity", sort=True)
    found = by_entity[["added_ms", "below", "above"]].sum()
    found["regressed"] = by_entity["regressed"].any() & (found["added_ms"] > 0)
    is_few = by_entity["below"].agg(lambda widths: widths.isna().any())
    found["low_ms"] = (found["added_ms"] - np.sqrt(found.pop("below"))).mask(is_few)
    found["high_ms"] = (found["added_ms"] + np.sqrt(found.pop("above"))).mask(is_few)
    most = (
        table.sort_values("added_ms", ascending=False, kind="stable")
        .drop_duplicates("entity")
        .set_index("entity")
    )
    found["evidence"] = "of " + most["entry"].map(repr) + " " + most["evidence"]
    return found.reset_index()[columns]


def _has_regressed(differences: pd.DataFrame, drift: Drift) -> Mask:
    """Return per row whether it is slower by more than chance, than matters, and than everything else."""
    before, after = differences["before_ms"].to_numpy(), differences["after_ms"].to_numpy()
    beyond = after - before * drift.most_ratio
    is_slower = (differences["request_low_ms"] > 0) & (
        differences["request_delta_ms"] >= differences["request_margin_ms"]
    )
    regressed: Mask = (
        is_slower.to_numpy()
        & differences["differs"].to_numpy()
        & (differences["low_ms"].to_numpy() > 0)
        & (beyond >= differences["margin_ms"].to_numpy())
    )
    return regressed


def rank_by_regression(table: pd.DataFrame, regressions: pd.DataFrame) -> pd.DataFrame:
    """Put what got slower first.

    Parameters
    ----------
    table : pandas.DataFrame
        A ranking of `perflab.analysis.ranking.rank`.
    regressions : pandas.DataFrame
        Of `find_regressions`, over the same requests.

    Returns
    -------
    pandas.DataFrame
        The rows of ``table``: those that regressed before the others, both by what they add. ``gain_ms
        low_ms high_ms`` are what an average request would save if the entity were as in the baseline, with
        its 95 % interval; NaN where it was in no entry operation that could be compared. ``stands_out`` says
        whether it regressed, and ``change`` how. Entities that only the baseline has are not here.
    """
    of_entity = regressions.set_index("entity").reindex(table["entity"])
    regressed = of_entity["regressed"].fillna(False).to_numpy(dtype=bool)
    ranked = table.assign(
        gain_ms=of_entity["added_ms"].to_numpy(dtype=np.float64),
        low_ms=of_entity["low_ms"].to_numpy(dtype=np.float64),
        high_ms=of_entity["high_ms"].to_numpy(dtype=np.float64),
        stands_out=regressed,
        change=of_entity["evidence"].fillna("in nothing that could be compared").to_numpy(),
    )
    return _renumbered(
        ranked, np.lexsort((-ranked["exclusive_ns"], -ranked["gain_ms"].fillna(-np.inf), ~regressed))
    )


def put_first(table: pd.DataFrame, entity: str) -> pd.DataFrame:
    """Return a ranking with one entity ahead of the others."""
    return _renumbered(table, np.argsort((table["entity"] != entity).to_numpy(), kind="stable"))


def _renumbered(table: pd.DataFrame, order: npt.NDArray[np.int64]) -> pd.DataFrame:
    table = table.iloc[order].reset_index(drop=True)
    table["rank"] = np.arange(1, len(table) + 1)
    return table
