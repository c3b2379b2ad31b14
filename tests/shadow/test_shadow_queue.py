"""Messages between marked work and a shadow consumer, on a real Redis."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
import redis
import redis.asyncio
from attached_service import Service, forget, kept, marked, noted, poll, spans
from two_sides import PREFIX, Sides, TestRun

from perflab.shadow.queue import DEAD_LETTERS

Mark = dict[str, Any] | None


def push(url: str, mark: Mark, messages: list[str], how: str = "rpush") -> str:
    """Push messages as marked or ordinary work and return the trace they were pushed in."""
    forget()
    with redis.Redis.from_url(url) as client, marked(mark):
        if how == "pipeline":
            client.pipeline().rpush("jobs", *messages).execute()
        else:
            getattr(client, how)("jobs", *messages)
    return f"{spans[-1].context.trace_id:032x} {spans[-1].context.span_id:016x}"


def work_off(url: str, dsn: str, how: str, decode: bool) -> list[Any]:
    """Be a worker as a business team writes it: pop, write to the database, push on; until nothing comes."""
    forget()
    worked: list[Any] = []
    with redis.Redis.from_url(url, decode_responses=decode) as client:
        while True:
            taken: Any
            if how == "lpop":
                taken = client.lpop("jobs")
            elif how == "lmove":
                taken = client.lmove("jobs", "doing")
            elif how == "lpop 2":
                taken = client.lpop("jobs", 2)
            else:
                taken = client.blpop(["jobs"], timeout=0.05)
            if taken is None:
                break
            text = taken[1] if how == "blpop" else taken
            worked.append(text)
            with psycopg.connect(dsn) as connection:
                connection.execute("INSERT INTO item (note) VALUES (%s)", [str(text)])
            client.rpush("done", str(text))
    return worked


async def work_off_async(url: str, dsn: str, how: str, decode: bool) -> list[Any]:
    """Be an asyncio worker."""
    forget()
    worked: list[Any] = []
    async with redis.asyncio.Redis.from_url(url, decode_responses=decode) as client:
        while (taken := await client.blpop(["jobs"], timeout=0.05)) is not None:
            worked.append(taken[1])
            async with await psycopg.AsyncConnection.connect(dsn) as connection:
                await connection.execute("INSERT INTO item (note) VALUES (%s)", [str(taken[1])])
            await client.rpush("done", str(taken[1]))
    return worked


def told_spans() -> list[Any]:
    return [
        [
            span.name,
            span.kind.name,
            f"{span.context.trace_id:032x} {span.parent.span_id:016x}" if span.parent else "",
        ]
        for span in spans
        if span.kind.name == "CONSUMER"
    ]


@pytest.mark.parametrize("how", ["blpop", "lpop", "lmove", "async"])
@pytest.mark.parametrize("decode", [True, False])
def test_a_marked_message_is_worked_on_in_its_trace(
    how: str, decode: bool, service: Service, consumer: Service, sides: Sides, run: TestRun
) -> None:
    """The shadow consumer gets it as it was pushed; the work is the producer's child, in the shadow."""
    # Given: a real message in production's queue, and marked ones
    service.call(push, sides.cache, None, ["real"])
    producers = [service.call(push, sides.cache, run.mark(), [text]) for text in ("one", "two")]
    # When
    working = work_off_async if how == "async" else work_off
    worked = consumer.call(working, sides.cache, sides.app, how, decode)
    # Then
    assert worked == (["one", "two"] if decode else ["b'one'", "b'two'"])
    assert consumer.call(told_spans) == [["process jobs", "CONSUMER", parent] for parent in producers]
    assert sides.notes("production") == []
    assert sides.notes("shadow") == [str(text) for text in worked]
    assert {"jobs", f"{PREFIX}done"} <= sides.keys()
    assert {told[3] for told in consumer.call(noted, "session")} == {True}


def read_raw(url: str, key: str) -> list[str]:
    with redis.Redis.from_url(url) as client:
        return [value.decode() for value in client.lrange(key, 0, -1)]


def test_dead_letters(service: Service, consumer: Service, sides: Sides, run: TestRun) -> None:
    """A message of a run that is over is put aside with its envelope; nobody works on it."""
    # Given
    other = sides.begin_run()
    service.call(push, sides.cache, other.mark(), ["dead"])
    service.call(push, sides.cache, run.mark(), ["alive"])
    other.kill()
    # When: the worker meets the dead one first, for which its pop answers as if nothing came
    first = consumer.call(work_off, sides.cache, sides.app, "blpop", True)
    then = consumer.call(work_off, sides.cache, sides.app, "blpop", True)
    # Then
    assert (first, then) == ([], ["alive"])
    (letter,) = read_raw(sides.cache, f"{PREFIX}{DEAD_LETTERS}jobs")
    assert letter.startswith("perflab-envelope 1 00-")
    assert f" 2.{other.tag:04x}." in letter
    assert letter.endswith("\ndead")
    assert sides.notes("shadow") == ["alive"]
    other.remove()


