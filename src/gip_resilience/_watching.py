"""A configuration file that is looked at again while the program runs.

No thread and no handle of the operating system: whoever has a watch asks it, now and then, whether the file has
changed. Time comes in as an argument.
"""

from __future__ import annotations

import io
import os
import stat
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Protocol, Self, TypeAlias, TypeVar

import msgspec

from gip_resilience._config_errors import ConfigError
from gip_resilience._config_groups import POSITIVE
from gip_resilience._config_sources import parse_toml

if TYPE_CHECKING:
    from collections.abc import Mapping


class Model(Protocol):
    """What a file is read as: a `gip_resilience.config.Config`."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From nested plain values."""


C = TypeVar("C", bound=Model)

MAX_SIZE: Final = 1 << 20
"""Bytes of a file that are read. A configuration has a few hundred; a log or a disk image named by mistake must not
fill the memory."""


class Signature(NamedTuple):
    """What changes when a file does.

    The change time is among it for what the time of the last write does not show: permissions that were mended, and
    tools that keep that time.
    """

    mtime_ns: int
    ctime_ns: int
    size: int
    inode: int
    device: int
    regular: bool = True


class Reading(NamedTuple):
    """What a file held, and its signature before and after it was read."""

    data: bytes
    before: Signature
    after: Signature


class Files(Protocol):
    """What a watch needs of a file system."""

    def stat(self, path: str) -> Signature:
        """The signature of the file that *path* leads to, through any links.

        Raises:
            OSError: there is none, or it may not be seen.
        """

    def read(self, path: str, limit: int) -> Reading:
        """Up to *limit* bytes of a file.

        Raises:
            OSError: it cannot be read.
        """


class Disk:
    """The machine's file system."""

    __slots__ = ()

    def stat(self, path: str) -> Signature:
        """See `Files.stat`."""
        return _signature(Path(path).stat())

    def read(self, path: str, limit: int) -> Reading:
        """See `Files.read`. Does not wait for the other end of a pipe that has just taken the file's place."""
        with open(path, "rb", opener=_without_waiting) as file:
            before = _signature(os.fstat(file.fileno()))
            data = file.read(limit) if before.regular else b""
            return Reading(data, before, _signature(os.fstat(file.fileno())))


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _signature(found: os.stat_result) -> Signature:
    return Signature(
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_size,
        found.st_ino,
        found.st_dev,
        stat.S_ISREG(found.st_mode),
    )


class Change(msgspec.Struct, Generic[C], frozen=True):
    """What is new in a watch. Both may be: a new configuration, and then a file that is wrong.

    Attributes:
        version: the watch's, with this.
        config: the configuration to put in force; ``None`` when that has not changed. It equals the one before when
            a file that was rejected is as it was again: then there is nothing to apply but the end of the rejection.
        reason: why the file as it is now is not taken; empty when it is, or when that has been said.
    """

    version: int
    config: C | None
    reason: str


class _State(NamedTuple, Generic[C]):
    """Where a watch stands; replaced as a whole, so that it can be read without a lock."""

    config: C
    version: int = 0
    configured: int = 0
    """The version with which `config` came."""
    reason: str = ""
    """Why the file as it is now is not taken; empty when it is."""
    rejected: int = 0
    """The version with which `reason` came."""


_Mark: TypeAlias = Signature | str | None
"""What a look found: a file, or why there is none to be seen. ``None`` before the first."""


