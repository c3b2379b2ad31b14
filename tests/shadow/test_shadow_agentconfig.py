"""What attach tells the agent: whole, checked, and with no secret in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from perflab.config import Outbound, Secret, Store, Target
from perflab.errors import ConfigError
from perflab.shadow.agentconfig import agent_config, read_agent_config, split_address, write_agent_config


def target(tmp_path: Path, **more) -> Target:
    (tmp_path / "key").write_text("the key")
    (tmp_path / "shadow").write_text("postgresql://shadow:hidden@127.0.0.1:5432/shop_shadow")
    given = {
        "addresses": ("127.0.0.1:80",),
        "control": str(tmp_path / "control.json"),
        "control_key": Secret(file=str(tmp_path / "key")),
        "services": {"cart": ("127.0.0.1:81", "[::1]:81")},
        "stores": (
            Store(
                "shop",
                "postgresql",
                "postgresql://127.0.0.1:5432/shop",
                Secret(file=str(tmp_path / "shadow")),
                Secret(env="NOT_FOR_SERVICES"),
            ),
        ),
        "outbound": (Outbound("bank", "127.0.0.1:90", "stub", "127.0.0.1:91"),),
    }
    return Target(**(given | more))


def test_it_travels_whole_and_without_secrets(tmp_path: Path):
    """What is written is read back; keys, passwords and the audit's login stay where they are."""
    config = agent_config(target(tmp_path), "cart", disabled=("httpx",), shadow_consumer=True)
    text = write_agent_config(config)
    assert read_agent_config(text) == config
    assert (config.service, config.disabled, config.shadow_consumer) == ("cart", ("httpx",), True)
    for hidden in ("the key", "hidden", "NOT_FOR_SERVICES"):
        assert hidden not in text


def test_paths_are_made_absolute_and_urls_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A service that changes its directory still finds its list and its keys."""
    monkeypatch.chdir(tmp_path)
    given = target(tmp_path, control="control.json", control_key=Secret(file="key"))
    config = agent_config(given, "cart")
    assert config.control == str(tmp_path / "control.json")
    assert config.control_key.file == str(tmp_path / "key")
    given = target(tmp_path, control="https://control/runs")
    assert agent_config(given, "cart").control == "https://control/runs"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"collector": "nowhere"}, "the collector is 'nowhere'"),
        ({"collector": "a:b"}, "the collector is 'a:b'"),
        ({"collector": "a:0"}, "the collector is 'a:0'"),
        ({"services": {"cart": ("x",)}}, "an address of service 'cart' is 'x'"),
        ({"outbound": (Outbound("bank", "x"),)}, "the address of outbound peer 'bank' is 'x'"),
        ({"outbound": (Outbound("bank", "a:1", "stub", "y"),)}, "the stub of outbound peer 'bank' is 'y'"),
        ({"sample_ratio": 1.5}, "sample_ratio is 1.5"),
        ({"control_key": Secret(env="NO_SUCH_VARIABLE_OF_OURS")}, "NO_SUCH_VARIABLE_OF_OURS is not set"),
        ({"control_key": Secret(file="/dev/null")}, "the control key is empty"),
        (
            {"stores": (Store("s", "postgresql", "postgresql://h:port/db", Secret(file="/dev/null")),)},
            "URL cannot be read",
        ),
    ],
)
def test_what_the_agent_could_not_start_with_is_refused_before(tmp_path: Path, more: dict, said: str):
    """Each wrong value is wrong input, named, before a service is started with it."""
    with pytest.raises(ConfigError) as refused:
        agent_config(target(tmp_path, **more), "cart")
    assert said in str(refused.value)


def test_a_service_has_a_name(tmp_path: Path):
    """An empty name would make every table wrong."""
    with pytest.raises(ConfigError, match="no name"):
        agent_config(target(tmp_path), " ")


def test_addresses_are_split():
    """Host and port, IPv6 without its brackets."""
    assert split_address("[::1]:4318", "it") == ("::1", 4318)
    assert split_address("host.example:65535", "it") == ("host.example", 65535)
