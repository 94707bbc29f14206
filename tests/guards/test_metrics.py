"""Metrics, alerts and dashboards fit together: what is asked for exists, what exists is described, and every alert has its tests and its page."""

import importlib.util
import itertools
import json
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from app.core import metrics_page

ROOT = Path(__file__).resolve().parents[2]
DEPLOY, DOCS = ROOT / "deploy", ROOT / "docs"
ALERTS = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text("utf-8"))
ALERT_TESTS = yaml.safe_load((DEPLOY / "prometheus/alerts_test.yml").read_text("utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
ALERT_RULES = [rule for rule in RULES if "alert" in rule]
LANGUAGES = ("en", "ru")

# Of PromQL, what our queries use; whoever needs more adds it here.
FUNCTIONS = {"abs", "absent", "histogram_quantile", "increase", "min_over_time", "rate", "time", "vector"}
AGGREGATIONS = {"count", "max", "min", "sum", "topk"}
WORDS = FUNCTIONS | AGGREGATIONS | {"and", "by", "offset", "on", "or", "unless"}
# Prometheus' own, and those that prometheus_client has for every process.
OTHERS = {"up", "ALERTS", "process_resident_memory_bytes", "process_cpu_seconds_total"}
TARGET_LABELS = {"job", "instance", "process"}


@cache
def labels_by_series() -> dict[str, set[str]]:
    """Every series that our processes export, with its labels."""
    found: dict[str, set[str]] = {}
    for metric in metrics_page.exported():
        name, labels = metrics_page.name_of(metric), set(metrics_page.labels_of(metric)) | TARGET_LABELS
        if metric._type == "histogram":
            found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
        else:
            found[name] = labels
    return found


def recorded() -> set[str]:
    return {rule["record"] for rule in RULES if "record" in rule}


def dashboard(language: str) -> dict:
    return json.loads((DEPLOY / f"grafana/dashboards/vestnik-{language}.json").read_text("utf-8"))


def queries() -> list[tuple[str, str]]:
    """(where, PromQL) of all rules and panels."""
    found = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in RULES]
    for language in LANGUAGES:
        shown = dashboard(language)
        found += [(f"{panel['title']}", target["expr"]) for panel in shown["panels"] for target in panel.get("targets", ())]
        found += [("annotations", one["expr"]) for one in shown["annotations"]["list"]]
    return found


def faults(promql: str) -> list[str]:
    """What is wrong with a query as far as its words tell: brackets, functions, metrics, labels in braces and after `by`."""
    found = []
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', promql)
    for opening, closing in ("()", "{}", "[]"):
        if text.count(opening) != text.count(closing):
            found.append(f"{opening}{closing} do not match")
    for name, selector in re.findall(r"([a-zA-Z_][\w:]*)\{([^}]*)\}", text):
        used = set(re.findall(r"(\w+)\s*[=!]", selector))
        allowed = labels_by_series().get(name)
        if allowed is not None and used - allowed:
            found.append(f"{name} has no label {sorted(used - allowed)}")
    known_labels = set().union(*labels_by_series().values()) | {"alertname"}
    for listed in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", text):
        found += [f"no label {label}" for label in re.findall(r"\w+", listed) if label not in known_labels]
    bare = re.sub(r"\b(?:by|on)\s*\([^)]*\)|\{[^}]*\}|\[[^\]]*\]|offset \w+", " ", text)
    for word, call in re.findall(r"(?<![\w.:])([a-zA-Z_][\w:]*)\s*(\(?)", bare):
        if call and word in WORDS:
            continue
        if word not in labels_by_series().keys() | recorded() | OTHERS | WORDS:
            found.append(f"unknown {'function' if call else 'metric'} {word}")
    return found


def test_the_check_of_queries_finds_what_is_wrong():
    assert faults("sum(rate(vestnik_events_total[5m])") == ["() do not match"]
    assert faults("sum(vestnik_event_total)") == ["unknown metric vestnik_event_total"]
    assert faults("averages(vestnik_stops)") == ["unknown function averages"]
    assert faults('vestnik_stops{gateway="main"}') == ["vestnik_stops has no label ['gateway']"]
    assert faults("sum by (gatewy) (vestnik_smtp_up)") == ["no label gatewy"]
    assert faults("rate(vestnik_plan_seconds[5m])") == ["unknown metric vestnik_plan_seconds"]


def test_every_query_of_rules_and_dashboards_asks_for_what_there_is():
    found = queries()

    assert len(found) > 150
    assert [(where, fault) for where, query in found for fault in faults(query)] == []


def test_every_alert_is_whole_and_its_name_is_its_own():
    assert len(ALERT_RULES) > 30
    assert len({rule["alert"] for rule in ALERT_RULES}) == len(ALERT_RULES)
    for rule in ALERT_RULES:
        assert re.fullmatch(r"Vestnik[A-Z]\w+", rule["alert"])
        assert re.fullmatch(r"\d+[mh]", rule.get("for", "0m")), rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "summary_ru", "description", "runbook"}, rule["alert"]
        assert re.search("[а-я]", rule["annotations"]["summary_ru"]), rule["alert"]


