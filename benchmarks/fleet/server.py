"""A server that is not there: the shipped scripts, run by Lua 5.1 on a dictionary and a virtual clock."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from lupa.lua51 import LuaRuntime, lua_type

from gip_resilience._redis_asking import load_scripts

if TYPE_CHECKING:
    from collections.abc import Callable

    from gip_resilience._fleet_words import Question, Reply


class Server:
    """What a Redis does with the scripts, and nothing else.

    Args:
        now: its clock, in seconds.
        publish: is given what a script publishes.

    Attributes:
        commands: scripts run.
    """

    def __init__(self, now: Callable[[], float], publish: Callable[[bytes], None]) -> None:
        self._now = now
        self._publish = publish
        self._data: dict[str, Any] = {}
        self._ends: dict[str, float] = {}
        self.commands = 0
        self._commands: dict[str, Callable[..., Any]] = {
            "HMGET": self._hmget,
            "HGETALL": self._hgetall,
            "HSET": self._hset,
            "HINCRBY": self._hincrby,
            "HDEL": self._hdel,
            "GET": self._get,
            "SET": self._set,
            "DEL": self._del,
            "PEXPIRE": self._pexpire,
            "PTTL": self._pttl,
        }
        self._lua = LuaRuntime(unpack_returned_tuples=False)
        self._lua.globals().redis = self._lua.table_from({"call": self._call})
        self._scripts = {
            name: self._lua.execute(f"return function(KEYS, ARGV)\n{script.text}\nend")
            for name, script in load_scripts().items()
        }

    def clear(self) -> None:
        """It was restarted."""
        self._data.clear()
        self._ends.clear()

    def run(self, question: Question) -> Reply:
        """One script, at once and alone, as a server does."""
        self.commands += 1
        table = self._lua.table_from
        return self._reply(
            self._scripts[question.script](table(question.keys), table(map(str, question.args)))
        )

    def _reply(self, value: Any) -> Reply:
        """Numbers lose what is behind the point, as they do in Redis; a table is a list up to its first hole."""
        if value is None or value is False:
            return None
        if value is True:
            return 1
        if isinstance(value, (int, float)):
            return int(value)
        if lua_type(value) == "table":
            return [self._reply(value[place]) for place in range(1, len(value) + 1)]
        return str(value).encode()

    # ---- commands ------------------------------------------------------------------------------------------

    def _call(self, name: str, *args: Any) -> Any:
        if name == "TIME":
            return self._time()
        if name == "PUBLISH":
            self._publish(_text(args[1]).encode())
            return 1
        for key in args if name == "DEL" else args[:1]:
            self._expire(key)
        return self._commands[name](*args)

    def _expire(self, key: str) -> None:
        if self._ends.get(key, self._now()) < self._now():
            self._remove(key)

    def _remove(self, key: str) -> bool:
        self._ends.pop(key, None)
        return self._data.pop(key, None) is not None

    def _time(self) -> Any:
        micros = round(self._now() * 1e6)
        return self._lua.table_from([str(micros // 1_000_000), str(micros % 1_000_000)])

    def _hmget(self, key: str, *names: Any) -> Any:
        record = self._data.get(key, {})
        return self._lua.table_from([record.get(_text(name), False) for name in names])

    def _hgetall(self, key: str) -> Any:
        return self._lua.table_from([part for pair in self._data.get(key, {}).items() for part in pair])

    def _hset(self, key: str, *pairs: Any) -> int:
        texts = [_text(part) for part in pairs]
        self._data.setdefault(key, {}).update(zip(texts[::2], texts[1::2], strict=True))
        return len(texts) // 2

    def _hincrby(self, key: str, name: Any, by: Any) -> int:
        record = self._data.setdefault(key, {})
        record[_text(name)] = str(int(record.get(_text(name), "0")) + int(by))
        return int(record[_text(name)])

    def _hdel(self, key: str, *names: Any) -> int:
        record = self._data.get(key, {})
        gone = [record.pop(_text(name), None) for name in names]
        if key in self._data and not record:
            self._remove(key)
        return len(gone) - gone.count(None)

    def _get(self, key: str) -> Any:
        return self._data.get(key, False)

    def _set(self, key: str, value: Any, option: str, milliseconds: Any) -> bool:
        if option != "PX":
            raise AssertionError(option)
        self._data[key] = _text(value)
        return bool(self._pexpire(key, milliseconds))

    def _del(self, *keys: str) -> int:
        return sum(self._remove(key) for key in keys)

    def _pexpire(self, key: str, milliseconds: Any) -> int:
        if key not in self._data:
            return 0
        self._ends[key] = self._now() + int(float(milliseconds)) / 1000.0
        return 1

    def _pttl(self, key: str) -> int:
        return ceil((self._ends[key] - self._now()) * 1000.0) if key in self._ends else -2


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
