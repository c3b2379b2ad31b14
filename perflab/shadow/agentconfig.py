"""What `perflab attach` tells the agent, and the checks that must fail before a service is started.

Imports little: it is read by the command as well as by the process it becomes.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from perflab.config import Outbound, Secret, Store, Target
from perflab.errors import ConfigError
from perflab.shadow.stores import read_twins

VARIABLE = "PERFLAB_AGENT"
"""The environment variable it travels in."""


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the agent is told, as JSON in the environment; secrets only by reference.

    Parameters
    ----------
    service : str
        What tables call it.
    control, control_key, collector, sample_ratio, services, stores, outbound
        Of the target.
    shadow_consumer : bool
        Whether all its work is shadow work.
    disabled : tuple of str
        Hooks to leave out.
    """

    service: str
    control: str
    control_key: Secret
    collector: str
    sample_ratio: float = 0.01
    services: dict[str, tuple[str, ...]] = {}
    stores: tuple[Store, ...] = ()
    outbound: tuple[Outbound, ...] = ()
    shadow_consumer: bool = False
    disabled: tuple[str, ...] = ()


def agent_config(
    target: Target, service: str, *, disabled: tuple[str, ...] = (), shadow_consumer: bool = False
) -> AgentConfig:
    """Return what the agent of one service is told; paths are made absolute, for services change directory.

    Parameters
    ----------
    target : Target
        The system the service is part of.
    service : str
        What tables call it.
    disabled : tuple of str
        Hooks to leave out.
    shadow_consumer : bool
        Whether all its work is shadow work.

    Raises
    ------
    ConfigError
        If the agent could not start with it: a secret that cannot be read, an address that is none.
    """
    config = AgentConfig(
        service,
        _absolute(target.control),
        _found(target.control_key),
        target.collector,
        target.sample_ratio,
        target.services,
        tuple(
            msgspec.structs.replace(store, shadow=_found(store.shadow), audit=None) for store in target.stores
        ),
        target.outbound,
        shadow_consumer,
        disabled,
    )
    _check(config)
    return config


def write_agent_config(config: AgentConfig) -> str:
    """Write it as the environment variable's text."""
    return msgspec.json.encode(config).decode()


def read_agent_config(text: str) -> AgentConfig:
    """Read it from the environment variable's text."""
    return msgspec.json.decode(text, type=AgentConfig)


def split_address(address: str, what: str) -> tuple[str, int]:
    """Return host and port of ``host:port``.

    Raises
    ------
    ConfigError
        If it is something else; ``what`` says what it should have been the address of.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"{what} is {address!r}; write it as host:port, as in 10.0.0.5:4318")
    return host.strip("[]"), int(port)


def _check(config: AgentConfig) -> None:
    if not config.service.strip():
        raise ConfigError("the service has no name; give it with --service")
    if not config.control_key.read().strip():
        raise ConfigError("the control key is empty; any list of live runs could be forged")
    if not 0 <= config.sample_ratio <= 1:
        raise ConfigError(f"sample_ratio is {config.sample_ratio:g}; it is a share between 0 and 1")
    split_address(config.collector, "the collector")
    for name, addresses in config.services.items():
        for address in addresses:
            split_address(address, f"an address of service {name!r}")
    for peer in config.outbound:
        split_address(peer.address, f"the address of outbound peer {peer.name!r}")
        if peer.to:
            split_address(peer.to, f"the stub of outbound peer {peer.name!r}")
    for kind in ("postgresql", "mariadb", "sqlite", "redis"):
        read_twins(config.stores, kind)


def _absolute(source: str) -> str:
    return source if source.startswith(("http://", "https://")) else str(Path(source).absolute())


def _found(secret: Secret) -> Secret:
    return Secret(file=str(Path(secret.file).absolute())) if secret.file else secret
