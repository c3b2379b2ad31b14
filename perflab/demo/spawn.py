"""Start a child process that cannot outlive us, whatever way we die.

Linux tells a child that its parent is gone (``PR_SET_PDEATHSIG``), but the parent it watches is
the *thread* that forked, and a change of user clears the wish. So every child is forked by one
thread that lives as long as the process, and passes through a few lines of Python which drop the
privileges, ask for the signal, check that the parent is still there, and become the wanted program
(the process id stays). The signal reaches the child alone, not the children's children: a program
with children must end them when it ends, or be swept by the next run (`perflab.demo.scratch`).
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

SCRATCH_VARIABLE = "PERFLAB_DEMO_SCRATCH"

_BECOME = """
import ctypes, os, sys
parent, death_signal, uid, gid = map(int, sys.argv[1:5])
if uid >= 0:
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
if ctypes.CDLL(None, use_errno=True).prctl(1, death_signal, 0, 0, 0):
    sys.exit("prctl(PR_SET_PDEATHSIG): " + os.strerror(ctypes.get_errno()))
if os.getppid() != parent:
    sys.exit(0)
try:
    os.execvp(sys.argv[5], sys.argv[5:])
except OSError as error:
    sys.exit(f"cannot start {sys.argv[5]}: {error.strerror}")
"""


@dataclass(frozen=True)
class Account:
    """The user a child runs as."""

    uid: int
    gid: int


def start_child(
    argv: Sequence[str],
    *,
    log_path: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    account: Account | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
    record: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, its output appended to a log.

    Parameters
    ----------
    argv
        The program and its arguments.
    log_path
        Where standard output and standard error go.
    env
        The whole environment; ours when left out.
    account
        The user to become first (we must be root).
    death_signal
        What the child receives when this process dies.
    record
        A file for the child's process id and start time, read by `perflab.demo.scratch.sweep_leftovers`.

    Raises
    ------
    OSError
        The log cannot be written, or the working directory is not there. A program that cannot be
        started says so in its log and ends with status 1.
    """
    who = account or Account(-1, -1)
    become = [sys.executable, "-I", "-S", "-c", _BECOME]
    wishes = [str(number) for number in (os.getpid(), int(death_signal), who.uid, who.gid)]

    def fork() -> subprocess.Popen[bytes]:
        with log_path.open("ab") as log:
            return subprocess.Popen(
                [*become, *wishes, *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
            )

    child = _on_lasting_thread(fork)
    if record is not None:
        record.write_text(f"{child.pid} {start_ticks(child.pid)} {boot_id()}\n")
    return child


def start_ticks(pid: int) -> int | None:
    """Read when a process started, in clock ticks since boot; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    return int(stat.rpartition(")")[2].split()[19])


def boot_id() -> str:
    """Read the identity of this boot, without which ticks since boot prove nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Say whether a child is over, without reaping it: until it is reaped nobody else gets its process id."""
    if child.returncode is not None:
        return True
    try:
        return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def end_child(child: subprocess.Popen[bytes], *steps: tuple[signal.Signals, float]) -> int:
    """End a child and its process group: each signal in turn, then so many seconds to obey, at last SIGKILL.

    Returns the exit status, negative for a signal.
    """
    if child.returncode is not None:
        return child.returncode
    for number, grace_s in steps:
        if has_ended(child):
            break
        os.killpg(child.pid, number)
        _wait_for_end(child.pid, grace_s)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # not reaped yet, so the group is still ours
    return child.wait()


def free_port() -> int:
    """Find a TCP port of 127.0.0.1 that is free now, outside the range of outgoing connections.

    A port in the ephemeral range can be taken by any client between our look and the server's bind.
    """
    for _ in range(200):
        port = random.randint(20_000, 32_000)
        if port_is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    """Try to bind a TCP port of 127.0.0.1 the way a server would."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def last_lines(path: Path, count: int = 15) -> str:
    """Return the end of a log, indented, for an error message."""
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        return f"    (cannot be read: {error.strerror})"
    lines = text.splitlines()[-count:]
    return "\n".join(f"    {line}" for line in lines) if lines else "    (empty)"


def wait_until(ready: Callable[[], bool], deadline_s: float, every_s: float = 0.02) -> bool:
    """Poll a condition until it holds or the deadline has passed; say which."""
    until = time.monotonic() + deadline_s
    while not ready():
        if time.monotonic() > until:
            return False
        time.sleep(every_s)
    return True


_jobs: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]] = (
    queue.SimpleQueue()
)
_thread: threading.Thread | None = None
_thread_pid = 0
_lock = threading.Lock()


def _on_lasting_thread(fork: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    global _thread, _thread_pid
    with _lock:
        if _thread is None or _thread_pid != os.getpid():
            _thread = threading.Thread(target=_serve, name="demo-children", daemon=True)
            _thread_pid = os.getpid()
            _thread.start()
    answer: Future[subprocess.Popen[bytes]] = Future()
    _jobs.put((fork, answer))
    return answer.result()


def _serve() -> None:
    while True:
        fork, answer = _jobs.get()
        try:
            answer.set_result(fork())
        except BaseException as error:
            answer.set_exception(error)


def _wait_for_end(pid: int, timeout_s: float) -> None:
    handle = os.pidfd_open(pid)
    try:
        select.select([handle], [], [], timeout_s)
    finally:
        os.close(handle)
