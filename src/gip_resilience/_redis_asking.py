"""Scripts, run over a wire: one reply for each question, or a reason why the store is of no use."""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from redis import exceptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

    from gip_resilience._fleet_words import Question, Reply
    from gip_resilience._redis_clients import Wire

UNREADABLE: Final = re.compile(
    r"WRONGTYPE|not an integer|would overflow|bad argument"
    r"|attempt to (?:compare|perform arithmetic|concatenate|call|index)"
)
"""What the server says when somebody else has put something at one of our keys."""

ELSEWHERE: Final = (exceptions.AskError, exceptions.ClusterDownError, exceptions.TryAgainError)
"""Another node should be asked. (To redis-py MOVED is an ASK.)"""


class Script(NamedTuple):
    """A script as it is sent, and the digest it is called by."""

    text: str
    digest: str

    @classmethod
    def of(cls, text: str) -> Self:
        """SHA-1 is how Redis names a script, and no protection of anything."""
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def load_scripts() -> dict[str, Script]:
    """The server's half, by name."""
    folder = resources.files("gip_resilience") / "lua"
    common = (folder / "common.lua").read_text("utf-8")
    found = {}
    for entry in folder.iterdir():
        name = entry.name.removesuffix(".lua")
        if entry.name.endswith(".lua") and name != "common":
            found[name] = Script.of(f"{common}\n{entry.read_text('utf-8')}")
    return found


class UnusableError(Exception):
    """The store answered, and cannot do what we need: it is full, read-only, or we may not."""


class Asker:
    """Questions over one wire. Belongs to one thread.

    Attributes:
        commands: scripts run since it was made.
        trips: pipelines sent since it was made.
    """

    def __init__(self, wire: Wire, scripts: dict[str, Script]) -> None:
        self._wire = wire
        self._scripts = scripts
        self.commands = self.trips = 0

    def ask(self, questions: Sequence[Question]) -> list[Reply]:
        """One reply for each; ``None`` where the record cannot be read.

        Raises:
            RedisError: the store cannot be reached.
            UnusableError: it can, and does not do it.
        """
        replies = self._ask(questions)
        elsewhere = [index for index, reply in enumerate(replies) if isinstance(reply, ELSEWHERE)]
        if elsewhere:
            self._wire.refresh()
            self._again(questions, replies, elsewhere)
        spoilt = [index for index, reply in enumerate(replies) if _unreadable(reply)]
        if spoilt:
            for client, indexes in self._wire.clients([questions[index] for index in spoilt]):
                for index in indexes:
                    client.unlink(*questions[spoilt[index]].keys)
            self._again(questions, replies, spoilt)
        for index, reply in enumerate(replies):
            if _unreadable(reply):
                replies[index] = None
            elif isinstance(reply, Exception):
                raise UnusableError(str(reply)) from reply
        return replies

    def _again(self, questions: Sequence[Question], replies: list[Any], which: list[int]) -> None:
        for index, reply in zip(which, self._ask([questions[index] for index in which]), strict=True):
            replies[index] = reply

    def _ask(self, questions: Sequence[Question]) -> list[Any]:
        replies: list[Any] = [None] * len(questions)
        for client, indexes in self._wire.clients(questions):
            missing = self._run(client, questions, indexes, replies)
            if missing:
                self._load(client, {questions[index].script for index in missing})
                self._run(client, questions, missing, replies)
        return replies

    def _run(
        self, client: Redis, questions: Sequence[Question], indexes: list[int], replies: list[Any]
    ) -> list[int]:
        """Returns which ones the server does not have the script of."""
        with client.pipeline(transaction=False) as pipeline:
            for index in indexes:
                question = questions[index]
                script = self._scripts[question.script]
                pipeline.evalsha(script.digest, len(question.keys), *question.keys, *question.args)
            self.trips += 1
            self.commands += len(indexes)
            for index, reply in zip(indexes, pipeline.execute(raise_on_error=False), strict=True):
                replies[index] = reply
        return [index for index in indexes if isinstance(replies[index], exceptions.NoScriptError)]

    def _load(self, client: Redis, names: set[str]) -> None:
        self.trips += 1
        with client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.script_load(self._scripts[name].text)
            pipeline.execute()

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()


def _unreadable(reply: object) -> bool:
    return isinstance(reply, exceptions.ResponseError) and UNREADABLE.search(str(reply)) is not None