def test_the_threshold_of_every_alert_is_explained_above_it():
    lines = (DEPLOY / "prometheus/alerts.yml").read_text("utf-8").splitlines()

    unexplained = [line for before, line in itertools.pairwise(lines) if "- alert:" in line and not before.strip().startswith("# ")]

    assert unexplained == []


@pytest.mark.parametrize("page", ["runbook.md", "ru/runbook.md"])
def test_the_runbook_has_a_part_for_every_alert_and_for_no_other(page):
    text = (DOCS / page).read_text("utf-8")

    parts = re.findall(r"^### (Vestnik\w+)$", text, re.MULTILINE)

    assert parts == [rule["alert"] for rule in ALERT_RULES]
    assert [rule["annotations"]["runbook"] for rule in ALERT_RULES] == [f"docs/runbook.md#{name.lower()}" for name in parts]


def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not():
    tried = {(one["alertname"], bool(one["exp_alerts"])) for test in ALERT_TESTS["tests"] for one in test["alert_rule_test"]}

    assert tried == {(rule["alert"], fires) for rule in ALERT_RULES for fires in (True, False)}


def test_the_series_of_the_alert_tests_exist():
    given = [series["series"] for test in ALERT_TESTS["tests"] for series in test["input_series"]]

    assert [(series, fault) for series in given for fault in faults(series)] == []


def test_every_metric_is_described_and_nothing_else_is():
    assert list(metrics_page.told()) == [metrics_page.name_of(metric) for metric in metrics_page.exported()]
    for metric in metrics_page.exported():
        values = metrics_page.told()[metrics_page.name_of(metric)].get("values", {})
        assert set(values) <= set(metrics_page.labels_of(metric)), metrics_page.name_of(metric)


@pytest.mark.parametrize(("language", "page"), [("en", "metrics.md"), ("ru", "ru/metrics.md")])
def test_the_page_of_metrics_is_the_generated_one(language, page):
    assert (DOCS / page).read_text("utf-8") == metrics_page.page_of(language), "run `make metrics-docs`"


def test_pages_name_no_metric_that_is_not_there():
    known = labels_by_series().keys() | {metrics_page.name_of(metric) for metric in metrics_page.exported()}
    pages = [path for path in DOCS.rglob("*.md") if path.name != "install.md"]  # that one names files of secrets

    strange = {(path.name, name) for path in pages for name in re.findall(r"`(vestnik_[a-z_]+)", path.read_text("utf-8")) if name not in known}

    assert strange == set()


def test_every_metric_is_moved_by_some_code():
    source = "".join(path.read_text("utf-8") for path in (ROOT / "app").rglob("*.py") if path.name != "metrics.py")
    names = [name for name, value in vars(metrics_page.metrics).items() if value in metrics_page.exported()]

    assert [name for name in names if not re.search(rf"\bmetrics\.{name}\b", source)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_dashboards_are_the_generated_ones(language):
    spec = importlib.util.spec_from_file_location("dashboard", DEPLOY / "grafana/dashboard.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)

    assert (DEPLOY / f"grafana/dashboards/vestnik-{language}.json").read_text("utf-8") == made.text_of(language), "run `make dashboard`"


@pytest.mark.parametrize("language", LANGUAGES)
def test_panels_have_ids_of_their_own_and_do_not_overlap(language):
    panels = dashboard(language)["panels"]

    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert all(panel["title"] for panel in panels)


def test_compose_gives_prometheus_and_grafana_files_that_are_there():
    services = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]

    mounted = [volume.split(":")[0] for name in ("prometheus", "grafana") for volume in services[name]["volumes"] if volume.startswith("./")]

    assert len(mounted) == 4
    assert [path for path in mounted if not (ROOT / path).exists()] == []
    provisioned = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/vestnik.yml").read_text("utf-8"))["providers"][0]["options"]["path"]
    assert any(volume.split(":")[1] == provisioned for volume in services["grafana"]["volumes"])
    assert yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text("utf-8"))["rule_files"] == ["alerts.yml"]
