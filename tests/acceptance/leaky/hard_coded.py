"""A stock service with production's address in its code, by a way that no setting and no target names.

Run as ``python hard_coded.py PORT``. It reaches the database by the socket file, as somebody does who
once worked on that machine.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from waitress import serve

where = urlsplit(os.environ["SHOP_DATABASE_URL"])
socket = next(Path(os.environ["PERFLAB_DEMO_SCRATCH"]).rglob(f".s.PGSQL.{where.port}"))
os.environ["SHOP_DATABASE_URL"] = (
    f"postgresql://{where.username}:{where.password}@:{where.port}/shop?host={socket.parent}"
)

from perflab.demo.shop.stock import app  # noqa: E402 - the address above is what it starts with

serve(app, host="127.0.0.1", port=int(sys.argv[1]), threads=8)
