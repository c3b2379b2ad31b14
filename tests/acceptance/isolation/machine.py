"""Random interleavings of marked and ordinary work, until enough marked statements went well.

Hypothesis draws what is played side by side; what each script does in turn comes from a number it draws,
since drawing forty kinds one by one costs more than doing them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from attached_service import Service
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from two_sides import TestRun


class Oracle(Protocol):
    """Tells what happened in production."""

    own: set[Any]

    def check(self) -> list[str]: ...

    def clear(self) -> None: ...


LONGEST = {"marked": 25, "ordinary": 8}
"""How many statements a script has at most."""
OFTEN, SELDOM = 4, 1
"""How often a kind is drawn: most, and those that have all others wait, or fail."""
TURNS, TURNS_OF_A_SOAK = (1, 3, 6), (3, 10, 20)
"""How often a marked script is played in one go: the more, the less is spent on drawing and checking."""
SOAK = 100_000
SPARE = 5_000
"""How many more marked statements may be played for a kind that has not gone well yet."""
PLAYS_OF_A_RUN = 4
"""How often a run is played on before it may be over."""


@dataclass
class Stage:
    """What a machine plays on, and what it has seen so far.

    Parameters
    ----------
    service : Service
        An attached process.
    oracle : Oracle
        Of production.
    begin_run, clear_shadow : callable
        Make a run live; take away what marked work left.
    play : callable
        Plays scripts inside the service, with ``arguments``.
    arguments : sequence
        What it is given beside the scripts.
    vias : mapping of str to sequence of str
        Where scripts are played -> the ways to the database there.
    kinds : mapping of str to sequence of str
        ``marked`` and ``ordinary`` -> kinds of statements.
    seldom, refused : frozenset of str
        Kinds that are drawn less often; those that never go well.
    """

    service: Service
    oracle: Oracle
    begin_run: Callable[[], TestRun]
    clear_shadow: Callable[[], None]
    play: Callable[..., dict[str, Any]]
    arguments: Sequence[Any]
    vias: Mapping[str, Sequence[str]]
    kinds: Mapping[str, Sequence[str]]
    seldom: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    done: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    number: int = 0
    plays: int = 0
    wrong: list[str] = field(default_factory=list)
    wanted: int = 0

    @property
    def is_enough(self) -> bool:
        """Whether as many marked statements went well as are wanted, of every kind if some more do for it."""
        done = self.marked_statements
        return done >= self.wanted and (not self.unseen or done >= self.wanted + SPARE)

    @property
    def turns(self) -> Sequence[int]:
        """How often a marked script may be played in one go."""
        return TURNS if self.wanted < SOAK else TURNS_OF_A_SOAK

    @property
    def marked_statements(self) -> int:
        """How many statements of marked work went well."""
        return sum(count for name, count in self.done.items() if name.startswith("marked "))

    @property
    def unseen(self) -> set[str]:
        """Which kinds of marked statements should go well and have not yet."""
        return set(self.kinds["marked"]) - self.marked_kinds - self.refused

    @property
    def marked_kinds(self) -> set[str]:
        """Which kinds of marked statements went well at least once."""
        return {name.removeprefix("marked ") for name in self.done if name.startswith("marked ")}


def play_until(stage: Stage, statements: int) -> None:
    """Play random examples until so many marked statements went well.

    Raises
    ------
    AssertionError
        If production shows anything that ordinary work did not do.
    """
    stage.wanted = statements
    while not stage.is_enough:
        before = stage.marked_statements
        try:
            run_state_machine_as_test(lambda: _Machine(stage), settings=_SETTINGS)  # type: ignore[no-untyped-call]  # hypothesis leaves it so
        except BaseException as error:
            if stage.wrong:  # hypothesis plays again what failed, with threads that take other turns
                raise AssertionError("\n".join(stage.wrong)) from error
            raise
        assert stage.marked_statements > before, (
            f"no marked statement goes well: {stage.errors.most_common(5)}"
        )


_SETTINGS = settings(
    max_examples=10,
    phases=[Phase.generate],  # threads take turns otherwise when played again: nothing to shrink
    stateful_step_count=20,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)


class _Machine(RuleBasedStateMachine):
    """One example: a live run, and scripts played side by side, again and again."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.run = stage.begin_run()
        self.plays = 0

    @initialize()
    def begin(self) -> None:
        if not self.stage.is_enough:
            self.stage.oracle.clear()
            self.stage.clear_shadow()

    @rule(data=st.data())
    def work(self, data: st.DataObject) -> None:
        """Play some marked and some ordinary scripts side by side."""
        drawn = data.draw(st.lists(self._script(), min_size=3, max_size=8))
        if not self.stage.is_enough:
            self._play(drawn, self.run.mark)
        self.plays += 1

    @precondition(lambda self: self.plays >= PLAYS_OF_A_RUN)
    @rule(data=st.data())
    def work_of_a_run_that_is_over(self, data: st.DataObject) -> None:
        """Kill the run: its late requests are refused, and ordinary ones go on."""
        drawn = data.draw(st.lists(self._script(), min_size=1, max_size=3))
        self.plays = 0
        if self.stage.is_enough:
            return
        late = self.run.mark
        self.run.kill()
        told = self._play(drawn, late)
        self._expect_none(
            [f"a run that was over: {name}" for name in told["done"] if name.startswith("marked ")]
        )
        self.run.remove()
        self.run = self.stage.begin_run()

    def teardown(self) -> None:
        self.run.remove()

    def _play(self, drawn: list[dict[str, Any]], mark: Callable[[], Any]) -> dict[str, Any]:
        stage = self.stage
        scripts = []
        for script in drawn:
            stage.number += 1
            script = self._written_out(script)
            scripts.append({**script, "mark": mark() if script["marked"] else None})
        told = stage.service.call(stage.play, scripts, *stage.arguments)
        stage.plays += 1
        stage.done.update(told["done"])
        stage.errors.update(told["errors"])
        stage.oracle.own.update(map(_number_or_text, told["own"]))
        self._expect_none([*stage.oracle.check(), *told["mixed"]])
        return dict(told)

    def _expect_none(self, wrong: list[str]) -> None:
        self.stage.wrong += wrong
        assert not self.stage.wrong

    def _written_out(self, script: dict[str, Any]) -> dict[str, Any]:
        """Return a script with its statements, chosen by its seed."""
        stage, side = self.stage, "marked" if script["marked"] else "ordinary"
        choose = random.Random(script["seed"] + stage.number)
        kinds = stage.kinds[side]
        weights = [SELDOM if kind in stage.seldom else OFTEN for kind in kinds]
        return {
            **script,
            "number": stage.number,
            "via": choose.choice(stage.vias[script["where"]]),
            "kinds": choose.choices(kinds, weights, k=choose.randint(1, LONGEST[side])),
            "times": choose.choice(stage.turns) if script["marked"] else 1,
        }

    def _script(self) -> st.SearchStrategy[dict[str, Any]]:
        return st.fixed_dictionaries(
            {
                "marked": st.booleans(),
                "where": st.sampled_from(sorted(self.stage.vias)),
                "ending": st.sampled_from(["commit", "commit", "rollback"]),
                "savepoints": st.sampled_from([True, True, True, False]),
                "seed": st.integers(0, 2**64),
            }
        )


def _number_or_text(text: str) -> Any:
    return int(text) if text.isdecimal() else text
