"""A timer that wakes the event loop on time.

asyncio rounds its own timers up to a millisecond. A timerfd in the loop's selector is woken by the kernel
to the microsecond, at the cost of one file descriptor (see ``man timerfd_create``).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable

from perflab.errors import LoadError
from perflab.units import NS_PER_S

_CLOCK_MONOTONIC = 1
_TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class Ticker:
    """Calls back at absolute times of ``time.monotonic_ns``.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        The running loop.
    fire : callable
        Called once for every `arm`, at or after its time.

    Raises
    ------
    LoadError
        If the system has no timerfd (it is not Linux).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, fire: Callable[[], None]) -> None:
        self._loop = loop
        self._fire = fire
        self._libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
        except AttributeError as error:
            raise LoadError("this system has no timerfd; the generator runs on Linux") from error
        if self._fd < 0:
            raise LoadError(f"cannot make a timer: {os.strerror(ctypes.get_errno())}")
        self._open = True
        loop.add_reader(self._fd, self._woken)

    def arm(self, at_ns: int) -> None:
        """Call back at a time of ``time.monotonic_ns``; at once if it is past. Replaces the time before."""
        seconds, nanoseconds = divmod(max(at_ns, 1), NS_PER_S)
        spec = _Itimerspec(_Timespec(0, 0), _Timespec(seconds, nanoseconds))
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) != 0:
            raise LoadError(f"cannot set the timer: {os.strerror(ctypes.get_errno())}")

    def close(self) -> None:
        """Never call back again."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._fd)
            os.close(self._fd)

    def _woken(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        self._fire()
