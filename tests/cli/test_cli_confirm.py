"""The verb confirm: what it asks for, and what it says of wrong input."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from perflab.analysis.causal import fit_causal
from perflab.cli import main
from perflab.cli.confirm import add_arguments, as_told, read_experiment
from perflab.errors import ConfigError
from perflab.testing import S, spans


def read(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["scenario.toml", "a -> b", "--target", "shop", *words])


def test_an_experiment_is_read_from_words():
    """Delays and blocks are human durations."""
    experiment = read_experiment(read("--delays", "5ms, 1s", "--rounds", "8", "--block", "1.5s"), "a -> b")
    assert (experiment.entity, list(experiment.delays_ns)) == ("a -> b", [5_000_000, 10**9])
    assert (experiment.rounds, experiment.block_s) == (8, 1.5)
    assert read_experiment(read("--seed", "4"), "a -> b").seed == 4
    assert read_experiment(read(), "a -> b").seed != read_experiment(read(), "a -> b").seed


def test_wrong_words_are_refused():
    """Before anything is started."""
    with pytest.raises(ConfigError):
        read_experiment(read("--delays", "soon"), "a -> b")
    with pytest.raises(ConfigError, match="4 to 100"):
        read_experiment(read("--rounds", "1"), "a -> b")


def test_wrong_input_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A scenario that is not there, in one line."""
    assert main(["confirm", str(tmp_path / "no.toml"), "a -> b", "--target", "shop"]) == 2
    assert "no.toml" in capsys.readouterr().err


def test_what_is_not_known_is_null():
    """JSON has no NaN."""
    table = spans([S("shop", "GET /", 0, 10, kind="server", children=[S("shop", "work", 1, 9)])])
    told = as_told(fit_causal(table, "shop: work", []))
    assert (told["verdict"], told["applied_ratio"], told["rows"]) == ("cannot say", None, [])