def test_a_batch_with_one_dead_message_is_dead(
    service: Service, consumer: Service, sides: Sides, run: TestRun
) -> None:
    """Popped together they cannot be told apart by the worker: all are put aside, none is lost."""
    # Given
    other = sides.begin_run()
    service.call(push, sides.cache, run.mark(), ["alive"])
    service.call(push, sides.cache, other.mark(), ["dead"])
    other.kill()
    # When
    worked = consumer.call(work_off, sides.cache, sides.app, "lpop 2", True)
    # Then
    assert worked == []
    letters = read_raw(sides.cache, f"{PREFIX}{DEAD_LETTERS}jobs")
    assert [letter.split("\n")[1] for letter in letters] == ["alive", "dead"]
    assert [f" 2.{live.tag:04x}." in letter for live, letter in zip((run, other), letters, strict=True)] == [
        True,
        True,
    ]
    other.remove()


def test_a_batch_of_one_run_is_worked_on_at_once(
    service: Service, consumer: Service, sides: Sides, run: TestRun
) -> None:
    """Its work belongs to the first message's trace."""
    producer = service.call(push, sides.cache, run.mark(), ["one", "two"])
    assert consumer.call(work_off, sides.cache, sides.app, "lpop 2", True) == [["one", "two"]]
    assert consumer.call(told_spans) == [["process jobs", "CONSUMER", producer]]


@pytest.mark.parametrize("envelope", ["-", "- ", "00-zz-01 1.0000.0.0.0", "perflab", ""])
def test_forged_envelopes_are_dead_letters(
    envelope: str, consumer: Service, sides: Sides, run: TestRun
) -> None:
    """Whoever writes into the shadow's list by hand cannot have anything worked on as marked."""
    with sides.admin() as client:
        client.rpush(f"{PREFIX}jobs", f"perflab-envelope 1 {envelope}\nforged")
    assert consumer.call(work_off, sides.cache, sides.app, "blpop", True) == []
    assert sides.notes("shadow") == sides.notes("production") == []


def kill_between(url: str, dsn: str, phase: str) -> Any:
    if phase == "pop":
        kept["client"] = redis.Redis.from_url(url, decode_responses=True)
        return kept["client"].blpop(["jobs"], timeout=1)
    poll()
    try:
        with psycopg.connect(dsn) as connection:
            connection.execute("INSERT INTO item (note) VALUES ('late')")
    except Exception as error:
        said = str(error)
    else:
        said = "written"
    return [said, kept.pop("client").blpop(["jobs"], timeout=0.05)]


def test_a_run_killed_while_its_message_is_worked_on(
    service: Service, consumer: Service, sides: Sides, run: TestRun
) -> None:
    """The next store access of that work is refused; the worker goes on to the next message."""
    # Given
    service.call(push, sides.cache, run.mark(), ["one"])
    assert consumer.call(kill_between, sides.cache, sides.app, "pop") == ["jobs", "one"]
    # When
    run.kill()
    said, following = consumer.call(kill_between, sides.cache, sides.app, "work")
    # Then
    assert "the run is not live any more" in said
    assert following is None
    assert sides.notes("shadow") == sides.notes("production") == []


def test_an_ordinary_worker_never_sees_marked_messages(
    service: Service, plain: Service, sides: Sides, run: TestRun
) -> None:
    """Neither with the agent nor without; and what it works on is production's."""
    service.call(push, sides.cache, run.mark(), ["marked"])
    service.call(push, sides.cache, None, ["real"])
    assert service.call(work_off, sides.cache, sides.app, "blpop", True) == ["real"]
    assert sides.notes("production") == ["real"]
    assert read_raw(sides.cache, "done") == ["real"]


def read_list_itself(url: str, mark: Mark) -> list[Any]:
    with redis.Redis.from_url(url, decode_responses=True) as client, marked(mark):
        client.rpush("recent", "a", "b")
        return [client.lrange("recent", 0, -1), client.lpop("recent"), client.lindex("recent", 0)]


def test_lists_that_are_no_queues_read_as_written(service: Service, sides: Sides, run: TestRun) -> None:
    """Marked work that reads its own list finds its values, not envelopes."""
    assert service.call(read_list_itself, sides.cache, run.mark()) == [["a", "b"], "a", "b"]


def test_a_consumer_between_messages_touches_shadows_only(
    consumer: Service, sides: Sides, run: TestRun
) -> None:
    """Idle upkeep of a shadow consumer belongs to no run and still never reaches production."""
    run.remove()
    assert consumer.call(idle_upkeep, sides.cache, sides.app) == [True, "both_shadow"]
    assert sides.keys() == {f"{PREFIX}heartbeat"}


def idle_upkeep(url: str, dsn: str) -> list[Any]:
    with redis.Redis.from_url(url) as client, psycopg.connect(dsn) as connection:
        database = connection.execute("SELECT current_database()").fetchone()
        assert database is not None
        return [client.set("heartbeat", 1), database[0]]
