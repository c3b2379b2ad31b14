"""Work done inside the service for the list of mutations: its mark is lost, or it goes around a driver."""

from __future__ import annotations

import threading
from typing import Any

from attached_service import attempt, forget, marked, noted, poll, wait_for


def written_by_a_running_thread(url: str, note: str) -> str:
    """Write what a thread found in a list, as ordinary work."""
    import psycopg

    def work() -> str:
        with psycopg.connect(url) as connection:
            connection.execute("INSERT INTO item (note) VALUES (%s)", [note])
        return "done"

    poll()
    return str(attempt(work))


def thread_goes_on(mark: Any) -> list[str]:
    """Start a thread as marked work that outlives its request; return what was told of it in good time."""
    from perflab.shadow import lingering

    patience_s, lingering.LINGERS_S = lingering.LINGERS_S, 0.2
    ends = threading.Event()
    forget()
    with marked(mark):
        threading.Thread(target=ends.wait, daemon=True).start()
    told: list[str] = []
    try:
        told = wait_for(lambda: [str(why) for store, why, _ in noted("refuse")], "a word of it", 5.0)
    except AssertionError:
        told = []
    finally:
        lingering.LINGERS_S = patience_s
        ends.set()
    return told


def written_by_libpq(url: str, mark: Any, note: str) -> str:
    """Write an item by libpq itself, as marked work."""

    def work() -> str:
        from psycopg import pq

        connection = pq.PGconn.connect(url.encode())
        connection.exec_(f"INSERT INTO item (note) VALUES ('{note}')".encode())
        connection.finish()
        return "done"

    with marked(mark):
        return str(attempt(work))
