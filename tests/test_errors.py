"""The exception tree: everything is a PerflabError, and exits as the command line promises."""

import inspect
import re

import pytest

from perflab import errors
from perflab.errors import PerflabError

_CLASSES = [found for _, found in inspect.getmembers(errors, inspect.isclass)]


def test_every_error_is_ours_and_drawn():
    """Each class descends from PerflabError and stands in the tree of the docstring, under its parent."""
    # Given
    drawn = re.findall(r"^    ([│├└─ ]*)([A-Za-z]+)", inspect.getdoc(errors), flags=re.MULTILINE)
    # When
    parents, above = {}, {}
    for indent, name in drawn:
        level = len(indent) // 4
        above[level] = name
        parents[name] = above.get(level - 1)
    # Then
    assert parents == {
        found.__name__: None if found is PerflabError else found.__bases__[0].__name__ for found in _CLASSES
    }


@pytest.mark.parametrize(
    ("exit_code", "names"),
    [
        (1, {"ShadowError", "LeakError"}),
        (
            2,
            {
                "ConfigError",
                "TrafficError",
                "TargetRefused",
                "SchemaError",
                "SpanFormatError",
                "AnalysisError",
            },
        ),
        (3, {"PerflabError", "LoadError", "TraceError", "HostError", "DeskError", "ReportError"}),
    ],
)
def test_exit_codes(exit_code, names):
    """1 a stop or a leak, 2 wrong input, 3 what could not be done."""
    assert {found.__name__ for found in _CLASSES if found.exit_code == exit_code} == names
