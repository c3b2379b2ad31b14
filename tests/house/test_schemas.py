"""The JSON Schemas in the wheel say what the readers accept."""

from __future__ import annotations

import json
import tomllib

import jsonschema
import pytest

from perflab import schemas


@pytest.mark.parametrize("name", sorted(schemas.schemas()))
def test_schema_files_are_in_step(name):
    """Each committed schema is what ``python -m perflab.schemas`` would write now."""
    assert (schemas.HERE / name).read_text(encoding="utf-8") == schemas.schemas()[name]


def test_the_scenario_schema_accepts_and_refuses():
    """A good scenario passes the schema; an unknown key does not."""
    schema = json.loads((schemas.HERE / "scenario.schema.json").read_text(encoding="utf-8"))
    good = tomllib.loads(
        'name = "s"\n[arrivals]\nkind = "ramp"\nfrom = 1\nto = 2\nover = "1s"\n'
        '[[endpoints]]\nname = "a"\nurl = "/"\njson = { x = 1 }\ncapture = { y = "$.y" }\n'
        "[endpoints.checks]\nstatus = [200]\n"
    )
    jsonschema.validate(good, schema)
    with pytest.raises(jsonschema.ValidationError, match="speed"):
        jsonschema.validate({**good, "speed": 1}, schema)
