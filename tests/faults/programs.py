"""Faults that need a process of their own: forks, signals, limits of the system, the end of the interpreter.

Run as a program with names and acts of faults as JSON: for each it forks a child per client, which plays the scene
and says what it saw; the answer is JSON on standard output. Whatever a child leaves on standard error, an exit that
is none, and more than `LIMIT` seconds are part of what was seen.
"""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1])]

import anyio

import gip_resilience as gr
from faults.connecting import process
from faults.processes import LONG, failing_first
from faults.running import LIMIT, Diary, say
from faults.scenes import GOOD, JSON, PATIENT, Meanwhile, Outcome, Scene, ask
from gip_resilience.clock import SystemClock
from gip_resilience.testing import FakeClock
from harness import HARNESSES
from leftovers import Ledger
from loopback import Loopback

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness import Harness, Session
    from loopback import Exchange

PROGRAMS: dict[str, Callable[[str, Harness], str]] = {}
"""Every fault by name: what a child does, and what it saw."""

Program = "Callable[[str, Harness], str]"

BRIEFLY = gr.Config(policies={"intermediary": gr.Policy(base_delay=0.3, max_delay=0.3)})
"""Pauses that are long enough for a signal to come meanwhile."""


def program(name: str) -> Callable[[Callable[[str, Harness], str]], None]:
    """Register a program."""

    def register(play: Callable[[str, Harness], str]) -> None:
        PROGRAMS[name] = play

    return register


class Paused:
    """Says when a call begins to pause."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def on_call_paused(self, event: object) -> None:
        """A call waits."""
        self.event.set()


class Trial:
    """A brain, and what is told of it."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.diary = Diary()
        self.paused = Paused()
        self.ledger = Ledger()
        self.brain = gr.Resilience(
            scene.config,
            clock=scene.clock,
            chance=lambda: 0.5,
            store=self.ledger,
            observers=[self.diary, self.paused],
        )

    def open(self, harness: Harness) -> Session:
        """A client."""
        return harness.open(self.brain, trust_env=False, verify=False)

    def said(self, outcome: Outcome, harness: Harness) -> str:
        """In the words of the table."""
        assert not self.ledger.out, "a permit is out"
        return say(self.diary, outcome, self.scene, harness)[0]


def in_this_thread(trial: Trial, harness: Harness) -> Outcome:
    """One call in the thread this is called in, under an event loop of its own where one is needed."""
    if harness.colour == "sync":
        with trial.open(harness) as session:
            return ask(session, trial.scene)

    async def call() -> Outcome:
        async with harness.library.AsyncClient(verify=False, trust_env=False) as client:
            gr.mount(client, trial.brain)
            response = await client.post(trial.scene.url, json={"model": "m"}, timeout=PATIENT)
            return Outcome(response.status_code, response.content)

    return anyio.run(call, backend=harness.backend or "asyncio")


# ---- forks -----------------------------------------------------------------------------------------------------


@program("forked")
def _(act: str, harness: Harness) -> str:
    """A process is forked in the middle of a call; the child goes on with the same brain and a client of its own."""
    hang = threading.Event()

    def serve(exchange: Exchange) -> None:
        exchange.read_body()
        if exchange.number == 1:
            hang.wait(PATIENT)
        exchange.answer(503 if exchange.number == 2 else 200, GOOD, JSON)

    with Loopback(serve) as peer:
        trial = Trial(Scene(peer.url))
        with trial.open(harness) as session:
            thread = threading.Thread(target=ask, args=(session, trial.scene))
            thread.start()
            while not peer.count:
                time.sleep(0.001)  # noqa: TID251 - until the call is under way
            reading, writing = os.pipe()
            child = os.fork()
            if not child:
                try:
                    trial.ledger.out.clear()  # the parent's
                    said = trial.said(in_this_thread(trial, harness), harness)
                except BaseException:
                    said = traceback.format_exc()
                os.write(writing, said.encode())
                os._exit(0)
            os.close(writing)
            with os.fdopen(reading) as pipe:
                said = pipe.read()
            os.waitpid(child, 0)
            hang.set()
            thread.join(PATIENT)
            assert trial.diary.codes == ["ok"], "the parent's call is lost"
    return said


# ---- signals ---------------------------------------------------------------------------------------------------


@program("interrupted-in-the-wait")
def _(act: str, harness: Harness) -> str:
    """SIGINT while a call pauses: the caller is out at once, and the next call is as ever."""
    with Loopback(failing_first("once")) as peer:
        trial = Trial(Scene(peer.url, lambda: peer.count, config=LONG, clock=SystemClock()))

        def interrupt() -> None:
            trial.paused.event.wait(PATIENT)
            time.sleep(0.05)  # noqa: TID251 - told of the pause a moment before it begins
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        began = time.monotonic()
        try:
            in_this_thread(trial, harness)
        except KeyboardInterrupt:
            pass
        else:
            return "not interrupted"
        thread.join()
        assert time.monotonic() - began < 0.8 * LIMIT, "late"  # the pause is longer
        return trial.said(in_this_thread(trial, harness), harness)


