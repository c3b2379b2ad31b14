"""DESIGN section 6: docstrings hold examples, and examples are true."""

import doctest
import importlib
import pkgutil

import pytest

import perflab


def _modules():
    return sorted(
        item.name
        for item in pkgutil.walk_packages(perflab.__path__, "perflab.")
        if not item.name.startswith("perflab.demo") and not item.name.endswith("__main__")
    )


@pytest.mark.parametrize("name", _modules())
def test_examples_in_docstrings_are_true(name):
    """Every module but the demo shop's imports cleanly, and its examples give what they say."""
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert not found.failed, f"{found.failed} of {found.attempted} examples of {name} are not true"
