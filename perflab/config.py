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


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A store that services write to, and its shadow.

    Parameters
    ----------
    name : str
        What reports call it.
    kind : {'postgresql', 'redis'}
        Which driver hooks route it.
    production : str
        URL of the production store without credentials, e.g. ``postgresql://10.0.0.5:5432/shop``.
    shadow : Secret
        URL of the shadow store *with* its own login.
    audit : Secret, optional
        URL with a login that may read production's change stream; without it nothing is *proven*.
    prefix : str
        Redis only: prefix of every shadow key.
    """

    name: str
    kind: Literal["postgresql", "redis"]
    production: str
    shadow: Secret
    audit: Secret | None = None
    prefix: str = "perflab:shadow:"


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

    def target(self, name: str) -> Target:
        """Return one target by name.

        Raises
        ------
        ConfigError
            If there is none of that name; the message lists those there are.
        """
        try:
            return self.targets[name]
        except KeyError:
            known = ", ".join(sorted(self.targets)) or "none"
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
