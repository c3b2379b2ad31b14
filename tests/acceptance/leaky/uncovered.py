"""A stock service that talks to its database through pg8000, a driver that perflab does not cover.

Run as ``python uncovered.py PORT``.
"""

from __future__ import annotations

import os
import sys

from sqlalchemy import create_engine
from waitress import serve

from perflab.demo.shop import stock

address = os.environ["SHOP_DATABASE_URL"].replace("postgresql://", "postgresql+pg8000://", 1)
stock.engine = create_engine(address, pool_size=8, max_overflow=0)
serve(stock.app, host="127.0.0.1", port=int(sys.argv[1]), threads=8)