class ConfigWatch(Generic[C]):
    """A configuration, and the TOML file it is read from again whenever that changes.

    `Config.watch` makes one, and ``Resilience(watch)`` follows it: calls that start after a change was noticed have
    the new policy. Whoever is not a `Resilience` may follow it as well::

        seen = watch.version
        ...
        if watch.due(now):
            watch.check(now)
        if watch.version != seen and (change := watch.since(seen)):
            seen = change.version

    A changed file is read when two looks in a row found it the same, so that none is taken while it is being written.
    Under steady traffic a change is therefore in force between one and two ``interval`` after it was made; a program
    that makes fewer calls than that has it with the second call after it. A writer that rests for longer in the
    middle of a file must write another one and rename it; that, and links that are turned to another file (as those
    of a Kubernetes ConfigMap), is seen like any change.

    A file that is wrong, too large (`MAX_SIZE`), unreadable or gone changes nothing but `reason`: the last good
    configuration stays. The reason is news once for every state the file is found in. When the file is good again,
    that is news even if it says the same as before; a file that was merely touched, or whose comments changed, is
    none.

    Followers may be many. Each compares `version` with the one it has seen and gets with `since` what it missed, so
    each is told of a rejection, once. What was put right before a follower asked is not told any more.

    Thread-safe and task-safe: one caller looks at a time, the others go on with what there is. Nothing is to be
    closed, no event loop is known; a fork leaves each process with a watch of its own. It pickles with its present
    configuration and reads the file at the place it is unpickled at. A look blocks for one call of the operating
    system, and a read for one small file: the file belongs on a local disk.

    Args:
        path: the TOML file. A relative one is taken from the directory that is current now.
        interval: seconds from one look to the next. All followers must count time by the same clock.
        files: the file system.
        model: what to read it as.

    Raises:
        ConfigError: the file is wrong, as in `Config.load`, or larger than `MAX_SIZE`; or the interval is.
        OSError: the file cannot be read.

    Attributes:
        source: the file, as it was named.
        interval: seconds from one look to the next.
    """

    __slots__ = (
        "__weakref__",
        "_done",
        "_files",
        "_lock",
        "_model",
        "_next",
        "_path",
        "_seen",
        "_state",
        "_told",
        "interval",
        "source",
    )

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        interval: float = 1.0,
        files: Files | None = None,
        model: type[C],
    ) -> None:
        self.source = os.fspath(path)
        POSITIVE.accept(interval, "interval")
        self.interval = float(interval)
        self._path = str(Path(path).absolute())
        self._files: Files = Disk() if files is None else files
        self._model = model
        self._require_file(self._files.stat(self._path))
        self._state = _State(self._read(self._files.read(self._path, MAX_SIZE + 1)))
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._next = -float("inf")
        # What was read at once may have been half written, or written again within one tick of the file system's
        # clock. So it does not count as dealt with: it is read once more when it has come to rest.
        self._seen: _Mark = None
        self._done: _Mark = None
        self._told: tuple[_Mark, str] | None = None
        _watches.add(self)

    def __repr__(self) -> str:
        state = f", rejected: {self.reason}" if self.reason else ""
        return f"<ConfigWatch {self.source!r}, version {self.version}{state}>"

    def __getstate__(self) -> tuple[Any, ...]:
        return self.source, self.interval, self._path, self._files, self._model, self.config

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.source, self.interval, self._path, self._files, self._model, config = state
        self._state = _State(config)
        self._begin()

    @property
    def config(self) -> C:
        """The last good configuration."""
        return self._state.config

    @property
    def reason(self) -> str:
        """Why the file as it is now is not taken; empty when it is."""
        return self._state.reason

    @property
    def version(self) -> int:
        """Grows with every change and every rejection; 0 at first."""
        return self._state.version

    def due(self, now: float) -> bool:
        """Whether it is time for another look. Costs one comparison."""
        return now >= self._next

    def check(self, now: float) -> Change[C] | None:
        """Look at the file, if it is time and nobody else is looking. Never raises.

        Args:
            now: seconds on a clock that never goes back.

        Returns:
            What this look brought; ``None`` for nothing new. Other followers learn it from `version`.
        """
        if not self._lock.acquire(blocking=False):
            return None
        try:
            if now < self._next:
                return None  # somebody looked between our `due` and this
            self._next = now + self.interval
            before = self._state.version
            self._look()
            return self.since(before)
        finally:
            self._lock.release()

    def since(self, version: int) -> Change[C] | None:
        """What a follower that has seen *version* has missed and still holds; ``None`` for nothing."""
        state = self._state
        if state.version == version:
            return None
        config = state.config if state.configured > version else None
        return Change(state.version, config, state.reason if state.rejected > version else "")

    def _look(self) -> None:
        """One look. Takes up what it finds before it marks that as dealt with.

        So a look that is cut short, by a fork or an interrupt, is only repeated.
        """
        mark: Signature | str
        try:
            mark = self._files.stat(self._path)
        except Exception as error:
            mark = self._unreadable(error)
        if mark == self._done or mark != self._seen:
            self._seen = mark
            return
        if isinstance(mark, str):
            self._reject(mark, mark)
            self._done = mark
            return
        try:
            self._require_file(mark)
            reading = self._files.read(self._path, MAX_SIZE + 1)
            if not mark == reading.before == reading.after:
                self._seen = reading.after  # it is being written at this moment
                return
            config = self._read(reading)
        except ConfigError as error:
            self._reject(mark, str(error))
        except Exception as error:
            # Not the file's fault, or not for certain (too many open files, a caller deep in a recursion): said
            # once, and tried again at each look. Nothing counts as dealt with: what was in force may come back.
            self._reject(mark, self._unreadable(error))
            self._done = None
            return
        else:
            self._accept(config)
        self._done = mark

    def _accept(self, config: C) -> None:
        state = self._state
        self._told = None
        if config == state.config:
            if not state.reason:
                return
            config = state.config  # with the policies it has worked out so far
        version = state.version + 1
        self._state = _State(config, version, version)

    def _reject(self, mark: _Mark, reason: str) -> None:
        if self._told == (mark, reason):
            return
        state = self._state
        version = state.version + 1
        self._state = state._replace(version=version, reason=reason, rejected=version)
        self._told = mark, reason

    def _unreadable(self, error: Exception) -> str:
        """Why a file could not be read; nothing of what it holds."""
        what = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        return f"cannot be read: {what} (in {self.source})"

    def _require_file(self, found: Signature) -> None:
        """Directories, pipes and devices are not even opened.

        Raises:
            ConfigError: it is one of these.
        """
        if not found.regular:
            raise ConfigError("", "a file", source=self.source)

    def _read(self, reading: Reading) -> C:
        """The configuration in a file.

        Raises:
            ConfigError: there is none.
        """
        if len(reading.data) > MAX_SIZE:
            raise ConfigError("", f"a file of at most {MAX_SIZE} bytes", source=self.source)
        try:
            # As `Config.load` reads it: with any kind of line end, and a byte order mark if there is one.
            text = io.TextIOWrapper(io.BytesIO(reading.data), encoding="utf-8-sig").read()
        except UnicodeDecodeError:
            raise ConfigError("", "UTF-8 text", source=self.source) from None
        document = parse_toml(text, self.source)
        try:
            return self._model.from_dict(document.values)
        except ConfigError as error:
            raise error.at(document.locate(error.path)) from None


_watches: weakref.WeakSet[ConfigWatch[Any]] = weakref.WeakSet()


def _forked() -> None:
    """A thread of the parent may have been looking, and is not here to give the lock back."""
    for watch in _watches:
        watch._lock = threading.Lock()  # noqa: SLF001 - of this module


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_forked)
