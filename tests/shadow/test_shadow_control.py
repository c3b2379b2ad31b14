"""The list of live runs: who may write it, how long it is believed, and how fast a kill is heard."""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
from pathlib import Path

import pytest
from attached_stage import KEY, Stage, stage_in, until

from perflab.errors import ConfigError
from perflab.shadow.control import (
    STALE_AFTER_S,
    ControlList,
    ControlPublisher,
    ControlReader,
    LiveRun,
    decode,
    encode,
    run_key,
)

RUN = LiveRun(0x1234, "run-a", "key-a", 2_000_000_000, accepted=("shop: driver x is not covered",))


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.json"


def written(path: Path, clock: Clock, *runs: LiveRun, ago_s: float = 0.0, key: bytes = KEY, **delays: int):
    path.write_bytes(encode(ControlList(clock.now_s - ago_s, runs, delays), key))


def test_a_list_comes_back_as_it_was_written():
    """What is signed is read back whole; a run's key is derived, the same on both sides."""
    control = ControlList(12.5, (RUN,), {"stock: SELECT": 5})
    found = decode(encode(control, KEY), KEY)
    assert found == control
    assert run_key(KEY, found.runs[0]) == run_key(KEY, RUN)
    assert run_key(KEY, RUN).key != run_key(b"another", RUN).key
    assert KEY not in encode(control, KEY)
    assert run_key(KEY, RUN).key.hex().encode() not in encode(control, KEY)


def test_delays_can_be_waited():
    """A delay that no clock could wait is none, or cut short: it must never be an error in a service."""
    found = decode(encode(ControlList(1.0, (), {"a": -5, "b": 10**30, "c": 7}), KEY), KEY)
    assert found.delays_ns == {"a": 0, "b": 60 * 10**9, "c": 7}


def test_every_altered_byte_of_a_list_is_noticed():
    """A list altered anywhere is not believed, or still says the same."""
    content = encode(ControlList(12.5, (RUN,)), KEY)
    for position in range(len(content)):
        mutant = content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
        try:
            found = decode(mutant, KEY)
        except ConfigError:
            continue
        assert found == ControlList(12.5, (RUN,)), mutant


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b'{"payload": 1, "signature": null}',
        encode(ControlList(12.5, (RUN,)), b"other"),
    ],
)
def test_what_is_no_signed_list_is_refused(content: bytes):
    """Garbage and lists signed with another key are wrong input, whatever they hold."""
    with pytest.raises(ConfigError, match="list of live runs"):
        decode(content, KEY)


def test_a_list_goes_stale(path: Path, clock: Clock):
    """Five seconds after it was issued nothing in a list is believed, and a newer one brings it back."""
    # Given a fresh list
    reader = ControlReader(str(path), KEY, clock)
    written(path, clock, RUN, entity=7)
    reader.poll()
    assert set(reader.live or {}) == {RUN.tag}
    assert reader.is_live(RUN.tag)
    assert reader.delay_ns("entity") == 7
    # When nobody issues another for five seconds
    clock.now_s += STALE_AFTER_S
    assert reader.is_live(RUN.tag)
    clock.now_s += 0.01
    reader.poll()
    # Then nothing is live, but the run's key is remembered, and the next list is believed again
    assert reader.live is None
    assert not reader.is_live(RUN.tag)
    assert reader.delay_ns("entity") == 0
    assert set(reader.seen) == {RUN.tag}
    written(path, clock, RUN)
    reader.poll()
    assert reader.is_live(RUN.tag)


def test_a_run_ends_by_kill_by_removal_and_by_time(path: Path, clock: Clock):
    """Killed, unlisted and expired runs are not live; their keys stay known, to refuse their marks."""
    # Given two runs, one of them killed
    reader = ControlReader(str(path), KEY, clock)
    killed = LiveRun(0x2222, "run-b", "key-b", 2_000_000_000, killed=True)
    written(path, clock, RUN, killed)
    reader.poll()
    assert set(reader.live or {}) == {RUN.tag}
    assert reader.accepted(RUN.tag) == {"shop: driver x is not covered"}
    assert reader.run_ids == {0x1234: "run-a", 0x2222: "run-b"}
    # When the other leaves the list
    clock.now_s += 1
    written(path, clock)
    reader.poll()
    # Then none is live and both are remembered
    assert reader.live == {}
    assert set(reader.seen) == {RUN.tag, killed.tag}
    # And a listed run is not live after its time
    clock.now_s = 2_000_000_001.0
    written(path, clock, RUN)
    reader.poll()
    assert not reader.is_live(RUN.tag)


