"""Writes span tables as Jaeger's query service answers them; and reads them back in plain Python."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from perflab.trace.schema import SPAN_COLUMNS, span_table


def to_jaeger(table: pd.DataFrame, *, with_logs: bool = False, with_kinds: bool = True) -> dict[str, Any]:
    """Return the answer of Jaeger's ``/api/traces``; times are whole microseconds."""
    traces: dict[str, dict[str, Any]] = {}
    plain = table.astype({name: "str" for name, dtype in SPAN_COLUMNS.items() if dtype == "category"})
    for row in plain.to_dict("records"):
        trace = traces.setdefault(
            row["trace_id"], {"traceID": row["trace_id"], "spans": [], "processes": {}, "warnings": None}
        )
        who = (row["service"], row["host"])
        names = {(of["serviceName"], of["tags"][0]["value"]): name for name, of in trace["processes"].items()}
        if who not in names:
            names[who] = f"p{len(names) + 1}"
            trace["processes"][names[who]] = {
                "serviceName": row["service"],
                "tags": [{"key": "hostname", "type": "string", "value": row["host"]}],
            }
        trace["spans"].append(_span(row, names[who], with_logs=with_logs, with_kinds=with_kinds))
    return {"data": list(traces.values()), "total": 0, "limit": 0, "offset": 0, "errors": None}


def _span(row: dict[str, Any], process: str, *, with_logs: bool, with_kinds: bool) -> dict[str, Any]:
    attributes = json.loads(row["attributes"]) if row["attributes"] else {}
    types: dict[type, str] = {bool: "bool", int: "int64", float: "float64"}
    tags = [
        {"key": key, "type": types.get(type(value), "string"), "value": value}
        for key, value in attributes.items()
    ]
    if with_kinds:
        tags.append({"key": "span.kind", "type": "string", "value": row["kind"]})
    if row["status"] != "unset":
        tags.append({"key": "otel.status_code", "type": "string", "value": row["status"].upper()})
    if row["shadow"]:
        tags.append({"key": "user_agent.synthetic.type", "type": "string", "value": "test"})
    tags.append({"key": "internal.span.format", "type": "string", "value": "otlp"})
    references = []
    if row["parent_span_id"]:
        parent = f"{row['parent_span_id']:016x}"
        references.append({"refType": "CHILD_OF", "traceID": row["trace_id"], "spanID": parent})
    logs = []
    if with_logs:
        fields = [{"key": "event", "type": "string", "value": "something happened"}]
        logs.append({"timestamp": row["start_ns"] // 1000, "fields": fields})
    return {
        "traceID": row["trace_id"],
        "spanID": f"{row['span_id']:016x}",
        "operationName": row["name"],
        "references": references,
        "startTime": row["start_ns"] // 1000,
        "duration": row["duration_ns"] // 1000,
        "tags": tags,
        "logs": logs,
        "processID": process,
        "warnings": None,
    }


def to_microseconds(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose times Jaeger can hold."""
    return table.assign(
        start_ns=table["start_ns"] // 1000 * 1000, duration_ns=table["duration_ns"] // 1000 * 1000
    )


def with_tags(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return a table with attributes as a shop's spans have them: some alike, some of their own."""
    rng = np.random.default_rng(seed)
    routes = rng.integers(0, 50, len(table)).tolist()
    users = rng.integers(0, 10**6, len(table)).tolist()
    common = {"http.method": "GET", "http.status_code": 200, "component": "net/http", "net.peer.port": 8080}
    texts = [
        json.dumps({**common, "http.route": f"/items/{route}", "user.id": user})
        for route, user in zip(routes, users, strict=True)
    ]
    return table.assign(attributes=pd.array(texts, dtype="str"))


def read_plainly(path: Path) -> pd.DataFrame:
    """Read a file of `to_jaeger` the plain way: json.load, dictionaries, one row at a time."""
    with path.open() as file:
        content = json.load(file)
    columns: dict[str, list[Any]] = defaultdict(list)
    for trace in content["data"]:
        for span in trace["spans"]:
            process = trace["processes"][span["processID"]]
            tags = {tag["key"]: tag["value"] for tag in span["tags"]}
            references = span["references"]
            columns["trace_id"].append(span["traceID"])
            columns["span_id"].append(int(span["spanID"], 16))
            columns["parent_span_id"].append(int(references[0]["spanID"], 16) if references else 0)
            columns["service"].append(process["serviceName"])
            columns["host"].append(process["tags"][0]["value"])
            columns["name"].append(span["operationName"])
            columns["kind"].append(tags.pop("span.kind"))
            columns["status"].append(tags.pop("otel.status_code", "unset").lower())
            columns["shadow"].append(tags.pop("user_agent.synthetic.type", "") == "test")
            columns["start_ns"].append(span["startTime"] * 1000)
            columns["duration_ns"].append(span["duration"] * 1000)
            columns["attributes"].append(json.dumps(tags, separators=(",", ":"), sort_keys=True))
    return span_table(columns)
