"""The dashboard, the recording rules and the alerts ask for what there is, in words that Prometheus understands."""

from __future__ import annotations

import json
import re
import runpy
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser as promql
import pytest
import yaml

from gip_resilience.breaker import Control, State
from gip_resilience.dialects import CODES
from gip_resilience.facts import STREAM, TRANSPORT, Category
from gip_resilience.prometheus import FAMILIES
from gip_resilience.taxonomy import GIP, classify

ROOT = Path(__file__).parents[1] / "observability"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "grafana" / "gip-resilience.json").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")

TARGET = frozenset({"job", "instance"})
"""Labels that Prometheus adds to everything it scrapes."""

GRAFANA = {"$__rate_interval": "5m", "$__range": "1h"}
"""Grafana's own variables where a duration is expected, and durations they may stand for."""


def series() -> dict[str, frozenset[str]]:
    """The labels of everything that can be asked for by its name."""
    found: dict[str, frozenset[str]] = {}
    for family in FAMILIES:
        labels = TARGET | set(family.labels)
        if family.kind == "histogram":
            found.update({family.name + suffix: labels for suffix in ("_count", "_sum")})
            found[family.name + "_bucket"] = labels | {"le"}
        else:
            found[family.name] = labels
    return found


SERIES = series()
VALUES = {
    family.name: {value for (value,) in family.known}
    for family in FAMILIES
    if len(family.labels) == 1 and family.known and family.labels != ("version",)
}
"""What the only label of a metric can be, where that is known beforehand."""

WORDS: dict[str, set[str]] = {
    "state": {str(state) for state in State},
    "control": {str(control) for control in Control},
    "outcome": {"success", "failure", "refused", "cancelled"},
}
"""What labels can be that several metrics have."""


def parse(text: str) -> Any:
    """Parse an expression as Prometheus would get it from Grafana."""
    for variable, duration in GRAFANA.items():
        text = text.replace(variable, duration)
    return promql.parse(text)


def selectors(tree: Any) -> list[Any]:
    """Every selection of series in an expression."""
    found: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql.VectorSelector):
            found.append(node)

    promql.walk(tree, visit)
    return found


def labels_of(node: Any, known: dict[str, frozenset[str]]) -> frozenset[str]:
    """The labels of an expression's result; nothing for a number."""
    match node:
        case promql.VectorSelector():
            return known[node.name]
        case promql.MatrixSelector():
            return known[node.vector_selector.name]
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return labels_of(node.expr, known)
        case promql.Call():
            vectors = [labels_of(arg, known) for arg in node.args]
            found = max(vectors, key=len, default=frozenset())
            return found - {"le"} if node.func.name == "histogram_quantile" else found
        case promql.AggregateExpr():
            inner = labels_of(node.expr, known)
            if str(node.op) in {"topk", "bottomk"}:
                return inner
            assert node.modifier is None or node.modifier.type == promql.AggModifierType.By
            by = frozenset(node.modifier.labels) if node.modifier else frozenset()
            assert by <= inner, f"{by - inner} is no label of {node.expr}"
            return by
        case promql.BinaryExpr():
            left, right = labels_of(node.lhs, known), labels_of(node.rhs, known)
            on = node.modifier.matching if node.modifier else None
            if on is not None:
                assert on.type == promql.LabelModifierType.Include
                assert frozenset(on.labels) <= left & right
            elif left and right and str(node.op) != "or":
                assert left == right, f"{node}: {set(left)} never matches {set(right)}"
            return left or right
    return frozenset()


def check(text: str, known: dict[str, frozenset[str]] = SERIES) -> frozenset[str]:
    """Parse an expression, look everything in it up, and return the labels of its result."""
    tree = parse(text)
    for selector in selectors(tree):
        assert selector.name in known, f"there is no {selector.name}"
        for matcher in selector.matchers.matchers:
            assert matcher.name in known[selector.name], f"{selector.name} has no {matcher.name}"
            possible = WORDS.get(matcher.name) or VALUES.get(selector.name)
            if possible and matcher.name not in TARGET:
                assert set(matcher.value.split("|")) <= possible
    return labels_of(tree, known)


# ---- the dashboard -----------------------------------------------------------------------------------------

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ROWS = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]


def name(panel: dict[str, Any]) -> str:
    """Name a test after its panel."""
    return str(panel["title"])


