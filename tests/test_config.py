"""perflab.toml: what is read, and that whatever is wrong is said with its path."""

import jsonschema
import msgspec
import pytest

from perflab.config import Config, GuardRule, Secret, json_schema, load_config
from perflab.errors import ConfigError

_LEAST = """
[targets.shop]
addresses = ["127.0.0.1:8000"]
control = "control.json"
control_key = { env = "PERFLAB_CONTROL_KEY" }
"""

_WHOLE = (
    _LEAST
    + """
collector = "127.0.0.1:0"
max_rate_per_s = 300
max_in_flight = 64
max_duration = "5min"
timeout = "2s"
sample_ratio = 0.5
services = { gateway = ["python", "gateway.py"] }
real_users = { service = "gateway" }

[[targets.shop.stores]]
name = "orders"
kind = "postgresql"
production = "postgresql://127.0.0.1/shop"
shadow = { file = "shadow.secret" }
audit = { env = "AUDIT" }

[[targets.shop.outbound]]
name = "bank"
address = "bank.example:443"
action = "stub"
to = "127.0.0.1:9000"

[[targets.shop.guards]]
of = "real_users"
metric = "p99_ms"
factor = 2.0
slack = 5.0
"""
)


def _load(tmp_path, text):
    path = tmp_path / "perflab.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path)


def test_the_least_target_has_safe_limits(tmp_path):
    """Three keys make a target; nothing is routed, allowed or watched that was not asked for."""
    target = _load(tmp_path, _LEAST).target("shop")
    assert target.addresses == ("127.0.0.1:8000",)
    assert (target.stores, target.outbound, target.guards, target.real_users) == ((), (), (), None)
    assert (target.max_rate_per_s, target.max_in_flight, target.max_duration) == (100.0, 256, "30min")
    assert _load(tmp_path, "") == Config()


def test_everything_that_can_be_said(tmp_path):
    """All keys are read into frozen structs."""
    target = _load(tmp_path, _WHOLE).target("shop")
    assert target.services == {"gateway": ("python", "gateway.py")}
    assert target.stores[0].shadow == Secret(file="shadow.secret")
    assert target.stores[0].audit == Secret(env="AUDIT")
    assert target.outbound[0].to == "127.0.0.1:9000"
    assert target.guards == (GuardRule("real_users", "p99_ms", factor=2.0, slack=5.0),)
    with pytest.raises(AttributeError):
        target.timeout = "1s"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (_LEAST + "colour = 1", ["unknown field `colour`", "$.targets[...]"]),
        (_WHOLE + "limit = 1", ["unknown field `limit`", "$.targets[...].guards[0]"]),
        ("[target.shop]", ["unknown field `target`"]),
        (_LEAST.replace("addresses", "addreses"), ["addreses"]),
        (_LEAST.replace('["127.0.0.1:8000"]', "[]"), ["'addresses' names at least one"]),
        (_LEAST.replace('control = "control.json"', ""), ["missing required field `control`"]),
        (_LEAST + "max_in_flight = 'many'", ["max_in_flight", "Expected `int`, got `str`"]),
        (_LEAST + "timeout = '10 seconds'", ["'10 seconds' is not a duration"]),
        (_LEAST.replace("{ env =", "{ file = 'x', env ="), ["exactly one of 'env' or 'file'", "control_key"]),
        (_LEAST.replace('{ env = "PERFLAB_CONTROL_KEY" }', '"s3cret"'), ["control_key", "got `str`"]),
        (_WHOLE.replace('"stub"', '"deny"'), ["'to' is given with action = 'stub'", "outbound[0]"]),
        (_WHOLE.replace('"postgresql"', '"oracle"'), ["oracle", "stores[0].kind"]),
        (_WHOLE + "below = 1.0", ["exactly one of 'below' or 'factor'", "guards[0]"]),
        (_WHOLE.replace('of = "real_users"', 'of = "shadow"'), ["use 'below' for shadow"]),
        (_WHOLE + "windows = 0", ["'windows' is at least 1"]),
        ("\n[[=", ["is not valid TOML", "line 2"]),
        (b"\xff", ["is not valid TOML"]),
    ],
)
def test_what_is_wrong_is_said_with_its_path(tmp_path, text, words):
    """Unknown, missing and wrong keys are named with the file and where they stand."""
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text)
    for word in [*words, "perflab.toml"]:
        assert word in str(caught.value)


def test_files_and_targets_that_are_not_there(tmp_path):
    """A missing file is named; a missing target lists those there are."""
    with pytest.raises(ConfigError, match=r"cannot read .*perflab\.toml: No such file"):
        load_config(tmp_path / "perflab.toml")
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match=r"no target 'bank' in perflab\.toml; there are: shop"):
        _load(tmp_path, _LEAST).target("bank")
    with pytest.raises(ConfigError, match="there are: none"):
        Config().target("bank")


def test_secrets_are_read_by_reference(tmp_path, monkeypatch):
    """A variable or a file holds the secret; without it the reference is named, never a value."""
    # Given
    monkeypatch.setenv("PERFLAB_TEST_SECRET", "from the environment")
    path = tmp_path / "secret"
    path.write_text("from the file\n", encoding="utf-8")
    # Then
    assert Secret(env="PERFLAB_TEST_SECRET").read() == "from the environment"
    assert Secret(file=str(path)).read() == "from the file"
    monkeypatch.delenv("PERFLAB_TEST_SECRET")
    with pytest.raises(ConfigError, match="environment variable PERFLAB_TEST_SECRET is not set"):
        Secret(env="PERFLAB_TEST_SECRET").read()
    path.unlink()
    with pytest.raises(ConfigError, match=r"cannot read the secret in .*secret: .*No such file"):
        Secret(file=str(path)).read()
    for wrong in ({}, {"env": "A", "file": "b"}):
        with pytest.raises(ValueError, match="exactly one"):
            Secret(**wrong)


def test_the_json_schema_says_what_the_reader_says():
    """A file the reader takes is valid by the schema; one with an unknown key is not."""
    # Given
    schema = json_schema(Config, "perflab.toml")
    document = {
        "targets": {"shop": {"addresses": ["a:1"], "control": "c", "control_key": {"env": "K"}}},
    }
    # Then
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)
    assert msgspec.convert(document, Config).target("shop").control == "c"
    assert schema["title"] == "perflab.toml"
    document["targets"]["shop"]["colour"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)
