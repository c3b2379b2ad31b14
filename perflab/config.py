"""``perflab.toml`` -> frozen structs. Unknown keys are refused with their path.

The file describes *targets*: where the system under test is, what may be sent to it, where its stores
and their shadows are. Secrets stand in it by reference only: the name of an environment variable or
the path of a file.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from perflab.errors import ConfigError
from perflab.units import duration_ns

_T = TypeVar("_T")


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A secret by reference: exactly one of an environment variable's name or a file's path.

    Parameters
    ----------
    env : str
        Name of an environment variable that holds it.
    file : str
        Path of a file that holds it (surrounding white space is dropped).
    """

    env: str = ""
    file: str = ""

    def __post_init__(self) -> None:
        if bool(self.env) == bool(self.file):
            raise ValueError("a secret is given by exactly one of 'env' or 'file'")

    def read(self) -> str:
        """Return the secret itself.

        Raises
        ------
        ConfigError
            If the variable is not set or the file cannot be read.
        """
        if self.env:
            value = os.environ.get(self.env)
            if value is None:
                raise ConfigError(f"environment variable {self.env} is not set; a secret is read from it")
            return value
        try:
            return Path(self.file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(f"cannot read the secret in {self.file}: {error}") from error


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which rows of production a shadow begins with. Without it, none.

    Parameters
    ----------
    rows : int
        How many of the newest rows of each table, and the rows they refer to.
    tables : dict of str to int or 'all'
        Otherwise for some tables: ``{ "countries" = "all", "orders" = 1000, "audit.log" = 0 }``.
    masks : dict of str to str
        ``table.column`` -> what becomes of its values: ``null``, ``fixed:VALUE``, ``hash``, ``name``,
        ``email``, ``phone``, ``digits``. Columns that look personal and have none are not copied.
    key : Secret, optional
        What masks depend on; without it they depend on the target's control key.
    """

    rows: int = 0
    tables: dict[str, int | Literal["all"]] = {}
    masks: dict[str, str] = {}
    key: Secret | None = None

    def __post_init__(self) -> None:
        if self.rows < 0 or any(isinstance(rows, int) and rows < 0 for rows in self.tables.values()):
            raise ValueError("a number of rows is 0 or more")


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A store that services write to, and its shadow.

    Parameters
    ----------
    name : str
        What reports call it.
    kind : {'postgresql', 'mariadb', 'sqlite', 'redis'}
        Which driver hooks route it; ``mariadb`` is MySQL too.
    production : str
        URL of the production store without credentials: ``postgresql://10.0.0.5:5432/shop``,
        ``mariadb://10.0.0.5:3306/shop``, ``sqlite:////var/lib/shop.db``, ``redis://10.0.0.5:6379/0``.
    shadow : Secret
        URL of the shadow store *with* its own login.
    audit : Secret, optional
        URL with a login that may read production's change stream; without it nothing is *proven*.
    prefix : str
        Redis only: prefix of every shadow key.
    mode : {'database', 'schema', 'table', 'deny'}
        SQL only. ``database``: the shadow is another database, with a login of its own. For those who cannot
        have one, and weaker: ``schema``, another schema of the same database (PostgreSQL), and ``table``,
        tables of other names beside production's; statements are rewritten, and what cannot be proven is
        refused. ``deny``: shadow work may not touch this store at all.
    within : str
        ``schema``: the name of the shadow schema; ``table``: what the names of shadow tables begin with.
    sample : Sample, optional
        Which rows ``perflab shadow prepare`` copies, and how they are masked.
    """

    name: str
    kind: Literal["postgresql", "mariadb", "sqlite", "redis"]
    production: str
    shadow: Secret
    audit: Secret | None = None
    prefix: str = "perflab:shadow:"
    mode: Literal["database", "schema", "table", "deny"] = "database"
    within: str = ""
    sample: Sample | None = None

    def __post_init__(self) -> None:
        allowed = _MODES[self.kind]
        if self.mode not in allowed:
            raise ValueError(f"mode {self.mode!r} is not for {self.kind}; there are: {', '.join(allowed)}")
        if (self.mode in ("schema", "table")) != bool(self.within):
            raise ValueError("'within' is given with mode = 'schema' or 'table', and only then")


_MODES: dict[str, tuple[str, ...]] = {
    "postgresql": ("database", "schema", "table", "deny"),
    "mariadb": ("database", "table", "deny"),
    "sqlite": ("database", "deny"),
    "redis": ("database",),
}


class Outbound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What marked work may do with one peer outside the attached services.

    Parameters
    ----------
    name : str
        What tables and reports call the peer.
    address : str
        ``host:port`` the services call.
    action : {'stub', 'allow', 'deny'}
        ``stub`` sends marked calls to ``to`` instead; ``deny`` is what unlisted peers get.
    to : str
        ``host:port`` of the stub.
    """

    name: str
    address: str
    action: Literal["stub", "allow", "deny"] = "deny"
    to: str = ""

    def __post_init__(self) -> None:
        if (self.action == "stub") != bool(self.to):
            raise ValueError("'to' is given with action = 'stub', and only then")


class GuardRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A limit that stops the run.

    Parameters
    ----------
    of : {'real_users', 'shadow'}
        Whose requests are watched.
    metric : {'p50_ms', 'p95_ms', 'p99_ms', 'error_ratio'}
        What is measured in each window.
    below : float, optional
        Absolute limit, in the metric's unit.
    factor : float, optional
        Limit as a multiple of the same metric before the run began (``real_users`` only).
    slack : float
        Added to a ``factor`` limit, in the metric's unit, so that 2 ms on top of 1 ms stops nothing.
    windows : int
        Consecutive breaching windows that stop the run.
    """

    of: Literal["real_users", "shadow"]
    metric: Literal["p50_ms", "p95_ms", "p99_ms", "error_ratio"]
    below: float | None = None
    factor: float | None = None
    slack: float = 0.0
    windows: int = 2

    def __post_init__(self) -> None:
        if (self.below is None) == (self.factor is None):
            raise ValueError("a guard has exactly one of 'below' or 'factor'")
        if self.factor is not None and self.of != "real_users":
            raise ValueError(
                "'factor' compares real users with themselves before the run; use 'below' for shadow"
            )
        if self.windows < 1:
            raise ValueError("'windows' is at least 1")


class RealUsers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where harm to real users is measured.

    Parameters
    ----------
    service : str
        The attached service whose unmarked requests are what real users feel, usually the entry.
    """

    service: str


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A system that may be load-tested, and everything that keeps it safe.

    Parameters
    ----------
    addresses : tuple of str
        ``host:port`` the generator may connect to; relative URLs of a scenario go to the first.
    control : str
        Path of the signed list of live runs that attached processes read.
    control_key : Secret
        Key that signs it; run keys are derived from it.
    signing_key : Secret, optional
        What the key that signs the proof is derived from; the control key when left out. Attached processes
        have that one too, this one need not leave the controller's machine.
    collector : str
        ``host:port`` on which spans and agent reports are received.
    max_rate_per_s, max_in_flight : float, int
        Hard limits of any run.
    max_duration, timeout : str
        Human durations.
    sample_ratio : float
        Share of *unmarked* requests that are traced; marked ones always are.
    """

    addresses: tuple[str, ...]
    control: str
    control_key: Secret
    signing_key: Secret | None = None
    collector: str = "127.0.0.1:4318"
    max_rate_per_s: float = 100.0
    max_in_flight: int = 256
    max_duration: str = "30min"
    timeout: str = "10s"
    sample_ratio: float = 0.01
    services: dict[str, tuple[str, ...]] = {}
    stores: tuple[Store, ...] = ()
    outbound: tuple[Outbound, ...] = ()
    guards: tuple[GuardRule, ...] = ()
    real_users: RealUsers | None = None

    def __post_init__(self) -> None:
        if not self.addresses:
            raise ValueError("'addresses' names at least one host:port")
        for text in (self.max_duration, self.timeout):
            try:
                duration_ns(text)
            except ConfigError as error:
                raise ValueError(str(error)) from error


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of ``perflab.toml``."""

    targets: dict[str, Target] = {}

    def target(self, name: str = "") -> Target:
        """Return one target by name, which may be left out where there is only one.

        Raises
        ------
        ConfigError
            If there is none of that name; the message lists those there are.
        """
        if not name and len(self.targets) == 1:
            return next(iter(self.targets.values()))
        known = ", ".join(sorted(self.targets)) or "none"
        if not name:
            raise ConfigError(f"name the target with --target; perflab.toml has: {known}")
        try:
            return self.targets[name]
        except KeyError:
            raise ConfigError(f"no target {name!r} in perflab.toml; there are: {known}") from None


def load_config(path: Path) -> Config:
    """Read ``perflab.toml``.

    Raises
    ------
    ConfigError
        If it cannot be read, is no TOML, or has an unknown or wrong key; the message says which.
    """
    return read_toml(path, Config)


def read_toml(path: Path, into: type[_T]) -> _T:
    """Read a TOML file into a struct, naming file and key when it does not fit.

    Raises
    ------
    ConfigError
        If it cannot be read, is no TOML, or does not fit the struct.
    """
    try:
        with path.open("rb") as file:
            data = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    try:
        return msgspec.convert(data, into)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from error


def json_schema(of: type[Any], title: str) -> dict[str, Any]:
    """Return the JSON Schema of a configuration struct, as shipped in the wheel."""
    schema = msgspec.json.schema(of)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **schema}
