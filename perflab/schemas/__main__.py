"""``python -m perflab.schemas`` writes the schema files anew."""

from __future__ import annotations

from perflab.schemas import write_schemas

write_schemas()
