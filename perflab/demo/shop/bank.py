"""A stand-in for a bank's API: somebody else's system, which remembers every charge it was sent."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from .settings import number

LATENCY_S = number("SHOP_BANK_LATENCY_MS", 2.0) / 1000

app = FastAPI()
charges: list[str] = []


class Charge(BaseModel):
    amount_cents: int
    reference: str = ""


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/charge", status_code=201)
async def charge(wanted: Charge) -> dict[str, Any]:
    await asyncio.sleep(LATENCY_S)
    charges.append(wanted.reference)
    return {"bank_reference": f"bank-{len(charges)}", "amount_cents": wanted.amount_cents}


@app.get("/charges")
async def list_charges() -> dict[str, Any]:
    return {"count": len(charges), "references": charges}
