"""A watched configuration file: what is taken, what is not, when, and what is told of it."""

from __future__ import annotations

import errno
import os
import pickle
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gip_resilience as gr
from endpoints import CHAT
from gip_resilience._watching import MAX_SIZE, Change, ConfigWatch, Reading, Signature, _signature
from gip_resilience.config import Config, ConfigError
from gip_resilience.events import ConfigRejected, ConfigReloaded
from gip_resilience.gateway import BreakStream, Error, FaultPlan
from gip_resilience.testing import FakeClock
from harness import HARNESSES
from sending import open_session, read_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gip_resilience.gateway import Gateway
    from harness import Harness, Session

SETTINGS = settings(deadline=None, derandomize=True, max_examples=300)
NAME = "gip.toml"


class FakeFiles:
    """A file system of one file, in which every write is seen and anything can go wrong.

    Attributes:
        stats: how often the file was looked at.
        reads: how often it was read.
        unseen: what `stat` raises.
        unread: what `read` raises.
        opening: done once, after a look and before the file is open.
        reading: done once, while the file is being read.
    """

    def __init__(self, text: str | bytes = "deadline = 1\n") -> None:
        self.data: bytes | None = b""
        self._removed: bytes | None = None
        self.version = 0
        self.regular = True
        self.stats = self.reads = 0
        self.unseen: Exception | None = None
        self.unread: Exception | None = None
        self.opening: Callable[[], None] | None = None
        self.reading: Callable[[], None] | None = None
        self.write(text)

    def write(self, text: str | bytes) -> None:
        """Write all of the file."""
        self.data = text.encode() if isinstance(text, str) else text
        self.touch()

    def touch(self) -> None:
        """Let it look written."""
        self.version += 1

    def remove(self) -> None:
        """Delete it."""
        self._removed, self.data = self.data, None

    def restore(self) -> None:
        """Bring back what was deleted, as if it had never been away."""
        self.data = self._removed

    def replace_by_directory(self) -> None:
        """Put something in its place that is no file."""
        self.regular = False
        self.touch()

    def stat(self, path: str) -> Signature:
        """See `gip_resilience._watching.Files.stat`."""
        assert Path(path).is_absolute()
        self.stats += 1
        return self._signature()

    def read(self, path: str, limit: int) -> Reading:
        """See `gip_resilience._watching.Files.read`."""
        assert limit == MAX_SIZE + 1
        self.reads += 1
        action, self.opening = self.opening, None
        if action is not None:
            action()
        if self.unread is not None:
            raise self.unread
        before = self._signature()
        data = (self.data or b"")[:limit]
        half, rest = data[: len(data) // 2], len(data) // 2
        action, self.reading = self.reading, None
        if action is not None:
            action()
            data = half + (self.data or b"")[rest:limit]
        return Reading(data, before, self._signature())

    def _signature(self) -> Signature:
        if self.unseen is not None:
            raise self.unseen
        if self.data is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return Signature(self.version, 0, len(self.data), 1, 1, self.regular)


class Looker:
    """Looks at a watch, an interval later each time."""

    def __init__(self, watch: ConfigWatch) -> None:
        self.watch = watch
        self.now = 1000.0

    def look(self) -> Change | None:
        """One look."""
        self.now += self.watch.interval
        assert self.watch.due(self.now)
        return self.watch.check(self.now)

    def said(self) -> str:
        """One look, in a word: the new deadline, why not, or nothing."""
        change = self.look()
        if change is None:
            return ""
        assert change.version == self.watch.version
        assert (change.config is None) == bool(change.reason)
        if change.config is None:
            assert change.reason == self.watch.reason
            return change.reason
        assert change.config is self.watch.config
        assert self.watch.reason == ""
        return f"{change.config.deadline:g}"


def settled(files: FakeFiles) -> Looker:
    """A watch that has seen its file come to rest."""
    looker = Looker(ConfigWatch(NAME, files=files, model=gr.Config))
    assert looker.look() is None
    assert looker.look() is None
    return looker


# --- What is taken, and when --------------------------------------------------------------------------------

ONE, TWO, THREE = "deadline = 1\n", "deadline = 2\n", "deadline = 3\n"
HALF = "deadline ="
WRONG = "deadline = 'soon'\n"

SOON = 'deadline: expected float > 0 or none, got "soon" (in gip.toml, line 1)'
GONE = "cannot be read: No such file or directory (in gip.toml)"

Step = tuple["str | None", str]
"""What the file is changed to before a look (``None``: nothing; see `act`), and what the look says."""

STORIES: list[tuple[str, Sequence[Step]]] = [
    ("left alone", [(None, ""), (None, ""), (None, "")]),
    ("changed", [(TWO, ""), (None, "2"), (None, ""), (None, "")]),
    ("touched", [("touch", ""), (None, ""), (None, "")]),
    ("a comment added", [("# mine\n" + ONE, ""), (None, ""), (None, "")]),
    ("changed at every look", [(TWO, ""), (THREE, ""), (TWO, ""), (THREE, ""), (None, "3")]),
    ("changed and changed back", [(TWO, ""), (ONE, ""), (None, ""), (None, "")]),
    ("written in two pieces", [(HALF, ""), (TWO, ""), (None, "2")]),
    ("touched while it comes to rest", [(TWO, ""), ("touch", ""), (None, "2")]),
    ("wrong", [(WRONG, ""), (None, SOON), (None, ""), (None, "")]),
    ("wrong and mended", [(WRONG, ""), (None, SOON), (TWO, ""), (None, "2"), (None, "")]),
    ("wrong and as before", [(WRONG, ""), (None, SOON), (ONE, ""), (None, "1"), (None, ""), (None, "")]),
    ("wrong and written again", [(WRONG, ""), (None, SOON), ("touch", ""), (None, SOON), (None, "")]),
    ("wrong for one look", [(WRONG, ""), (ONE, ""), (None, ""), (None, "")]),
    ("wrong in another way", [(WRONG, ""), (None, SOON), ("remove", ""), (None, GONE), (None, "")]),
    ("gone", [("remove", ""), (None, GONE), (None, ""), (None, "")]),
    ("gone for one look", [("remove", ""), (ONE, ""), (None, ""), (None, "")]),
    ("gone and another", [("remove", ""), (None, GONE), (TWO, ""), (None, "2"), (None, "")]),
    ("gone and the same again", [("remove", ""), (None, GONE), (ONE, ""), (None, "1"), (None, "")]),
    ("gone and never away", [("remove", ""), (None, GONE), ("restore", ""), (None, "1"), (None, "")]),
    ("gone for one look and never away", [("remove", ""), ("restore", ""), (None, ""), (None, "")]),
    ("gone and wrong", [("remove", ""), (None, GONE), (WRONG, ""), (None, SOON), (TWO, ""), (None, "2")]),
    ("gone twice", [("remove", ""), (None, GONE), (ONE, ""), (None, "1"), ("remove", ""), (None, GONE)]),
]


def act(files: FakeFiles, action: str | None) -> None:
    """Change the file."""
    if action == "touch":
        files.touch()
    elif action == "remove":
        files.remove()
    elif action == "restore":
        files.restore()
    elif action is not None:
        files.write(action)


@pytest.mark.parametrize("steps", [pytest.param(steps, id=name) for name, steps in STORIES])
def test_stories(steps: Sequence[Step]) -> None:
    """A change is taken when two looks found it the same, and everything is told once."""
    files = FakeFiles(ONE)
    looker = settled(files)

    said = []
    for action, _ in steps:
        act(files, action)
        said.append(looker.said())

    assert said == [expected for _, expected in steps]
    assert looker.watch.version == len([word for word in said if word])


def test_a_file_at_rest_is_not_read() -> None:
    """Each look is one call of the operating system; only a change is read."""
    files = FakeFiles()
    looker = settled(files)
    reads, stats = files.reads, files.stats

    for _ in range(50):
        looker.look()

    assert (files.reads - reads, files.stats - stats) == (0, 50)


def test_what_was_read_at_the_start_is_read_once_more() -> None:
    """It may have been half written: what it came to is taken, though its signature never changes again."""
    files = FakeFiles("deadline = 1")
    looker = Looker(ConfigWatch(NAME, files=files, model=gr.Config))
    assert files.data is not None
    files.data = b"deadline = 9"  # within the same tick of the file system's clock

    assert [looker.said() for _ in range(4)] == ["", "9", "", ""]


def test_an_equal_file_keeps_the_object() -> None:
    """The configuration with the policies it has worked out stays in force."""
    files = FakeFiles()
    looker = settled(files)
    before = looker.watch.config

    for action in ("# mine\n" + ONE, "remove", ONE):
        act(files, action)
        looker.look()
        looker.look()

    assert looker.watch.config is before


# --- What is not taken --------------------------------------------------------------------------------------

DEEP = "a = " + "[" * 20_000 + "]" * 20_000

REASONS: list[tuple[str, str | bytes, str]] = [
    ("syntax", "deadline = \n", "expected valid TOML: Invalid value (at line 1, column 12) (in gip.toml)"),
    (
        "unknown setting",
        "[breaker]\nopen_tim = 3\n",
        'expected a known setting, got "open_tim" (did you mean "open_time"?) (in gip.toml, line 2)',
    ),
    ("wrong type", WRONG, SOON),
    (
        "unlike each other",
        "\n[gate]\nbase_delay = 9\nmax_delay = 8\n",
        "(in gip.toml, line ",
    ),
    ("not text", b"deadline = 1 # \xff\n", "expected UTF-8 text (in gip.toml)"),
    ("too large", b"#" * (MAX_SIZE + 1), "expected a file of at most 1048576 bytes (in gip.toml)"),
    ("too deep", DEEP, "expected valid TOML: values are nested too deeply (in gip.toml)"),
    ("number too long", "a = " + "1" * 5000, "expected valid TOML: a number is too long (in gip.toml)"),
]


@pytest.mark.parametrize(
    ("content", "reason"), [pytest.param(content, reason, id=name) for name, content, reason in REASONS]
)
def test_wrong_files(content: str | bytes, reason: str) -> None:
    """Whatever is wrong: the old configuration stays, the reason is told once, and a good file is taken."""
    files = FakeFiles(ONE)
    looker = settled(files)

    files.write(content)
    said = [looker.said() for _ in range(5)]

    assert said[0] == ""
    assert reason in said[1]
    assert said[2:] == ["", "", ""]
    assert looker.watch.config == Config(deadline=1)
    files.write(TWO)
    assert [looker.said() for _ in range(3)] == ["", "2", ""]


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content, _ in REASONS])
def test_a_wrong_file_at_the_start(content: str | bytes) -> None:
    """There is nothing to go on with yet: the error comes out."""
    with pytest.raises(ConfigError):
        ConfigWatch(NAME, files=FakeFiles(content), model=gr.Config)


