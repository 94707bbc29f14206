"""Makes the two dashboards, one in English and one in Russian, from panels.yml: `make dashboard`."""
# ruff: noqa: INP001

import json
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROWS: list[dict[str, Any]] = yaml.safe_load((HERE / "panels.yml").read_text("utf-8"))
SOURCE = {"type": "prometheus", "uid": "${source}"}
# One word, one colour, in every panel whose lines are states or results; other lines are coloured by Grafana.
COLORS = {
    "delivered": "green", "accepted": "blue", "queued": "#8e8e8e", "undelivered": "orange", "expired": "yellow", "failed": "red", "unknown": "purple",
    "matched": "green", "2xx": "green", "4xx": "orange", "5xx": "red", "rejected": "orange",
}  # fmt: skip


def drawn(number: int, panel: dict[str, Any], language: str, place: dict[str, int]) -> dict[str, Any]:
    """A panel as Grafana keeps it."""
    steps = [{"value": value, "color": color} for value, color in panel.get("steps", [(None, "green")])]
    defaults: dict[str, Any] = {
        "unit": panel["unit"],
        "thresholds": {"mode": "absolute", "steps": steps},
        **({"decimals": 0} if "whole" in panel else {}),
        **({"max": panel["max"]} if "max" in panel else {}),
    }
    legends = [legend[language] if isinstance(legend := query.get("legend", ""), dict) else legend for query in panel["queries"]]
    stat = "stat" in panel
    if not stat:
        stacked = "stack" in panel
        defaults |= {} if "signed" in panel else {"min": 0}
        defaults["custom"] = {
            "drawStyle": "line",
            "lineInterpolation": "stepAfter" if "states" in panel else "linear",
            "lineWidth": 1 if stacked else 2,
            "fillOpacity": 40 if stacked else 0,
            "showPoints": "never",
            "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        }
    options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background", "graphMode": "none"}
    return {
        "id": number,
        "title": panel[language],
        "type": "stat" if stat else "timeseries",
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": [] if stat else overrides(panel)},
        "options": options if stat else {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {"refId": chr(65 + n), "datasource": SOURCE, "expr": query["expr"], "legendFormat": legend}
            for n, (query, legend) in enumerate(zip(panel["queries"], legends, strict=True))
        ],
    }


def overrides(panel: dict[str, Any]) -> list[dict[str, Any]]:
    """Colours of the words that have one, and the right axis of queries that measure something else."""
    colors = [
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}]}
        for name, color in COLORS.items()
        if any(query.get("legend") in ("{{state}}", "{{result}}", "{{status}}") for query in panel["queries"])
    ]
    axes = [
        {
            "matcher": {"id": "byFrameRefID", "options": chr(65 + n)},
            "properties": [{"id": "unit", "value": query["right"]}, {"id": "custom.axisPlacement", "value": "right"}],
        }
        for n, query in enumerate(panel["queries"])
        if "right" in query
    ]
    return colors + axes


def panels(language: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    top, number = 0, 1
    for row in ROWS:
        found.append({"id": number, "type": "row", "title": row[language], "collapsed": False, "gridPos": {"x": 0, "y": top, "w": 24, "h": 1}, "panels": []})
        top, number, left = top + 1, number + 1, 0
        stats = all("stat" in panel for panel in row["panels"])
        width, height = (3, 4) if stats else (24 // min(len(row["panels"]), 4) if len(row["panels"]) != 6 else 8, 8)
        for panel in row["panels"]:
            if left + width > 24:
                left, top = 0, top + height
            found.append(drawn(number, panel, language, {"x": left, "y": top, "w": width, "h": height}))
            left, number = left + width, number + 1
        top += height
    return found


def dashboard(language: str) -> dict[str, Any]:
    column = ("en", "ru").index(language)
    return {
        "uid": f"vestnik-{language}",
        "title": ("Vestnik", "Вестник")[column],
        "tags": ["vestnik"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "links": [{"type": "dashboards", "tags": ["vestnik"], "title": ("in Russian", "по-английски")[column], "asDropdown": True}],
        "annotations": {
            "list": [
                {
                    "name": ("Alerts", "Оповещения")[column],
                    "datasource": SOURCE,
                    "enable": True,
                    "expr": 'ALERTS{alertname=~"Vestnik.*",alertstate="firing",severity!="info"}',
                    "titleFormat": "{{alertname}}",
                    "iconColor": "red",
                }
            ]
        },
        "templating": {
            "list": [
                {"name": "source", "label": ("Source", "Источник")[column], "type": "datasource", "query": "prometheus", "current": {}},
                {
                    "name": "gateway",
                    "label": ("Gateway", "Шлюз")[column],
                    "type": "query",
                    "datasource": SOURCE,
                    "definition": "label_values(vestnik_queue_messages, gateway)",
                    "query": {"query": "label_values(vestnik_queue_messages, gateway)", "refId": "gateway"},
                    "refresh": 2,
                    "multi": True,
                    "includeAll": True,
                    "allValue": ".*",
                    "sort": 1,
                    "current": {"text": "All", "value": "$__all"},
                },
            ]
        },
        "panels": panels(language),
    }


def text_of(language: str) -> str:
    return json.dumps(dashboard(language), ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    for name in ("en", "ru"):
        (HERE / "dashboards" / f"vestnik-{name}.json").write_text(text_of(name), "utf-8")