def test_an_older_list_served_again_is_not_believed(path: Path, clock: Clock):
    """A replayed list, signed as it is, cannot bring back a run that was withdrawn."""
    # Given a list with a run, kept by someone, and a newer one without it
    reader = ControlReader(str(path), KEY, clock)
    written(path, clock, RUN)
    old = path.read_bytes()
    reader.poll()
    clock.now_s += 1
    written(path, clock)
    reader.poll()
    # When the older one is served again
    path.write_bytes(old)
    reader.poll()
    # Then it is not believed, and it is said why
    assert reader.live == {}
    assert "older" in reader.problem


def test_of_two_threads_that_poll_the_newer_list_is_believed(path: Path, clock: Clock):
    """A poll that was held up between reading and believing does not bring back a run that is over."""
    # Given a reader whose clock is asked between the two, at which moment another thread's poll comes
    written(path, clock, RUN, ago_s=1.0)
    meanwhile = iter([lambda: (written(path, clock), reader.poll())])

    def interrupted() -> float:
        next(meanwhile, lambda: None)()
        return clock()

    reader = ControlReader(str(path), KEY, interrupted)
    # When it polls
    reader.poll()
    # Then the run that the newer list has no more is over
    assert not reader.live
    assert reader.seen == {}
    assert reader.problem == "an older list was served after a newer one"


def test_a_list_from_the_future_is_not_believed_and_does_no_lasting_harm(path: Path, clock: Clock):
    """A controller whose clock was wrong once does not silence the right ones that follow."""
    reader = ControlReader(str(path), KEY, clock)
    written(path, clock, RUN, ago_s=-3600)
    reader.poll()
    assert reader.live is None
    assert "clocks differ" in reader.problem
    written(path, clock, RUN)
    reader.poll()
    assert reader.is_live(RUN.tag)


def test_whatever_is_served_the_reader_goes_on(path: Path, clock: Clock):
    """No content ends the polling; what cannot be believed is a problem that is told."""
    reader = ControlReader(str(path), KEY, clock)
    for content in (b"", b"[" * 100_000, b"\xff\xfe", encode(ControlList(clock.now_s, (RUN,)), b"wrong")):
        path.write_bytes(content)
        reader.poll()
        assert reader.live is None
        assert reader.problem
    path.unlink()
    reader.poll()
    assert "No such file" in reader.problem


def test_a_list_is_read_from_a_url(clock: Clock):
    """A URL is polled like a file; what its server may answer instead does no harm."""
    # Given a server that answers what it is told
    answers = [encode(ControlList(clock.now_s, (RUN,)), KEY)]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if answers[-1] == b"no http":
                self.wfile.write(b"what?\r\n\r\n")
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers[-1])

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        reader = ControlReader(f"http://127.0.0.1:{server.server_address[1]}/runs", KEY, clock)
        # When it serves the list, then something else
        reader.poll()
        assert reader.is_live(RUN.tag)
        answers.append(b"no http")
        reader.poll()
        server.shutdown()
        thread.join()
    # Then the first is believed until it is stale, and the second is a problem
    assert reader.problem
    assert reader.is_live(RUN.tag)
    reader.poll()
    assert "refused" in reader.problem


def test_a_publisher_adds_kills_delays_and_withdraws(path: Path):
    """What a controller does is in the file at once; leaving withdraws every run."""
    with ControlPublisher(path, KEY) as publisher:
        key = publisher.add(RUN)
        publisher.delay({"a -> b": 9})
        first = decode(path.read_bytes(), KEY)
        assert (first.runs, first.delays_ns) == ((RUN,), {"a -> b": 9})
        assert key == run_key(KEY, RUN)
        publisher.kill(RUN.tag)
        publisher.kill(0x9999)
        assert [run.killed for run in decode(path.read_bytes(), KEY).runs] == [True]
        until(lambda: decode(path.read_bytes(), KEY).issued_s > first.issued_s + 0.9, "another issue")
        publisher.remove(RUN.tag)
        assert decode(path.read_bytes(), KEY).runs == ()
        publisher.add(RUN)
    assert decode(path.read_bytes(), KEY).runs == ()
    assert os.listdir(path.parent) == ["control.json"]


