"""Tables in the documentation that are made of the code are those of the code, and so is the picture."""

from __future__ import annotations

import json
import re

import pytest
from docs.tools import picture, tables

from faults.table import load
from gip_resilience import taxonomy
from gip_resilience.cli.meanings import MEANINGS
from gip_resilience.config import Config
from gip_resilience.facts import STREAM, TRANSPORT
from gip_resilience.policy import DEFAULTS, Policy
from pages import DOCS, PAGES, ROOT, Page


@pytest.mark.parametrize("page", PAGES, ids=repr)
def test_the_tables_are_those_of_the_code(page: Page) -> None:
    """What ``make docs-tables`` would write is there."""
    assert tables.filled(page.text) == page.text


def test_every_table_is_shown() -> None:
    """Once at least."""
    shown = {found[2] for page in PAGES for found in tables.MARKED.finditer(page.text)}

    assert shown == tables.TABLES.keys()


def test_the_table_of_codes_is_the_taxonomy_under_the_default_policies() -> None:
    """Each of the 23 codes has a line, with the attempts its policy allows and what its circuits are told."""
    (readme,) = (page for page in PAGES if page.name == "README.md")
    lines = {line[0].strip("`"): line for line in readme.table("code")}

    assert list(lines) == [str(code) for code in taxonomy.Code]
    assert len(lines) == 23
    for code, (_, meaning, attempts, waits, circuit) in lines.items():
        rule = taxonomy.GIP[code]
        policy = DEFAULTS[rule.policy]
        assert MEANINGS[code] == meaning + "."
        assert attempts == str(policy.max_attempts)
        assert (waits == "–") == (policy.max_attempts == 1)
        assert ("opens" in circuit) == (rule.model is taxonomy.Verdict.TRIP)
        assert ("host: failure" in circuit) == (rule.host is taxonomy.Verdict.FAILURE)
        assert ("model: failure" in circuit) == (rule.model is taxonomy.Verdict.FAILURE)


def test_no_setting_is_left_out() -> None:
    """Each group of the configuration has a table, and each setting words."""
    groups = {name for name, kind in Config.kinds.items() if kind.expected == "a table"} - {"policies"}

    assert groups == tables.GROUPS.keys()
    for group in (Config, Policy, *tables.GROUPS.values()):
        assert tables.documented(group).keys() == group.kinds.keys()


def test_no_name_is_left_out() -> None:
    """What is called by a name of ours is in a table of names."""
    assert {*tables.OUR_OWN, *taxonomy.GIP} >= {*TRANSPORT, *STREAM, "html_200", "error_200"}
    assert {*tables.OUR_OWN, *taxonomy.GIP} == MEANINGS.keys()


def test_statuses_are_all_there() -> None:
    """A status stands in one line, or is one of the others."""
    listed = tables.statuses()

    assert "| 502, 503 |" in listed
    assert "every other 4xx" in listed
    assert "every other 5xx" in listed


def test_the_number_of_faults_is_the_same_everywhere() -> None:
    """As many as there are in ``tests/data/faults.toml``."""
    told = [(page.name, *re.findall(r"(\d+) kinds of \[?fault", page.text)) for page in PAGES]
    there = str(len(load()))

    assert [page for page in told if page[1:]] == [
        ("README.md", there),
        ("docs/faults.md", there),
        ("docs/threats.md", there),
    ]


def test_the_picture_is_drawn_of_the_numbers() -> None:
    """And the README says the same in words, for those who do not see it."""
    numbers = json.loads((DOCS / "demo.json").read_text(encoding="utf-8"))
    drawn = picture.draw(numbers)

    assert (DOCS / "demo.svg").read_text(encoding="utf-8") == drawn
    label = drawn.partition('aria-label="')[2].partition('"')[0]
    assert f"![{label}](docs/demo.svg)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_picture_shows_every_client() -> None:
    """Bare and mounted, with streams as far as they are read."""
    numbers = json.loads((DOCS / "demo.json").read_text(encoding="utf-8"))

    for scores in (numbers["calls"], numbers["streams"]):
        assert len(scores) == 2 * len({score["client"] for score in scores})
    assert {score["client"] for score in numbers["calls"]} == {client.name for client in picture_clients()}


def picture_clients() -> tuple[object, ...]:
    """The demo's clients."""
    from gip_resilience.cli.clients import CLIENTS

    return tuple(CLIENTS)
