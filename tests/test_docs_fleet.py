"""What docs/fleet.md says is so: its program runs, its settings and commands exist, its rights are enough."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import gip_resilience as gr
from gip_resilience.cli import parser
from gip_resilience.redis import RedisStore
from servers import Server
from test_redis import ACL

PAGE = (Path(__file__).parents[1] / "docs" / "fleet.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks in *language*."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_program_runs() -> None:
    """As it stands, but for the address."""
    (program,) = blocks("python")
    with Server() as server:
        names: dict[str, Any] = {}
        exec(program.replace("127.0.0.1:6379", f"127.0.0.1:{server.port}"), names)
        store = names["store"]
        assert isinstance(store, RedisStore)
        assert store.flush(5.0)
        assert store.names.namespace == "shop"
        store.close()
        names["client"].close()


def test_the_settings_are_those_of_the_code() -> None:
    """All of them, with their defaults."""
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|", PAGE, re.MULTILINE)
    defaults = gr.StoreConfig()

    assert [name for name, _ in rows] == list(gr.StoreConfig.__struct_fields__)
    for name, value in rows:
        default = getattr(defaults, name)
        assert value == (f'"{default}"' if isinstance(default, str) else f"{default:g}")


@pytest.mark.parametrize("line", re.findall(r"^\$ gip-resilience (.*)$", PAGE, re.MULTILINE))
def test_the_commands_are_commands(line: str) -> None:
    """Each is understood."""
    assert parser().parse_args(shlex.split(line)).command == "fleet"


def test_the_rights_are_those_that_are_tested() -> None:
    """The block is the list that `test_redis` gives a user."""
    (rights,) = [block for block in blocks("text") if "+evalsha" in block]

    assert " ".join(rights.split()) == ACL.replace(">pw", ">password")
