"""Every error perflab raises on purpose.

::

    PerflabError
    ├── ConfigError            perflab.toml, parameters, command lines
    ├── TrafficError           scenarios and recorded traffic
    ├── ShadowError            marked work that may not go on (it fails closed)
    │   └── LeakError          marked work reached production
    ├── LoadError              the generator could not do its work
    │   └── TargetRefused      an address outside the approved ones
    ├── TraceError
    │   ├── SchemaError        a table that is not a span table
    │   └── SpanFormatError    bytes or files that are not the format they claim
    ├── AnalysisError
    ├── HostError
    ├── DeskError
    └── ReportError

A message says what happened, where, what was available, and what to do next. ``exit_code`` is what
the command line exits with: 2 for wrong input, 3 for what could not be done, 1 for a stop or a leak.
"""

from __future__ import annotations


class PerflabError(Exception):
    """Anything perflab raises on purpose."""

    exit_code: int = 3


class ConfigError(PerflabError):
    """Wrong input: a file, a parameter or a command line."""

    exit_code = 2


class TrafficError(PerflabError):
    """A scenario or a recording that cannot be used as written."""

    exit_code = 2


class ShadowError(PerflabError):
    """Marked work met a store or a peer it may not touch; it was refused before it was sent."""

    exit_code = 1


class LeakError(ShadowError):
    """Marked work reached production."""


class LoadError(PerflabError):
    """The generator could not do its work."""


class TargetRefused(LoadError):  # noqa: N818 - the house's name for it
    """An address outside the approved ones."""

    exit_code = 2


class TraceError(PerflabError):
    """Spans could not be received, stored or read."""


class SchemaError(TraceError):
    """A table that is not a span table."""

    exit_code = 2


class SpanFormatError(TraceError):
    """Bytes or files that are not the format they claim to be."""

    exit_code = 2


class AnalysisError(PerflabError):
    """A question the data cannot be asked."""

    exit_code = 2


class HostError(PerflabError):
    """A host could not be reached or inspected."""


class DeskError(PerflabError):
    """The service desk could not do its work."""


class ReportError(PerflabError):
    """A report could not be rendered or exported."""
