"""JSON Schemas of the files engineers write, for editors and for those who generate them.

They are made from the structs the files are read into: ``python -m perflab.schemas`` writes them anew,
and a house test holds them in step.
"""

from __future__ import annotations

import json
from pathlib import Path

from perflab.config import Config, json_schema
from perflab.traffic.scenario import Scenario

HERE = Path(__file__).parent


def schemas() -> dict[str, str]:
    """Return the text of every schema file, made from the structs as they are now.

    Returns
    -------
    dict of str to str
        File name -> JSON text.
    """
    made = {
        "perflab.schema.json": json_schema(Config, "perflab.toml"),
        "scenario.schema.json": json_schema(Scenario, "scenario.toml"),
    }
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in made.items()}


def write_schemas(into: Path = HERE) -> list[Path]:
    """Write every schema file and return their paths."""
    written = []
    for name, text in schemas().items():
        path = into / name
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written
