"""A mutant takes the place of what it is a mutant of: the code of the function that everybody holds is exchanged."""

from __future__ import annotations

import functools
import importlib
import sys
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mutation.mutants import Mutant

PACKAGE = "gip_resilience"


class CannotSwapError(Exception):
    """There is no such function, or the mutant is not one that its module could hold."""


def swap(mutant: Mutant) -> None:
    """Let the function be the mutant from now on, for everybody who imported it.

    Raises:
        CannotSwapError: it is not to be found, or does not close over the same variables.
    """
    module = importlib.import_module(f"{PACKAGE}.{mutant.module}")
    target = find(module, mutant)
    scope = dict(vars(module))
    flags = annotations.compiler_flag
    try:
        exec(compile(mutant.source, module.__file__ or "", "exec", flags, dont_inherit=True), scope)
        owner, _, name = mutant.function.rpartition(".")
        made: Any = vars(scope[owner])[name] if owner else scope[name]
        # `__new__` and the like are made static by the class that they stand in.
        made = getattr(made, "__func__", made)
        target.__code__ = made.__code__.replace(co_firstlineno=target.__code__.co_firstlineno)
    except (NameError, ValueError) as error:
        raise CannotSwapError(f"{mutant.module}.{mutant.function}: {error}") from error
    forget()
    target.__defaults__ = made.__defaults__
    target.__kwdefaults__ = made.__kwdefaults__


def forget() -> None:
    """Empty every cache of ours: what is in it was worked out before."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == PACKAGE:
            for thing in list(vars(module).values()):
                if hasattr(thing, "cache_clear") and hasattr(thing, "__wrapped__"):
                    thing.cache_clear()


def find(module: Any, mutant: Mutant) -> FunctionType:
    """The function that stands at the mutant's lines.

    Raises:
        CannotSwapError: there is none.
    """
    owner, _, name = mutant.function.rpartition(".")
    held = vars(getattr(module, owner) if owner else module).get(name)
    for function in _functions(held):
        if mutant.lines[0] <= function.__code__.co_firstlineno <= mutant.lines[1]:
            return function
    raise CannotSwapError(f"{mutant.module}.{mutant.function} is not to be found")


def _functions(held: Any) -> Iterator[FunctionType]:
    """What is inside a property, a method of the class, a cache, a context manager."""
    if isinstance(held, property):
        for function in (held.fget, held.fset, held.fdel):
            yield from _functions(function)
    elif isinstance(held, staticmethod | classmethod):
        yield from _functions(held.__func__)
    elif isinstance(held, functools.cached_property):
        yield from _functions(held.func)
    elif held is not None:
        if hasattr(held, "__wrapped__"):
            yield from _functions(held.__wrapped__)
        if isinstance(held, FunctionType):
            yield held
