"""Probes of what loses its mark, or goes around a driver, for the list of mutations."""

from __future__ import annotations

from isolation import gone_astray
from isolation.mutation_ground import Ground


def canary(ground: Ground) -> list[str]:
    """Have a thread of the service write what marked work had handed to it without its mark."""
    note = ground.run.canary()
    said = ground.service.call(gone_astray.written_by_a_running_thread, ground.url("soak_shop"), note)
    wrongs = ["leak: what marked work handed on is in production"] if ground.where(note) else []
    ground.wrongs()  # a transaction nobody told, where it leaked
    return wrongs + ([] if wrongs or "its mark was lost" in said else [f"refused: elsewhere: {said}"])


def goes_on(ground: Ground) -> list[str]:
    """Have marked work start a thread that goes on after it."""
    told = ground.service.call(gone_astray.thread_goes_on, ground.mark())
    return [] if any("goes on after its request" in why for why in told) else [f"unnoticed: {told}"]


def libpq(ground: Ground) -> list[str]:
    """Have marked work write to production by libpq itself."""
    note = ground.note()
    said = ground.service.call(gone_astray.written_by_libpq, ground.url("soak_shop"), ground.mark(), note)
    wrongs = ["leak: a marked item is in production"] if ground.where(note) else []
    ground.wrongs()
    return wrongs + ([] if wrongs or "ShadowError" in said else [f"refused: elsewhere: {said}"])