def test_the_dashboard_is_what_its_program_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody edited the file by hand, or forgot to make it anew."""
    monkeypatch.syspath_prepend(ROOT)
    made = runpy.run_path(str(ROOT / "make_dashboard.py"))

    assert made["text"]() == (ROOT / "grafana" / "gip-resilience.json").read_text(encoding="utf-8")


def test_the_shape_of_the_dashboard() -> None:
    """What Grafana needs to import it, with a data source that the reader chooses."""
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}

    assert DASHBOARD["schemaVersion"] >= 39
    assert DASHBOARD["title"]
    assert DASHBOARD["uid"]
    assert "id" not in DASHBOARD
    assert list(variables) == ["datasource", "job", "host", "model"]
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    for thing in (*PANELS, *DASHBOARD["annotations"]["list"], *list(variables.values())[1:]):
        assert thing["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_every_panel_has_a_number_of_its_own() -> None:
    """Grafana links to panels by number."""
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]

    assert len(set(numbers)) == len(numbers)


def test_no_panel_covers_another() -> None:
    """Nor does one leave the 24 columns there are."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert cells
        assert not cells & taken, panel["title"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_panels_stand_under_their_rows() -> None:
    """Every row has a heading of its own and at least one panel before the next."""
    kinds = [panel["type"] == "row" for panel in sorted(DASHBOARD["panels"], key=lambda p: p["gridPos"]["y"])]

    assert len({row["title"] for row in ROWS}) == len(ROWS)
    assert kinds[0]
    assert not kinds[-1]
    assert not any(one and following for one, following in pairwise(kinds))


@pytest.mark.parametrize("panel", PANELS, ids=name)
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    """Title, description, unit, and a name for every series."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in {"reqps", "cps", "percentunit", "s", "none"}
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for target in panel["targets"]:
        assert target["legendFormat"] or panel["type"] == "stat"


@pytest.mark.parametrize("panel", PANELS, ids=name)
def test_a_panel_asks_for_what_there_is(panel: dict[str, Any]) -> None:
    """Metrics, labels and the values of labels exist; legends name labels that the result has."""
    for target in panel["targets"]:
        labels = check(target["expr"])
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels
        if panel["type"] == "stat":
            assert not labels


@pytest.mark.parametrize("panel", PANELS, ids=name)
def test_a_panel_heeds_the_variables(panel: dict[str, Any]) -> None:
    """Every selection is of the chosen jobs, and where there are hosts and models, of the chosen ones."""
    for target in panel["targets"]:
        for selector in selectors(parse(target["expr"])):
            said = {m.name: m.value for m in selector.matchers.matchers}
            wanted = {
                label: f"${label}" for label in ("job", "host", "model") if label in SERIES[selector.name]
            }
            assert wanted.items() <= said.items()


def test_the_variables_and_annotations_ask_for_what_there_is() -> None:
    """The same for what is not a panel."""
    for variable in DASHBOARD["templating"]["list"][1:]:
        asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
        assert asked is not None
        assert asked[2] in check(asked[1])
    for annotation in DASHBOARD["annotations"]["list"]:
        labels = check(annotation["expr"])
        assert set(re.findall(r"{{(\w+)}}", annotation["textFormat"])) <= labels


def test_every_metric_is_shown_somewhere() -> None:
    """What is counted and not shown would not be looked at."""
    shown = {
        selector.name
        for panel in PANELS
        for target in panel["targets"]
        for selector in selectors(parse(target["expr"]))
    }

    for family in FAMILIES:
        assert any(seen == family.name or seen.startswith(f"{family.name}_") for seen in shown), family.name


# ---- recording rules and alerts ----------------------------------------------------------------------------


class Group(NamedTuple):
    """A group of rules as it is in its file."""

    file: str
    said: dict[str, Any]


GROUPS = [
    Group(path.name, group)
    for path in sorted((ROOT / "prometheus").glob("*.yml"), reverse=True)  # what is recorded comes first
    for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group.said["rules"]]
RECORDED = [rule for rule in RULES if "record" in rule]
ALERTS = [rule for rule in RULES if "alert" in rule]

DURATION = re.compile(r"(\d+(ms|[smhdwy]))+")


def rule_name(rule: dict[str, Any]) -> str:
    """Name a test after its rule."""
    return str(rule.get("record") or rule.get("alert"))


def known() -> dict[str, frozenset[str]]:
    """What can be asked for, with what is recorded; in the order in which it is worked out."""
    found = dict(SERIES)
    for rule in RECORDED:
        found[rule["record"]] = check(rule["expr"], found)
    return found


def test_the_files_are_rule_files() -> None:
    """The structure that promtool wants, and no word that Prometheus does not know."""
    for group in GROUPS:
        assert group.said.keys() <= {"name", "interval", "limit", "query_offset", "labels", "rules"}
        assert DURATION.fullmatch(group.said.get("interval", "1m"))
        assert group.said["rules"]
    for rule in RULES:
        assert ("record" in rule) != ("alert" in rule)
        if "record" in rule:
            assert rule.keys() <= {"record", "expr", "labels"}
        else:
            assert rule.keys() <= {"alert", "expr", "for", "keep_firing_for", "labels", "annotations"}
            assert DURATION.fullmatch(rule.get("for", "0s"))
    names = [group.said["name"] for group in GROUPS]
    assert len(set(names)) == len(names)
    assert len({rule_name(rule) for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("rule", RECORDED, ids=rule_name)
def test_a_recorded_name_says_what_it_is(rule: dict[str, Any]) -> None:
    """``level:metric:operation``, and the level is the labels of the result."""
    level, metric, operation = rule["record"].split(":")
    labels = check(rule["expr"], known())

    assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", metric)
    assert re.fullmatch(r"[a-z0-9_]+", operation)
    assert level == "_".join(label for label in ("job", "instance", "host", "model") if label in labels)
    # A rate's time is in its name.
    if window := re.search(r"rate(\d+[smh])$", operation):
        assert f"[{window[1]}]" in rule["expr"] or f":rate{window[1]}" in rule["expr"]


@pytest.mark.parametrize("rule", ALERTS, ids=rule_name)
def test_an_alert_can_fire(rule: dict[str, Any]) -> None:
    """It compares something that exists, and its text names labels that it has then."""
    labels = check(rule["expr"], known())
    tree = parse(rule["expr"])
    compared = []
    promql.walk(tree, lambda node: compared.append(str(getattr(node, "op", ""))) or True)

    assert set(compared) & {">", "<", "==", ">=", "<="}
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description"}
    assert labels & {"job"}
    for text in rule["annotations"].values():
        assert text.count("{{") == text.count("}}")
        for inside in re.findall(r"{{(.*?)}}", text):
            said = re.fullmatch(
                r" \$(?:labels\.(\w+)|value(?: \| (?:humanize|humanizePercentage|humanizeDuration))?) ",
                inside,
            )
            assert said is not None, inside
            assert said[1] is None or said[1] in labels, f"{said[1]} is none of {set(labels)}"


@pytest.mark.parametrize("rule", ALERTS, ids=rule_name)
def test_an_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    """The page next to it has a line for each."""
    assert f"| `{rule['alert']}` |" in README


def test_no_line_is_about_an_alert_that_is_gone() -> None:
    """Nor has the page one too many."""
    assert set(re.findall(r"^\| `(Gip\w+)` \|", README, re.MULTILINE)) == {rule["alert"] for rule in ALERTS}


# ---- what counts as failed ---------------------------------------------------------------------------------

OWN_FAULT = {
    Category.AUTH,
    Category.PERMISSION,
    Category.INVALID,
    Category.NOT_FOUND,
    Category.CONTENT,
    Category.SAFETY,
    Category.CONFIG,
    Category.UNKNOWN_4XX,
}
"""What is wrong with the request, not with who answers it."""


def kinds() -> dict[str, set[Category]]:
    """Every code with what kind of thing it says; two servers may mean two things by one word."""
    found: dict[str, set[Category]] = {}
    for table in (GIP, TRANSPORT, STREAM, *CODES.values()):
        for code, rule in table.items():
            found.setdefault(code, set()).add(rule.category)
    for status in range(400, 600):
        found.setdefault(f"http_{status}", set()).add(classify(status, (), b"").category)
    return found


def test_a_call_that_was_wrong_in_itself_is_not_failed() -> None:
    """The alerts leave out the codes that are the caller's fault, and none besides."""
    rule = next(r for r in RECORDED if r["record"] == "job_host_model:gip_resilience_calls_failed:rate5m")
    left_out = [m.value for m in selectors(parse(rule["expr"]))[0].matchers.matchers if m.name == "code"]

    for code, categories in kinds().items():
        excluded = any(re.fullmatch(pattern, code) for pattern in left_out)
        # A server that cannot (501), and a certificate that does not verify, are for those who run it to see to.
        expected = categories <= OWN_FAULT and code != "tls_error" and not code.startswith("http_5")
        assert excluded == expected, f"{code}: {categories}"
