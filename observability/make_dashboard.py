"""Makes ``grafana/gip-resilience.json`` of `panels`, so that a change of the dashboard can be read.

    python observability/make_dashboard.py

Needs nothing but the standard library.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from panels import BLUE, GREEN, JOB, MARK, RED, ROWS, WHERE, Panel

OUT = Path(__file__).parent / "grafana" / "gip-resilience.json"

SCHEMA = 39
"""Of Grafana 10.4 and 11; later ones bring it up to date by themselves."""

WIDTH = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> dict[str, Any]:
    """The whole of it."""
    return {
        "uid": "gip-resilience",
        "title": "gip_resilience",
        "description": "Calls, retries, circuits, rate limits, retry budgets and event streams of LLM clients.",
        "tags": ["gip_resilience", "llm"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "",
        "templating": {"list": _variables()},
        "annotations": {"list": _annotations()},
        "links": [],
        "panels": _panels(),
    }


def _variables() -> list[dict[str, Any]]:
    return [
        {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "hide": 0,
        },
        _variable("job", "Job", "gip_resilience_info"),
        _variable("host", "Host", f"gip_resilience_calls_total{{{JOB}}}"),
        _variable("model", "Model", f'gip_resilience_calls_total{{{JOB}, host=~"$host"}}'),
    ]


def _variable(label: str, title: str, series: str) -> dict[str, Any]:
    query = f"label_values({series}, {label})"
    return {
        "name": label,
        "label": title,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"variable-{label}"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        # Everything, so that what has an empty label (a host's own circuit) is there too.
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _annotations() -> list[dict[str, Any]]:
    return [
        _annotation(
            "Circuit opened",
            RED,
            f"sum by (host, model, cause) "
            f'(increase(gip_resilience_circuit_transitions_total{{{WHERE}, state="open"}}[{MARK}])) > 0',
            "{{host}} {{model}}: {{cause}}",
        ),
        _annotation(
            "Configuration",
            BLUE,
            f"sum by (result) (increase(gip_resilience_config_reloads_total{{{JOB}}}[{MARK}])) > 0",
            "{{result}}",
        ),
    ]


def _annotation(name: str, colour: str, expr: str, text: str) -> dict[str, Any]:
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "expr": expr,
        "titleFormat": name,
        "textFormat": text,
        "step": "60s",
    }


def _panels() -> list[dict[str, Any]]:
    """Rows from above to below, panels from left to right; one that does not fit begins a new line."""
    made: list[dict[str, Any]] = []
    y = 0
    for title, panels in ROWS:
        made.append(
            {
                "id": len(made) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
                "panels": [],
            }
        )
        y += 1
        x = height = 0
        for panel in panels:
            if x + panel.width > WIDTH:
                x, y, height = 0, y + height, 0
            place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            made.append({"id": len(made) + 1, "gridPos": place, **_panel(panel)})
            x += panel.width
            height = max(height, panel.height)
        y += height
    return made


def _panel(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"color": colour, "value": value} for colour, value in panel.steps or ((GREEN, None),)],
        },
    }
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    if panel.top is not None:
        defaults["max"] = panel.top
    if panel.mappings:
        defaults["mappings"] = [
            {
                "type": "value",
                "options": {
                    f"{value:g}": {"text": word, "color": colour, "index": index}
                    for index, (value, word, colour) in enumerate(panel.mappings)
                },
            }
        ]
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 60 if panel.stack else 8,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
        }
    instant = panel.kind == "bargauge"
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": [_coloured(*pair) for pair in panel.colours]},
        "options": _OPTIONS[panel.kind],
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATASOURCE,
                "editorMode": "code",
                "expr": expr,
                "legendFormat": legend,
                "instant": instant,
                "range": not instant,
                "format": "heatmap" if panel.kind == "heatmap" else "time_series",
            }
            for index, (expr, legend) in enumerate(panel.queries)
        ],
    }


def _coloured(name: str, colour: str) -> dict[str, Any]:
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
    }


_LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"reduceOptions": _LAST, "colorMode": "value", "graphMode": "area", "textMode": "value"},
    "bargauge": {
        "reduceOptions": _LAST,
        "orientation": "horizontal",
        "displayMode": "basic",
        "showUnfilled": True,
    },
    "state-timeline": {
        "mergeValues": True,
        "showValue": "never",
        "rowHeight": 0.8,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "single", "sort": "none"},
    },
    "heatmap": {
        "calculate": False,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
        "yAxis": {"unit": "s", "axisPlacement": "left"},
        "cellGap": 1,
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "tooltip": {"mode": "single", "yHistogram": False},
    },
}


def text() -> str:
    """As it is in the file."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OUT.write_text(text(), encoding="utf-8")
    print(f"{OUT}: {sum(len(panels) for _, panels in ROWS)} panels")