@program("signals-that-are-handled")
def _(act: str, harness: Harness) -> str:
    """A signal every 10 ms, whose handler returns: waits go on where they were."""
    caught: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, frame: caught.append(number))
    with Loopback(failing_first("once")) as peer:
        trial = Trial(Scene(peer.url, lambda: peer.count, config=BRIEFLY, clock=SystemClock()))
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        try:
            outcome = in_this_thread(trial, harness)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        assert len(caught) > 2, "no signals"
        return trial.said(outcome, harness)


@program("client-stopped")
def _(act: str, harness: Harness) -> str:
    """SIGSTOP in a pause, for longer than the pause; then SIGCONT, and every timer is due at once."""
    with Loopback(failing_first("once")) as peer:
        trial = Trial(Scene(peer.url, lambda: peer.count, config=BRIEFLY, clock=SystemClock()))
        mine = os.getpid()
        helpers: list[subprocess.Popen[bytes]] = []

        def stop() -> None:
            trial.paused.event.wait(PATIENT)
            command = f"kill -STOP {mine}; sleep 0.4; kill -CONT {mine}"
            helpers.append(subprocess.Popen(["/bin/sh", "-c", command]))

        thread = threading.Thread(target=stop)
        thread.start()
        with trial.open(harness) as session:
            outcome = ask(session, trial.scene)
        thread.join()
        helpers[0].wait()
        return trial.said(outcome, harness)


# ---- limits ----------------------------------------------------------------------------------------------------


@program("no-file-descriptors")
def _(act: str, harness: Harness) -> str:
    """RLIMIT_NOFILE is reached; in the first pause it is lifted, or not."""
    with process() as (_, url):
        before = resource.getrlimit(resource.RLIMIT_NOFILE)

        def lift() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

        clock = Meanwhile(lift) if act == "once" else FakeClock()
        trial = Trial(Scene(url, clock=clock))
        with trial.open(harness) as session:
            free = os.dup(0)
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
            try:
                outcome = ask(session, trial.scene)
            finally:
                lift()
        return trial.said(outcome, harness)


# ---- the end ---------------------------------------------------------------------------------------------------


@program("interpreter-ends-in-the-wait")
def _(act: str, harness: Harness) -> str:
    """The program ends while a daemon thread's call pauses for half a minute."""
    peer = Loopback(failing_first("always")).__enter__()
    trial = Trial(Scene(peer.url, lambda: peer.count, config=LONG, clock=SystemClock()))
    threading.Thread(target=in_this_thread, args=(trial, harness), daemon=True).start()
    assert trial.paused.event.wait(PATIENT)
    return f"recovered: {trial.diary.codes[0]}; the program ends at once"


@program("call-at-exit")
def _(act: str, harness: Harness) -> str:
    """A call is made by a function that runs when the interpreter ends."""
    reports = os.dup(1)

    def last_words() -> None:
        with Loopback(failing_first("once")) as peer:
            trial = Trial(Scene(peer.url, lambda: peer.count))
            os.write(reports, trial.said(in_this_thread(trial, harness), harness).encode())

    # Threads cannot be started once the end has begun, so the peer's are those of a listener that needs none.
    atexit.register(last_words)
    return ""


# ---- running them ----------------------------------------------------------------------------------------------


ENDS = (PROGRAMS["interpreter-ends-in-the-wait"], PROGRAMS["call-at-exit"])
"""What is about how the interpreter ends."""


def _child(play: Callable[[str, Harness], str], act: str, harness: Harness) -> None:
    try:
        os.write(1, play(act, harness).encode())
    except BaseException as error:
        sys.stderr.write("".join(traceback.format_exception(error)[-3:]))
        raise


def _start(play: Callable[[str, Harness], str], act: str, harness: Harness) -> tuple[int, int]:
    """A child, and where it will say what it saw; zeros in the child."""
    said, words = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(words, 1)
        os.dup2(words, 2)
        os.close(words)
        os.close(said)
        _child(play, act, harness)
        if play not in ENDS:
            os._exit(0)  # ending in order takes longer than all the rest
        return 0, 0
    os.close(words)
    return child, said


def _hear(child: int, said: int, began: float) -> str:
    """What a child says until it ends."""
    heard = b""
    while (left := began + LIMIT - time.monotonic()) > 0 and select.select([said], [], [], left)[0]:
        piece = os.read(said, 65536)
        if not piece:
            break
        heard += piece
    else:
        os.kill(child, signal.SIGKILL)
        heard += b"; hangs"
    os.close(said)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return heard.decode() + (f"; exit {code}" if code else "")


def main() -> None:
    """Play each fault under all clients at once."""
    logging.disable()
    for harness in HARNESSES:
        with harness.open(gr.Resilience(), verify=False):
            pass  # imports what each child would import, but nothing that a first failure does
    gc.freeze()
    faults = json.loads(sys.argv[1])
    seen: list[dict[str, str]] = []
    for name, act in faults:
        began = time.monotonic()
        children: dict[str, tuple[int, int]] = {}
        for harness in HARNESSES:
            child, said = _start(PROGRAMS[name], act, harness)
            if not child:
                return  # it ends as any program does
            children[harness.name] = child, said
        seen.append({harness: _hear(child, said, began) for harness, (child, said) in children.items()})
    print(json.dumps(seen))


def run(faults: list[tuple[str, str]]) -> list[dict[str, str]]:
    """What was seen of each fault in each act, by client."""
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(faults)],
        capture_output=True,
        text=True,
        timeout=LIMIT * (len(faults) + 1),
        check=True,
    )
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
