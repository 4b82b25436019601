"""What only the README has: its programs' outcome, its extras, and how long it is."""

from __future__ import annotations

import re
import sys
import tomllib
from typing import Any

import pytest

import gip_resilience as gr
from gip_resilience.gateway import Gateway
from pages import PAGES, ROOT, close

sys.path.insert(0, str(ROOT))
from release.installing import FOR_DEVELOPERS

(README,) = (page for page in PAGES if page.name == "README.md")


@pytest.fixture
def names(gateway: Gateway) -> Any:
    """What its programs leave behind, run in order, in one namespace."""
    found: dict[str, Any] = {"__name__": "readme"}
    try:
        README.run(gateway.url, found)
        yield found
    finally:
        close(found)


@pytest.mark.timeout(120)  # LangChain alone takes seconds to import
def test_the_clients_are_mounted_and_answered(names: dict[str, Any]) -> None:
    """Each of them, SDKs too."""
    assert names["response"].status_code == 200
    assert gr.report(names["response"]).outcome == "success"
    assert names["answer"].choices[0].message.content.startswith("You said: hello")
    assert names["message"].content[0].text.startswith("You said: hello")
    assert names["said"].content.startswith("You said: hello")
    for client in ("session", "llm", "claude", "chat"):
        with pytest.raises(ValueError, match="another Resilience"):
            gr.mount(names[client], gr.Resilience())


def test_the_extras_are_those_of_the_package() -> None:
    """All of them that are for users."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = re.search(r"^Extras: (.*?)\.", README.text, re.MULTILINE | re.DOTALL)

    assert listed is not None
    assert set(re.findall(r"`(\w+)`", listed[1])) == project["optional-dependencies"].keys() - FOR_DEVELOPERS


def test_it_is_short() -> None:
    """What is long belongs into the pages of the documentation."""
    assert README.text.count("\n") <= 230
