"""Names of 0.1 that go on working for one release, each with a warning that tells the new one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from soundsight import logs

P = ParamSpec("P")
T = TypeVar("T")


class Former:
    """A former name of an attribute or method: `windows = Former("predictions")`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __set_name__(self, owner: type, former: str) -> None:
        self.former = former

    def __get__(self, instance: Any, owner: type) -> Any:
        warn(f"{owner.__name__}.{self.former}", self.name)
        return getattr(owner if instance is None else instance, self.name)


def warn(former: str, name: str, *, stacklevel: int = 3) -> None:
    """Tell the new name of something."""
    warnings.warn(f"{former} is deprecated and is now {name}.", DeprecationWarning, stacklevel=stacklevel)


def takes_say(function: Callable[P, T]) -> Callable[P, T]:
    """Deprecated in 0.2: let a function take `say=`, which gets its messages."""

    @wraps(function)
    def called(*values: P.args, **named: P.kwargs) -> T:
        if (say := named.pop("say", None)) is None:
            return function(*values, **named)
        warn("say=", 'logging.getLogger("soundsight")')
        with logs.sent_to(say):  # type: ignore[arg-type]
            return function(*values, **named)

    return called


def renamed(**names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a function take former names of its arguments: `@renamed(shifts="tta_shifts")`."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def called(*values: P.args, **named: P.kwargs) -> T:
            for former in [name for name in named if name in names]:
                warn(f"{former}=", f"{names[former]}=")
                named[names[former]] = named.pop(former)
            return function(*values, **named)

        called.former = names  # type: ignore[attr-defined]
        return called

    return decorate