def test_a_list_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path):
    """The first publication fails loudly, for the run must not begin."""
    with (
        pytest.raises(OSError, match="No such file"),
        ControlPublisher(tmp_path / "absent" / "control.json", KEY),
    ):
        pass
    target = tmp_path / "control.json"
    target.mkdir()
    with pytest.raises(OSError, match="directory"):
        ControlPublisher(target, KEY).publish()
    assert os.listdir(tmp_path) == ["control.json"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory):
    with stage_in(tmp_path_factory.mktemp("stage")) as opened:
        yield opened


def test_a_kill_is_heard_in_an_attached_process_within_two_seconds(stage: Stage):
    """From the kill switch to the refusal in a service: under two seconds, without a restart."""
    # Given a service that serves a run's marked requests
    service = stage.serve("flask_shop:app")
    run = stage.live()
    until(lambda: service.get("/items/1", stage.marked(run))[0] == 200, "the run being believed")
    bare = {"traceparent": stage.marked(run)["traceparent"]}
    assert service.get("/items/1", bare)[0] == 200
    # When the run is killed
    stage.publisher.kill(run.tag)
    killed_s = time.monotonic()
    until(lambda: service.get("/items/1", stage.marked(run))[0] == 403, "the kill being heard")
    took_s = time.monotonic() - killed_s
    # Then its marks are refused in time, also where only the trace-id is left, and others go on
    assert took_s < 2
    status, body = service.get("/items/1", {"traceparent": stage.marked(run)["traceparent"]})
    assert (status, body["error"].rpartition(": ")[2]) == (403, "run not live")
    assert service.get("/items/1", stage.marked())[0] == 200
    assert service.get("/items/1")[0] == 200


def test_a_list_that_is_gone_refuses_marks_and_serves_users(stage: Stage):
    """Nobody publishes any more: after five seconds every mark is refused, real users notice nothing."""
    # Given a service that believes a copy of the list that nobody renews
    copy = stage.directory / "copy.json"
    copy.write_bytes(stage.control.read_bytes())
    service = stage.serve("flask_shop:app", target={"control": str(copy)})
    content = json.loads(copy.read_text())
    issued_s = json.loads(content["payload"])["issued_s"]
    # When it is five seconds old
    until(lambda: service.get("/items/1", stage.marked())[0] == 403, "the list going stale")
    # Then marks are refused, and only marks
    assert time.time() - issued_s > STALE_AFTER_S
    status, body = service.get("/items/1", stage.marked())
    assert (status, body["error"].rpartition(": ")[2]) == (403, "stale control list")
    assert service.get("/items/1")[0] == 200


def test_the_control_key_changes_while_services_run(path: Path, clock: Clock):
    """A reader reads its key at every poll: a new one is believed, one taken out signs nothing any more."""
    keys = [b"old"]
    reader = ControlReader(str(path), lambda: keys[0], clock)
    written(path, clock, RUN, key=b"old")
    reader.poll()
    before = (reader.live or {})[RUN.tag]
    # When the new key is written above the old one, both are believed, each with run keys of its own
    keys[0] = b"new\nold"
    written(path, clock, RUN, key=b"new")
    reader.poll()
    after = (reader.live or {})[RUN.tag]
    assert (reader.problem, after.key == before.key) == ("", False)
    assert after == run_key(b"new\nold", RUN)
    # When the old one is taken out, what it signs is not believed any more
    keys[0] = b"new"
    written(path, clock, RUN, key=b"old")
    reader.poll()
    assert "not signed with this control key" in reader.problem


def test_runs_of_different_key_ids_have_different_keys():
    """Neither another run's key id nor another tag gives the same key."""
    keys = {run_key(KEY, LiveRun(tag, "r", name, 5)).key for tag in (1, 2) for name in ("a", "b")}
    assert len(keys) == 4