def test_something_that_is_no_file() -> None:
    """It is not even opened."""
    files = FakeFiles()
    looker = settled(files)
    files.replace_by_directory()
    reads = files.reads

    assert [looker.said() for _ in range(3)] == ["", "expected a file (in gip.toml)", ""]
    assert files.reads == reads


ERRORS: list[tuple[str, Exception, str]] = [
    ("permissions", PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
    ("files", OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
    ("disk", OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ("memory", MemoryError(), "MemoryError"),
    ("recursion", RecursionError("maximum recursion depth exceeded"), "RecursionError"),
    ("bare", OSError(), "OSError"),
]


@pytest.mark.parametrize(
    ("error", "reason"), [pytest.param(error, reason, id=name) for name, error, reason in ERRORS]
)
@pytest.mark.parametrize("attribute", ["unseen", "unread"])
def test_what_may_pass_is_tried_again(attribute: str, error: Exception, reason: str) -> None:
    """A file that could not be read is told of once, and taken when it can be: nothing need happen to it."""
    files = FakeFiles(ONE)
    looker = settled(files)
    setattr(files, attribute, error)

    files.write(TWO)
    assert [looker.said() for _ in range(4)] == ["", f"cannot be read: {reason} (in gip.toml)", "", ""]
    setattr(files, attribute, None)
    said = [looker.said() for _ in range(3)]
    assert list(filter(None, said)) == ["2"]


def test_a_return_to_what_was_in_force() -> None:
    """A link is turned to a file that cannot be read, and back: the old file is good news, unchanged as it is."""
    files = FakeFiles(ONE)
    looker = settled(files)
    version = files.version
    files.unread = PermissionError(errno.EACCES, "Permission denied")
    files.write(TWO)

    assert [bool(looker.said()) for _ in range(3)] == [False, True, False]
    files.unread = None
    files.write(ONE)
    files.version = version
    assert [looker.said() for _ in range(3)] == ["", "1", ""]


def test_the_same_trouble_with_another_file_is_told_again() -> None:
    """Once for every state the file is found in."""
    files = FakeFiles(ONE)
    looker = settled(files)
    files.unread = PermissionError(errno.EACCES, "Permission denied")
    files.write(TWO)
    looker.look()

    assert looker.said() != ""
    assert looker.said() == ""
    files.write(THREE)
    assert looker.said() == ""
    assert looker.said() != ""
    assert looker.said() == ""


@pytest.mark.parametrize("moment", ["opening", "reading"])
def test_a_file_that_changes_under_the_read(moment: str) -> None:
    """What was read is thrown away, and the file read anew once it rests."""
    files = FakeFiles("deadline = 111111\n")
    looker = settled(files)
    files.write("deadline = 222222\n")
    setattr(files, moment, lambda: files.write("deadline = 333333\n"))

    assert [looker.said() for _ in range(4)] == ["", "", "333333", ""]


# --- Time and followers -------------------------------------------------------------------------------------


def test_when_a_look_is_due() -> None:
    """At once, and then an interval after each look."""
    files = FakeFiles()
    watch = ConfigWatch(NAME, interval=5, files=files, model=gr.Config)

    assert watch.due(0.0)
    watch.check(100.0)
    looks = {now: watch.due(now) for now in (100.0, 104.9, 105.0, 200.0)}
    assert looks == {100.0: False, 104.9: False, 105.0: True, 200.0: True}
    stats = files.stats
    assert watch.check(104.0) is None
    assert files.stats == stats


@pytest.mark.parametrize("interval", [0, -1.0, float("nan"), float("inf"), True, "1", None])
def test_wrong_intervals(interval: Any) -> None:
    """An interval is a length of time."""
    with pytest.raises(ConfigError, match=r"^interval: expected float > 0, got "):
        ConfigWatch(NAME, interval=interval, files=FakeFiles(), model=gr.Config)


def test_every_follower_gets_every_change() -> None:
    """Whoever looked: the version tells the others, and each gets what it missed and still holds."""
    files = FakeFiles(ONE)
    looker = settled(files)
    watch = looker.watch

    assert watch.since(0) is None
    for content in (TWO, WRONG):
        files.write(content)
        looker.look()
        looker.look()

    assert watch.version == 2
    assert watch.since(0) == Change(2, Config(deadline=2), SOON)
    assert watch.since(1) == Change(2, None, SOON)
    assert watch.since(2) is None
    files.write(THREE)
    looker.look()
    looker.look()
    assert [watch.since(seen) for seen in range(4)] == [*[Change(3, Config(deadline=3), "")] * 3, None]


def test_one_looks_and_the_others_go_on() -> None:
    """A look that hangs holds nobody up."""
    files = FakeFiles()
    looker = settled(files)
    inside, leave = threading.Event(), threading.Event()

    def hang() -> None:
        inside.set()
        assert leave.wait(10)

    files.write(TWO)
    looker.look()
    files.reading = hang
    thread = threading.Thread(target=looker.look)
    thread.start()
    assert inside.wait(10)
    stats = files.stats
    others = [looker.watch.check(looker.now + later) for later in (0.5, 1.5, 100.0)]
    leave.set()
    thread.join(10)

    assert others == [None, None, None]
    assert files.stats == stats
    assert looker.watch.config == Config(deadline=2)


def test_eight_threads_look_once() -> None:
    """However many calls find a look due at once, one makes it, and one of them has what it brought."""
    files = FakeFiles()
    looker = settled(files)
    files.write(TWO)
    looker.look()
    stats, brought = files.stats, []
    barrier = threading.Barrier(8)

    def run() -> None:
        barrier.wait(10)
        if looker.watch.due(5000.0):
            brought.append(looker.watch.check(5000.0))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert files.stats == stats + 1
    assert list(filter(None, brought)) == [Change(1, Config(deadline=2), "")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_in_the_middle_of_a_look() -> None:
    """The child takes no lock with it that nobody could give back, and sees the change by itself."""
    files = FakeFiles(ONE)
    looker = settled(files)
    child = -1

    def fork() -> None:
        nonlocal child
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other threads of the tests may be alive
            child = os.fork()
        if child == 0:
            said = [looker.said() for _ in range(3)]
            os._exit(0 if said == ["2", "", ""] else 1)

    files.write(TWO)
    assert looker.said() == ""
    files.reading = fork
    assert looker.said() == "2"
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_pickling(tmp_path: Path) -> None:
    """A watch goes to another process with its configuration, and reads the file there."""
    file = tmp_path / NAME
    file.write_text(ONE)
    twin = pickle.loads(pickle.dumps(Config.watch(file, interval=3)))
    file.write_text("deadline = 200\n")
    looker = Looker(twin)

    assert (twin.config, twin.interval, twin.source) == (Config(deadline=1), 3.0, str(file))
    assert [looker.said() for _ in range(3)] == ["", "200", ""]


def test_repr() -> None:
    """It says which file, how often it changed, and what is wrong with it."""
    files = FakeFiles()
    looker = settled(files)

    assert repr(looker.watch) == "<ConfigWatch 'gip.toml', version 0>"
    files.write(WRONG)
    looker.look()
    looker.look()
    assert repr(looker.watch) == f"<ConfigWatch 'gip.toml', version 1, rejected: {SOON}>"


# --- Any order of writes and looks --------------------------------------------------------------------------

NUMBERS = st.integers(100, 99999)
CONTENTS = st.one_of(
    st.builds(
        "deadline = {}\nmax_elapsed = {}\n[breaker]\nmin_calls = {}\n".format, NUMBERS, NUMBERS, NUMBERS
    ),
    st.sampled_from([WRONG, HALF, "", "[breaker]\nmin_calls = 0\n"]),
)
WRITES = st.tuples(
    CONTENTS,
    st.sampled_from(["in pieces", "at once", "under the read", "removed first"]),
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=4),
    st.integers(0, 3),
)
"""What is written, how, where the pieces are cut and whether there is a look after each, and looks afterwards."""


def valid(text: str) -> Config | None:
    """What a whole file says, if it says anything."""
    import tomllib

    try:
        return Config.from_dict(tomllib.loads(text))
    except ValueError:
        return None


@SETTINGS
@given(st.lists(WRITES, max_size=8))
def test_only_whole_files_are_in_force(writes: list[tuple[str, str, list[tuple[float, bool]], int]]) -> None:
    """Never a part of a file; and two looks after the last write, what it says, or what is wrong with it."""
    files = FakeFiles(ONE)
    looker = settled(files)
    whole = [Config(deadline=1)]

    def look() -> None:
        looker.look()
        assert looker.watch.config in whole

    def write(text: str) -> None:
        if (config := valid(text)) is not None:
            whole.append(config)
        files.write(text)

    for text, way, cuts, looks in writes:
        if way == "removed first":
            files.remove()
            look()
        elif way == "in pieces":
            for cut, seen in sorted(cuts):
                files.write(text[: int(cut * len(text))])
                if seen:
                    look()
        elif way == "under the read":
            # Half of it while a look reads the file, if the next look does, and all of it afterwards.
            files.reading = lambda text=text: files.write(text[: len(text) // 2])
            look()
            files.reading = None
        write(text)
        for _ in range(looks):
            look()
    look()
    look()

    last = valid(writes[-1][0]) if writes else whole[0]
    assert bool(looker.watch.reason) == (last is None)
    if last is not None:
        assert looker.watch.config == last


# --- Signatures and real files ------------------------------------------------------------------------------


STAT: dict[str, int] = {
    "st_mode": 0o100644,
    "st_ino": 7,
    "st_dev": 1,
    "st_size": 13,
    "st_mtime_ns": 10**9,
    "st_ctime_ns": 10**9,
}


@pytest.mark.parametrize("name", STAT)
def test_what_a_change_may_show_in(name: str) -> None:
    """Each of these by itself is enough: a directory for a file, another file, a write, a change of owner."""
    other = {**STAT, name: 0o040755 if name == "st_mode" else 9}
    mine, theirs = (_signature(cast("os.stat_result", SimpleNamespace(**found))) for found in (STAT, other))

    assert mine != theirs
    assert mine == _signature(cast("os.stat_result", SimpleNamespace(**STAT)))


class RealFile:
    """A file in a directory of its own, whose times differ from write to write, as they do when people write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._time = 1_800_000_000

    def write(self, text: str, path: Path | None = None) -> None:
        """Write it in place."""
        target = self.path if path is None else path
        target.write_text(text)
        self._time += 5
        os.utime(target, (self._time, self._time))

    def replace(self, text: str) -> None:
        """Write another one and rename it."""
        other = self.path.with_suffix(".new")
        self.write(text, other)
        other.replace(self.path)


@pytest.fixture
def real(tmp_path: Path) -> RealFile:
    """A file that says one second."""
    file = RealFile(tmp_path / NAME)
    file.write(ONE)
    return file


def watched(path: Path | str) -> Looker:
    """A watch of a real file that has seen it come to rest."""
    looker = Looker(Config.watch(path))
    assert [looker.said(), looker.said()] == ["", ""]
    return looker


@pytest.mark.parametrize("way", ["write", "replace"])
def test_a_real_file(real: RealFile, way: str) -> None:
    """Written in place or replaced by another, of the same length or not."""
    looker = watched(real.path)

    for text, said in ((TWO, "2"), (THREE, "3"), ("deadline = 1000\n", "1000")):
        getattr(real, way)(text)
        assert [looker.said() for _ in range(3)] == ["", said, ""]


def test_a_link_that_is_turned(tmp_path: Path) -> None:
    """As Kubernetes does it: the file is a link through a directory that is itself a link, and is swapped."""
    for version, text in (("..1", ONE), ("..2", TWO)):
        (tmp_path / version).mkdir()
        (tmp_path / version / NAME).write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / NAME).symlink_to(f"..data/{NAME}")
    looker = watched(tmp_path / NAME)

    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")

    assert [looker.said() for _ in range(3)] == ["", "2", ""]


def test_a_real_file_that_goes_and_comes(real: RealFile) -> None:
    """The old configuration stays; the directory may go with the file."""
    looker = watched(real.path)
    gone = f"cannot be read: No such file or directory (in {real.path})"

    real.path.unlink()
    assert [looker.said() for _ in range(3)] == ["", gone, ""]
    real.write(TWO)
    assert [looker.said() for _ in range(3)] == ["", "2", ""]


def test_a_directory_and_a_pipe(real: RealFile) -> None:
    """What is no file is not waited for."""
    looker = watched(real.path)
    real.path.unlink()
    if hasattr(os, "mkfifo"):
        os.mkfifo(real.path)
        assert [looker.said() for _ in range(3)] == ["", f"expected a file (in {real.path})", ""]
        real.path.unlink()
    real.path.mkdir()

    assert [looker.said() for _ in range(3)] == ["", f"expected a file (in {real.path})", ""]
    with pytest.raises(ConfigError, match=r"^expected a file \(in "):
        Config.watch(real.path)


def test_a_hundred_megabytes(real: RealFile) -> None:
    """No more of a file is read than a configuration can have."""
    looker = watched(real.path)
    os.truncate(real.path, 100 << 20)

    assert [looker.said() for _ in range(3)] == [
        "",
        f"expected a file of at most {MAX_SIZE} bytes (in {real.path})",
        "",
    ]
    with pytest.raises(ConfigError, match="at most 1048576 bytes"):
        Config.watch(real.path)


def test_a_change_that_keeps_the_time_of_the_last_write(real: RealFile) -> None:
    """Some tools restore it; the change time shows it all the same."""
    looker = watched(real.path)
    before = real.path.stat()

    real.path.write_text(TWO)
    os.utime(real.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    while real.path.stat().st_ctime_ns == before.st_ctime_ns:  # the same tick of the file system's clock
        os.utime(real.path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert [looker.said() for _ in range(3)] == ["", "2", ""]


def test_a_relative_path_stays_where_it_was(real: RealFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that changes its directory (as a daemon does) goes on watching the same file."""
    monkeypatch.chdir(real.path.parent)
    looker = watched(NAME)
    monkeypatch.chdir("/")
    real.write(TWO)

    assert looker.watch.source == NAME
    assert [looker.said() for _ in range(3)] == ["", "2", ""]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xef\xbb\xbfdeadline = 1\r\n[breaker]\r\nmin_calls = 4\r\n", id="windows"),
        pytest.param(b"deadline = 1\r[breaker]\rmin_calls = 4\r", id="old_mac"),
        pytest.param(b"", id="empty"),
    ],
)
def test_it_reads_as_load_does(tmp_path: Path, content: bytes) -> None:
    """A file that `Config.load` takes is taken here, and is the same configuration."""
    file = tmp_path / NAME
    file.write_bytes(content)

    assert Config.watch(file).config == Config.load(file)


@pytest.mark.parametrize(
    "content", [content for _, content, _ in REASONS[:4]], ids=[row[0] for row in REASONS[:4]]
)
def test_it_refuses_as_load_does(tmp_path: Path, content: str) -> None:
    """With the same words, place included."""
    file = tmp_path / NAME
    file.write_text(content)

    with pytest.raises(ConfigError) as ours:
        Config.watch(file)
    with pytest.raises(ConfigError) as theirs:
        Config.load(file)
    assert str(ours.value) == str(theirs.value)


def test_there_must_be_a_file_at_the_start(tmp_path: Path) -> None:
    """A name written wrong is found at once."""
    with pytest.raises(FileNotFoundError):
        Config.watch(tmp_path / NAME)


def test_a_configuration_of_another_class(real: RealFile) -> None:
    """Who asks decides what the file is read as."""

    class Mine(Config, frozen=True, kw_only=True, dict=True):
        """One with a method more."""

    assert type(Mine.watch(real.path).config) is Mine


# --- A brain that follows a file ----------------------------------------------------------------------------

INTERVAL = 10.0
QUIET = '[breaker]\nmode = "off"\n[budget]\nmode = "off"\n[policies.overload]\nmax_attempts = {}\n'


class News:
    """Writes down what is told of the file."""

    def __init__(self) -> None:
        self.events: list[ConfigReloaded | ConfigRejected] = []

    def on_config_reloaded(self, event: ConfigReloaded) -> None:
        """Another one."""
        self.events.append(event)

    def on_config_rejected(self, event: ConfigRejected) -> None:
        """Not this one."""
        self.events.append(event)


def following(path: Path, clock: FakeClock, news: News, watch: ConfigWatch | None = None) -> gr.Resilience:
    """A brain that follows a file, and never waits."""
    if watch is None:
        watch = gr.Config.watch(path, interval=INTERVAL)
    return gr.Resilience(watch, clock=clock, observers=[news], chance=lambda: 0.0)


def attempts(session: Session, gateway: Gateway) -> int:
    """How often a call is sent that always fails."""
    return len(session.post(gateway.base_url + "/chat/completions").report.attempts)


def test_calls_follow_the_file(harness: Harness, gateway: Gateway, clock: FakeClock, real: RealFile) -> None:
    """Under each client: the call that finds the file at rest is the first one with the new policy."""
    gateway.plan = FaultPlan.always(Error("model_overloaded"))
    real.write(QUIET.format(1))
    news = News()
    brain = following(real.path, clock, news)
    source = str(real.path)

    def call(*, later: float = INTERVAL) -> int:
        clock.advance(later)
        return attempts(session, gateway)

    with open_session(harness, brain) as session:
        assert [call(), call()] == [1, 1]
        real.write(QUIET.format(3))
        assert [call(), call(later=0.9 * INTERVAL), call(), call()] == [1, 1, 3, 3]
        assert news.events == [ConfigReloaded(source, ("policies",))]
        real.write(QUIET.format("'many'"))
        assert [call(), call(), call()] == [3, 3, 3]
        real.path.unlink()
        assert [call(), call(), call()] == [3, 3, 3]
        real.write(QUIET.format(3))
        assert [call(), call(), call()] == [3, 3, 3]

    assert news.events[1:] == [
        ConfigRejected(
            source,
            f'policies.overload.max_attempts: expected int >= 1, got "many" (in {source}, line 6)',
        ),
        ConfigRejected(source, f"cannot be read: No such file or directory (in {source})"),
        ConfigReloaded(source, ()),
    ]
    assert brain.metrics.snapshot().reloads == {"applied": 2, "rejected": 2}


@pytest.mark.parametrize("threaded", [h for h in HARNESSES if h.name in {"requests", "httpx2"}], ids=repr)
def test_eight_threads_follow_the_file(
    threaded: Harness, gateway: Gateway, clock: FakeClock, real: RealFile
) -> None:
    """Each call has one policy or the other, none goes back to the old one, and the change is told once."""
    gateway.plan = FaultPlan.always(Error("model_overloaded"))
    real.write(QUIET.format(1))
    news = News()
    brain = following(real.path, clock, news)
    counts: list[list[int]] = [[] for _ in range(8)]
    barrier = threading.Barrier(8, lambda: real.write(QUIET.format(2)))

    def run(mine: list[int]) -> None:
        for number in range(8):
            if number == 3:
                barrier.wait(20)
            clock.advance(INTERVAL)
            mine.append(attempts(session, gateway))

    with open_session(threaded, brain) as session:
        threads = [threading.Thread(target=run, args=(mine,)) for mine in counts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

    for mine in counts:
        assert len(mine) == 8
        assert mine == sorted(mine)
        assert (mine[:3], mine[-1]) == ([1, 1, 1], 2)
    assert news.events == [ConfigReloaded(str(real.path), ("policies",))]


def test_several_brains_follow_one_watch(clock: FakeClock, real: RealFile) -> None:
    """Whichever looks, each is told of every change and of every rejection, once."""
    watch = gr.Config.watch(real.path, interval=INTERVAL)
    diaries = [News(), News(), News()]
    brains = [following(real.path, clock, news, watch) for news in diaries]

    def rest() -> None:
        for _ in range(3):
            clock.advance(INTERVAL)
            for brain in brains:
                brain.check_config()

    rest()
    real.write(TWO)
    rest()
    real.write(WRONG)
    rest()

    assert [brain.config for brain in brains] == [Config(deadline=2)] * 3
    source = str(real.path)
    told = [
        ConfigReloaded(source, ("deadline",)),
        ConfigRejected(source, SOON.replace(NAME, source)),
    ]
    assert [news.events for news in diaries] == [told] * 3


def test_a_running_stream_keeps_its_policy(
    harness: Harness, gateway: Gateway, clock: FakeClock, real: RealFile
) -> None:
    """A stream that breaks after the change is mended as was allowed when it began; the next one is not."""
    gateway.plan = FaultPlan.script([BreakStream(events=4)])
    real.write('[stream]\nreplay = "always"\n')
    brain = following(real.path, clock, News())
    pieces: list[bytes] = []

    def keep(piece: bytes) -> None:
        if not pieces:
            real.write('[stream]\nreplay = "never"\n')
            for _ in range(3):
                clock.advance(INTERVAL)
                brain.check_config()
            assert brain.config.stream.replay == "never"
        pieces.append(piece)

    body = {**CHAT.ask("Say hello."), "stream": True}
    url = gateway.url + CHAT.path
    with open_session(harness, brain) as session:
        response = read_pieces(session, "POST", url, keep, json=body)
        assert b"[DONE]" in b"".join(pieces)
        report = gr.report(response)
        assert report is not None
        assert [hop.action for hop in report.hops] == ["replay"]

        gateway.plan = FaultPlan.script([BreakStream(events=4)])
        with pytest.raises(gr.StreamInterruptedError):
            read_pieces(session, "POST", url, lambda _: None, json=body)


def test_overrides_go_on_top_of_what_is_new(gateway: Gateway, clock: FakeClock, real: RealFile) -> None:
    """What a block of code asked for holds whatever the file says by then."""
    gateway.plan = FaultPlan.always(Error("model_overloaded"))
    real.write(QUIET.format(1))
    brain = following(real.path, clock, News())

    with open_session(HARNESSES[0], brain) as session, brain.override(overload=gr.Policy(max_attempts=2)):
        assert attempts(session, gateway) == 2
        real.write(QUIET.format(3) + 'on_ambiguous = "fail"\n')
        for _ in range(3):
            clock.advance(INTERVAL)
            assert attempts(session, gateway) == 2
        assert brain.config.policies["overload"].on_ambiguous == "fail"


def test_a_pickled_brain_follows_the_file(clock: FakeClock, real: RealFile) -> None:
    """In another process as here."""
    brain = gr.Resilience(gr.Config.watch(real.path, interval=INTERVAL))
    twin = pickle.loads(pickle.dumps(brain))
    twin.clock = clock
    real.write(TWO)

    for _ in range(3):
        clock.advance(INTERVAL)
        twin.check_config()

    assert twin.config == Config(deadline=2)
    assert brain.config == Config(deadline=1)
