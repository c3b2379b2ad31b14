"""Drivers written in C: classes that stand in for the driver's own, and the steps their calls go through.

Connections and cursors of such a driver cannot be patched, so a subclass of each stands in for it in the
driver's modules, under the same name. What a service subclasses, makes or asks ``isinstance`` of is then
ours, and the fence lies beneath whatever a service's own class does. Every call that sends is a `Step`:
fenced for marked work, traced for everybody, claimed for ordinary work.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn

from opentelemetry.trace import Span

from perflab.shadow import canaries, scope
from perflab.shadow.scope import process
from perflab.shadow.sql import session
from perflab.shadow.sql.session import Session, session_of


class Step:
    """One call under way. What it does for tracing and claims is never in the way of ordinary work.

    Parameters
    ----------
    call : str
        Name of the method.
    owner
        What it was called on.
    arguments, options
        Of the call.
    """

    kind: ClassVar[str]
    name = ""
    span: Span | None = None
    planted_ns = 0
    successor: Any = None
    """What the call is made on instead, once ordinary work took the connection over, if it is another."""

    def __init__(self, call: str, owner: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.call, self.owner, self.arguments, self.options = call, owner, arguments, options
        self.began_ns = time.time_ns()
        self.connection: Any = None
        self.session: Session | None = None
        self._working = True
        self._guard(self._start)

    @staticmethod
    def lose(connection: Any) -> BaseException | None:
        """Close a connection at once and return the driver's error of a lost one; None if it was closed."""
        connection.close()
        return ConnectionError(session.LOST)

    @staticmethod
    def connected(owner: Any) -> Any:
        """Return the connection a call on ``owner`` sends on."""
        return getattr(owner, "connection", None)

    def take_over(self, _instead: Callable[..., Any]) -> bool:
        """Have ordinary work go on with what is opened instead; tell whether it does. Here it cannot."""
        return False

    def undisturbed(self) -> contextlib.AbstractContextManager[Any]:
        """Return what keeps ordinary work from taking the connection over meanwhile; here nothing."""
        return contextlib.nullcontext()

    def begin(self) -> None:
        """Do what comes before; here nothing."""

    def finish(self, error: BaseException | None) -> None:
        """Do what comes after, when it went well and when not; here nothing."""

    def rolls_back(self) -> bool:
        """Tell whether the call only gives up what was begun: always allowed on a shadow."""
        return False

    def prepare(self) -> tuple[Any, ...]:
        """Return the arguments to call with; refuses marked work that may not send them."""
        return self.arguments

    def instead(self, error: BaseException) -> BaseException:
        """Return the error to raise when the driver raised this one."""
        return error

    def run(self, method: Callable[..., Any]) -> Any:
        """Make the call."""
        try:
            if self.planted_ns:
                scope.sleep(self.planted_ns)
            canaries.watch(self.kind, (self.arguments, self.options))
            with self._allowance(), self.undisturbed():
                if scope.current() is not None or (self.session is not None and self.session.shadow):
                    session.admit(self.session, self.kind, lambda: self.lose(self.connection), self.take_over)
                if self.successor is None:
                    result = method(self.owner, *self.prepare(), **self.options)
                else:
                    result = type(self)(self.call, self.successor, self.arguments, self.options).run(method)
        except BaseException as error:
            raised = self.instead(error)
            self._end(raised)
            if raised is error:
                raise
            raise raised from error
        self._end(None)
        return result

    @property
    def counted(self) -> Session | None:
        """The session, if writes on it are to be claimed."""
        return self.session if self.session is not None and self.session.claims else None

    def argument(self, at: int, name: str, default: Any = None) -> Any:
        """Return an argument of the call, however it was given."""
        return given(self.arguments, self.options, at, name, default)

    def _start(self) -> None:
        self.connection = self.connected(self.owner)
        self.session = session_of(self.connection)
        self.begin()
        self.planted_ns = scope.delay_ns(self.name) if self.span is not None else 0

    def _allowance(self) -> contextlib.AbstractContextManager[Any]:
        if self._working and self.rolls_back():
            return session.upkeep(self.session)
        return contextlib.nullcontext()

    def _end(self, error: BaseException | None) -> None:
        if self.span is not None:
            span = self.span
            self._guard(lambda: scope.finish(span, error))
        if self._working:
            self._guard(lambda: self.finish(error))

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as failure:
            self._working = False
            process.ledger.step_aside(f"{self.kind}: {self.call}: {type(failure).__name__}")


def stepped(method: Callable[..., Any], step_class: type[Step], name: str = "") -> Callable[..., Any]:
    """Return a method whose calls are steps.

    Parameters
    ----------
    method : callable
        The driver's.
    step_class : type
        What its calls are.
    name : str
        Of the call, where it is not the method's.
    """
    call = name or method.__name__

    @functools.wraps(method)
    def attached(self: Any, *arguments: Any, **options: Any) -> Any:
        if _passes_by(step_class.connected(self)):
            return method(self, *arguments, **options)
        return step_class(call, self, arguments, options).run(method)

    return attached


