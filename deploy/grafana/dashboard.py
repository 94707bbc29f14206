"""Makes the two dashboards, one in English and one in Russian, from panels.yml: `make dashboard`."""
# ruff: noqa: INP001

import json
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROWS: list[dict[str, Any]] = yaml.safe_load((HERE / "panels.yml").read_text("utf-8"))
SOURCE = {"type": "prometheus", "uid": "${source}"}


def drawn(number: int, panel: dict[str, Any], language: str, place: dict[str, int]) -> dict[str, Any]:
    """A panel as Grafana keeps it."""
    steps = [{"value": value, "color": color} for value, color in panel.get("steps", [(None, "green")])]
    defaults: dict[str, Any] = {
        "unit": panel["unit"],
        "thresholds": {"mode": "absolute", "steps": steps},
        **{name: panel[name] for name in ("min", "max") if name in panel},
    }
    stat = "stat" in panel
    if not stat:
        stacking = {"mode": "normal" if "stack" in panel else "none", "group": "A"}
        defaults["custom"] = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "stacking": stacking}
    options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background", "graphMode": "none"}
    return {
        "id": number,
        "title": panel[language],
        "type": "stat" if stat else "timeseries",
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options if stat else {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {"refId": chr(65 + n), "datasource": SOURCE, "expr": query["expr"], "legendFormat": query.get("legend", "")}
            for n, query in enumerate(panel["queries"])
        ],
    }


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
