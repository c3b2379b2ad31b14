"""An experiment within a run: one entity is made to wait, for marked work only, in blocks drawn by lot.

Each round holds every delay once, none included, in an order drawn by lot, and the next round has them the
other way round: what drifts (caches that fill, a busy hour) is then the same for all delays. A block begins
with a time in which the delay reaches every process and requests of the block before end; only what is due
after that counts, and the delay stays for a while when no more counts, so that those requests meet it still.
`fit_experiment` reads the answer, `undelayed_spans` what the run was like without delays.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from perflab.errors import AnalysisError, ConfigError
from perflab.units import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    import pandas as pd

    from perflab.analysis.causal import Causal
    from perflab.run import Run

LONGEST_DELAY_NS = 5_000_000_000
MIN_SETTLES_S = 0.8
"""Attached processes look for delays twice a second; the rest is for requests under way."""

_BEGINS_AFTER_S = 1.0
_ENDS_BEFORE_S = 1.0
_STAYS_RATIO = 0.5


@dataclass(frozen=True)
class Experiment:
    """What is delayed, by how much, and for how long.

    Parameters
    ----------
    entity : str
        As every table prints it: ``service: operation`` or ``caller -> callee``.
    delays_ns : sequence of int
        The delays of one call, above 0; no delay is always among the blocks, too.
    rounds : int
        How often each delay has its turn; at least 4, for an interval.
    block_s : float
        How long a block is measured.
    settles_s : float
        How long before that it is only waited; half of it the delay stays afterwards.
    seed : int
        Of the orders.

    Raises
    ------
    ConfigError
        If it could tell nothing, or would hold a call up for more than 5 s.
    """

    entity: str
    delays_ns: Sequence[int]
    rounds: int = 6
    block_s: float = 2.0
    settles_s: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.delays_ns or any(not 0 < delay <= LONGEST_DELAY_NS for delay in self.delays_ns):
            raise ConfigError(
                f"delays {list(self.delays_ns)} ns: an experiment has some, above 0 and up to 5 s"
            )
        if len(set(self.delays_ns)) < len(self.delays_ns):
            raise ConfigError(f"delays {list(self.delays_ns)} ns: each is there once")
        if not isinstance(self.rounds, int) or not 4 <= self.rounds <= 100:
            raise ConfigError(f"{self.rounds} rounds: an experiment has 4 to 100")
        if not (math.isfinite(self.block_s) and self.block_s > 0 and self.settles_s >= MIN_SETTLES_S):
            raise ConfigError(
                f"blocks of {self.block_s:g} s after {self.settles_s:g} s: blocks last above 0 s and settle "
                f"for {MIN_SETTLES_S:g} s at least, which a delay takes to reach every process"
            )

    @property
    def lasts_ns(self) -> int:
        """How long load has to last for it."""
        one = round(self.block_s * NS_PER_S) + round((1 + _STAYS_RATIO) * self.settles_s * NS_PER_S)
        return self.rounds * (1 + len(self.delays_ns)) * one + round(
            (_BEGINS_AFTER_S + _ENDS_BEFORE_S) * NS_PER_S
        )

    def blocks(self) -> list[tuple[int, int]]:
        """Return ``(round, delay_ns)`` of the blocks, in order.

        Examples
        --------
        >>> blocks = Experiment("a -> b", [5], rounds=4).blocks()
        >>> len(blocks), sorted(blocks[:2]), sorted(blocks[6:])
        (8, [(0, 0), (0, 5)], [(3, 0), (3, 5)])
        """
        rng = np.random.default_rng(self.seed)
        delays = [0, *sorted(self.delays_ns)]
        blocks: list[tuple[int, int]] = []
        order: list[int] = []
        for number in range(self.rounds):
            order = order[::-1] if number % 2 else rng.permutation(len(delays)).tolist()
            blocks += [(number, delays[place]) for place in order]
        return blocks


class Blocks:
    """The blocks of an experiment as they are played.

    Parameters
    ----------
    experiment : Experiment
        What is played.
    delay : callable
        Puts delays in force, in place of those before.
    event : callable
        Writes an event down.
    """

    def __init__(
        self,
        experiment: Experiment,
        delay: Callable[[Mapping[str, int]], None],
        event: Callable[..., None],
    ) -> None:
        self.experiment, self._delay, self._event = experiment, delay, event
        self.played: list[dict[str, int]] = []

    async def play(self, others: Mapping[str, int]) -> None:
        """Play all blocks, beside delays that are in force anyway; those alone remain, whatever happens."""
        experiment, total = self.experiment, self.asked
        try:
            await asyncio.sleep(_BEGINS_AFTER_S)
            for at, (number, delay_ns) in enumerate(experiment.blocks()):
                added = others.get(experiment.entity, 0) + delay_ns
                is_put = self._put({**others, experiment.entity: added} if added else others)
                told = {"number": at + 1, "of": total, "round": number + 1, "delay_ms": delay_ns / NS_PER_MS}
                self._event("block", entity=experiment.entity, **told)
                await asyncio.sleep(experiment.settles_s)
                block = {"round": number, "delay_ns": delay_ns, "start_ns": time.time_ns()}
                await asyncio.sleep(experiment.block_s)
                block["end_ns"] = time.time_ns()
                await asyncio.sleep(_STAYS_RATIO * experiment.settles_s)
                if is_put:
                    self.played.append({**block, "until_ns": time.time_ns()})
        except Exception as error:  # the run goes on without; the answer will be that blocks are missing
            self._event("notice", why=f"the experiment ended early: {error!r}")
        finally:
            self._put(others)

    def _put(self, delays_ns: Mapping[str, int]) -> bool:
        """Put delays in force; where they cannot be written now, the publisher tries again by itself."""
        try:
            self._delay(delays_ns)
        except OSError as error:
            self._event("notice", why=f"a block does not count, its delay could not be published: {error}")
            return False
        return True

    @property
    def asked(self) -> int:
        """How many blocks there are to be."""
        return self.experiment.rounds * (1 + len(self.experiment.delays_ns))

    def as_info(self) -> dict[str, Any]:
        """Return what ``run.json`` says: ``entity seed asked``, ``blocks`` that were measured whole."""
        experiment = self.experiment
        return {
            "entity": experiment.entity,
            "seed": experiment.seed,
            "asked": self.asked,
            "blocks": self.played,
        }


def fit_experiment(run: Run) -> Causal | None:
    """Return what a run's experiment says, None where no block was measured.

    Parameters
    ----------
    run : Run
        One that was launched with an `Experiment`.

    Returns
    -------
    Causal or None
        See `perflab.analysis.causal.fit_causal`; "cannot say" where nobody called the entity.
    """
    from perflab.analysis.causal import Causal, fit_causal

    played = run.info.get("experiment")
    if not played or not played["blocks"]:
        return None
    try:
        return fit_causal(run.spans, played["entity"], played["blocks"])
    except AnalysisError as error:  # it was there in the preflight
        return Causal.unknown(played["entity"], str(error))


def undelayed_spans(run: Run) -> pd.DataFrame:
    """Return the spans of requests that met no delay of a run's experiment.

    Where the time is, and what mending a place would gain, is asked of these: the others hold what the
    experiment added.

    Parameters
    ----------
    run : Run
        With an experiment, or without.

    Returns
    -------
    pandas.DataFrame
        A span table: whole traces that were due in blocks without delay, with the asynchronous ones they
        caused; ``run.spans`` where there is no such block.
    """
    from perflab.analysis.population import find_causes

    spans = run.spans
    blocks = (run.info.get("experiment") or {}).get("blocks", [])
    bare = [block for block in blocks if not block["delay_ns"]]
    if not bare:
        return spans
    by_trace = spans.assign(due_ns=spans["scheduled_ns"].where(spans["scheduled_ns"] > 0))
    first = by_trace.groupby("trace_id", observed=True, sort=False)[["due_ns", "start_ns"]].min()
    due = first["due_ns"].fillna(first["start_ns"])
    kept = np.zeros(len(due), dtype=bool)
    for block in bare:
        kept |= due.between(block["start_ns"], block["end_ns"], inclusive="left").to_numpy(dtype=bool)
    is_kept = dict(zip(due.index.astype(str), kept.tolist(), strict=True))
    is_kept.update({trace: is_kept[cause] for trace, cause in find_causes(spans).items()})
    return spans[spans["trace_id"].astype(str).map(is_kept).to_numpy(dtype=bool)].reset_index(drop=True)