class Classes:
    """A driver's own classes, and ours that stand in for them, both by name.

    Parameters
    ----------
    driver : str
        Its package.
    kind : str
        Of its stores.
    """

    def __init__(self, driver: str, kind: str) -> None:
        self.driver, self.kind = driver, kind
        self.own: dict[str, Any] = {}
        self.ours: dict[str, Any] = {}

    def stand_in(self, original: type, ours: type, steps: Mapping[str, type[Step]], *slots: str) -> None:
        """Make the class that stands in for one of the driver's.

        Parameters
        ----------
        original : type
            The driver's class.
        ours : type
            Without a base, with empty slots: methods that replace the driver's.
        steps : mapping of str to type
            Which methods' calls are which steps, and which attributes are set in a step; what this version
            of the driver does not have is left out.
        *slots : str
            Attributes of ours. An instance has no more room than the driver's.
        """
        body: dict[str, Any] = {"__doc__": original.__doc__, "__slots__": slots}
        for name, step_class in steps.items():
            there = original.__dict__.get(name)
            if callable(there):
                body[name] = stepped(there, step_class)
            elif there is not None:
                body[name] = property(there.__get__, _set_with(there, step_class, name), doc=there.__doc__)
        for name, method in vars(ours).items():
            if inspect.isfunction(method) and name in original.__dict__:
                functools.update_wrapper(method, original.__dict__[name])
        name = original.__name__.lower()
        self.own[name] = original
        self.ours[name] = _named_like(original, type(original.__name__, (ours, original), body))

    def put_in_place(self) -> None:
        """Put ours in the place of the driver's, once all could be made."""
        for name, original in self.own.items():
            replace(self.driver, original, self.ours[name])

    def fenced(self, factory: Any, name: str) -> Any:
        """Return the class to make a connection or cursor with, None where there can be no fence.

        Parameters
        ----------
        factory
            As the service gave it; None: the driver's own class.
        name : str
            Of the class it makes.
        """
        if factory is None:
            return self.ours[name]
        if isinstance(factory, type) and issubclass(factory, self.own[name]):
            try:
                return beneath(factory, self.ours[name])
            except TypeError:
                return None
        return None

    def checked(self, made: Any, factory: Any, name: str) -> Any:
        """Return what a factory made; what has no fence is refused to marked work, and a hole.

        Parameters
        ----------
        made
            A connection, or what a connection made.
        factory
            As the service gave it.
        name : str
            Of the class it made.

        Raises
        ------
        ShadowError
            If marked work made it.
        """
        if isinstance(made, self.ours[name]):
            return made
        if scope.current() is not None:
            made.close()
            self.refuse_factory(factory)
        module, of = (
            getattr(factory, "__module__", ""),
            getattr(factory, "__qualname__", type(factory).__name__),
        )
        process.ledger.uncovered.add(f"{self.driver} with {module}.{of}")
        process.ledger.step_aside(f"{self.driver}: made by {module}.{of}, which cannot be fenced")
        return made

    def refuse_factory(self, factory: Any) -> NoReturn:
        """Refuse marked work that makes a connection or cursor with a factory that allows no fence."""
        why = f"what {factory!r} makes cannot be fenced; make it a class that is derived from {self.driver}'s"
        scope.refuse(self.kind, why)


def given(
    arguments: tuple[Any, ...], options: dict[str, Any], at: int, name: str, default: Any = None
) -> Any:
    """Return an argument of a call, however it was given.

    Parameters
    ----------
    arguments, options
        Of the call.
    at, name
        Where it is in the signature.
    default
        Where it was not given.
    """
    return arguments[at] if len(arguments) > at else options.get(name, default)


def with_given(
    arguments: tuple[Any, ...], options: dict[str, Any], at: int, name: str, value: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call with one of them replaced.

    Parameters
    ----------
    arguments, options
        Of the call.
    at, name
        Where it is in the signature.
    value
        What it shall be.
    """
    if len(arguments) > at:
        return (*arguments[:at], value, *arguments[at + 1 :]), options
    return arguments, {**options, name: value}


@functools.lru_cache(maxsize=256)
def beneath(theirs: Any, ours: Any) -> Any:
    """Return a class of a service with the fence beneath it: itself where it has it already.

    Classes made before the driver was hooked have not: they get a subclass under the same name.

    Raises
    ------
    TypeError
        If there can be no such class, as its instances are laid out otherwise.
    """
    if issubclass(theirs, ours):
        return theirs
    if issubclass(ours, theirs):
        return ours
    return _named_like(theirs, type(theirs.__name__, (theirs, ours), {"__slots__": ()}))


def replace(package: str, old: Any, new: Any) -> None:
    """Put something in the place of another in all modules of a package that are loaded.

    Parameters
    ----------
    package : str
        Its name; its C part may be a module beside it, with an underscore before that name.
    old, new
        What is replaced wherever it stands, by what.
    """
    for name, module in list(sys.modules.items()):
        if module is not None and name.removeprefix("_").partition(".")[0] == package:
            for attribute, value in list(vars(module).items()):
                if value is old:
                    setattr(module, attribute, new)


def _passes_by(connection: Any) -> bool:
    """Tell whether a call may go on without being a step: nothing is to be noted, and no side is at stake."""
    known = session_of(connection)
    return (known is None or not known.shadow) and session.pass_by(connection)


def _set_with(descriptor: Any, step_class: type[Step], name: str) -> Callable[[Any, Any], None]:
    def attached(self: Any, value: Any) -> None:
        step_class(name, self, (value,), {}).run(descriptor.__set__)

    return attached


def _named_like(original: type, made: type) -> type:
    made.__module__, made.__qualname__ = original.__module__, original.__qualname__
    return made
