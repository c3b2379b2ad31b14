"""A private directory for one demo, and the sweeping up after demos that were killed.

Each run holds a lock (``flock``) in its directory for as long as it lives; the kernel lets go of it
however the run dies. So a directory whose lock is free belongs to a run that is over. Of its
processes only those are ended which the run provably started: process id, start time and boot as
the run wrote them down, or the run's directory in the process's environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import stat
import tempfile
import time
from pathlib import Path
from types import TracebackType

from .spawn import SCRATCH_VARIABLE, boot_id, start_ticks, wait_until

PREFIX = "perflab-demo-"
_LONGEST_PATH = 70  # a Unix socket's path has room for 107 characters, its file name included
_YOUNG_S = 60.0


class ScratchDirectory:
    """A locked directory of one run, gone when it is closed.

    Attributes
    ----------
    path
        The directory; others may pass through it (0711) but not list it, since PostgreSQL, started
        by root, runs as another user inside.
    """

    def __init__(self, parent: Path) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self.path.chmod(0o711)
        fresh = self.path / ".lock"
        self._lock = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.write(self._lock, f"{os.getpid()} {start_ticks(os.getpid())} {boot_id()}\n".encode())
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        fresh.rename(self.path / "lock")

    def close(self) -> None:
        """Remove the directory and let go of the lock; again does nothing."""
        if self._lock < 0:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1

    def __enter__(self) -> ScratchDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def scratch_directory() -> ScratchDirectory:
    """Make a private directory with a short path, where a server of another user can work too.

    Raises
    ------
    OSError
        None of the temporary directories will do; the message lists them.
    """
    candidates = _parents()
    for parent in candidates:
        if _will_do(parent):
            return ScratchDirectory(parent)
    raise OSError(
        f"no temporary directory will do: tried {', '.join(map(str, candidates))}. It must be writable, "
        f"have a path of at most {_LONGEST_PATH - len(PREFIX) - 10} characters and, for root, be open to "
        "other users (o+x on the way). Set TMPDIR to such a directory."
    )


def sweep_leftovers() -> list[Path]:
    """Remove what earlier runs left that were killed; return the directories removed.

    A run that is alive, a directory of another user and a process that cannot be proved to be that
    run's are left alone.
    """
    removed = []
    for parent in _parents():
        try:
            found = sorted(parent.glob(f"{PREFIX}*"))
        except OSError:
            continue
        removed += [directory for directory in found if _sweep(directory)]
    return removed


def scratch_of(path: Path) -> Path | None:
    """Find the scratch directory that a path is in."""
    return next((step for step in path.parents if step.name.startswith(PREFIX)), None)


def reachable(path: Path, uid: int, gid: int) -> bool:
    """Say whether a user without groups can pass through every directory on the way to a path."""
    for step in [path, *path.parents][1:]:
        try:
            status = step.stat()
        except OSError:
            return False
        owner, group = status.st_uid == uid, status.st_gid == gid
        if not status.st_mode & (stat.S_IXUSR if owner else stat.S_IXGRP if group else stat.S_IXOTH):
            return False
    return True


def _parents() -> list[Path]:
    wanted = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    return list(dict.fromkeys(path.resolve() for path in wanted))


def _will_do(parent: Path) -> bool:
    if not os.access(parent, os.W_OK | os.X_OK) or len(f"{parent}/{PREFIX}") + 10 > _LONGEST_PATH:
        return False
    return os.geteuid() != 0 or reachable(parent / "x", 65534, 65534)


def _sweep(directory: Path) -> bool:
    try:
        status = directory.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return False
    try:
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        # killed before it had its lock, or removing itself right now
        if time.time() - status.st_mtime < _YOUNG_S:
            return False
        shutil.rmtree(directory, ignore_errors=True)
        return not directory.exists()
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _end_processes(directory)
        shutil.rmtree(directory, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return not directory.exists()


def _end_processes(directory: Path) -> None:
    handles = [handle for pid in _proven(directory) if (handle := _hold(pid, directory)) is not None]
    try:
        # signal 0 is none: the kernel told them already that their run is over, some are just leaving
        for number, grace_s in ((0, 1.0), (signal.SIGINT, 2.0), (signal.SIGKILL, 2.0)):
            for handle in handles:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(handle, number)
            # a handle can be read once its process has ended
            if wait_until(lambda: len(select.select(handles, [], [], 0)[0]) == len(handles), grace_s):
                return
    finally:
        for handle in handles:
            os.close(handle)


def _proven(directory: Path) -> set[int]:
    found = {pid for record in directory.glob("**/*.process") if (pid := _recorded(record))}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _is_of(int(entry.name), directory):
            found.add(int(entry.name))
    return found - {os.getpid()}


def _recorded(record: Path) -> int | None:
    try:
        pid, ticks, boot = record.read_text().split()
    except (OSError, ValueError):
        return None
    same = boot == boot_id() and ticks == str(start_ticks(int(pid)))
    return int(pid) if same else None


def _is_of(pid: int, directory: Path) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"{SCRATCH_VARIABLE}={directory}".encode() in environment.split(b"\0")


def _hold(pid: int, directory: Path) -> int | None:
    """Open a handle that stays with this very process, then prove again that it is the one meant."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return None
    if pid in {_recorded(record) for record in directory.glob("**/*.process")} or _is_of(pid, directory):
        return handle
    os.close(handle)
    return None
