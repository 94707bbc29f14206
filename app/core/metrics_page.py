"""docs/metrics.md and docs/ru/metrics.md, made from the metrics themselves: `make metrics-docs`."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from prometheus_client.metrics import MetricWrapperBase

from app.core import metrics

SUFFIX = {"counter": "_total", "info": "_info"}
LABELS_OF_INFO = ("version",)

WORDS = {
    "en": {
        "title": "# Metrics",
        "other": "[По-русски](ru/metrics.md)",
        "intro": (
            "Made from the code by `make metrics-docs`: do not edit. What to do with them: [monitoring](monitoring.md).\n\n"
            "Every process serves its own at `/metrics`; `GET /metrics/targets` lists the processes. Labels are bounded: never an account, an address or a text. "
            "Counters and histograms begin at 0 when their process starts. *worker* stands for every worker, the other names for the one that serves that queue. "
            "A scrape asks nobody: what comes from the database is as of a look some seconds ago."
        ),
        "head": "| metric | type | labels | what it is | of which processes | since |",
    },
    "ru": {
        "title": "# Метрики",
        "other": "[In English](../metrics.md)",
        "intro": (
            "Сделано из кода командой `make metrics-docs`: не правьте руками. Что с ними делать: [мониторинг](monitoring.md).\n\n"
            "Каждый процесс отдаёт свои на `/metrics`; список процессов: `GET /metrics/targets`. Значений у меток немного: среди них никогда нет счёта, адреса "
            "или текста. Счётчики и гистограммы начинаются с 0 при запуске процесса. *worker* — любой worker, остальные имена — тот, кто обслуживает эту очередь. "
            "Чтение метрик ни к кому не обращается: то, что взято из базы, увидено несколько секунд назад."
        ),
        "head": "| метрика | тип | метки | что это | у каких процессов | с версии |",
    },
}


def exported() -> list[MetricWrapperBase]:
    """All of ours, in the order of metrics.py."""
    return [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]


def name_of(metric: MetricWrapperBase) -> str:
    """As Prometheus knows it."""
    return str(metric._name) + SUFFIX.get(str(metric._type), "")  # noqa: SLF001 - prometheus_client tells it nowhere else


def labels_of(metric: MetricWrapperBase) -> tuple[str, ...]:
    return LABELS_OF_INFO if metric._type == "info" else tuple(metric._labelnames)  # noqa: SLF001


def told() -> dict[str, dict[str, Any]]:
    """What wording/metrics.toml adds to each metric: its processes, the values of its labels, the version that brought it, its help in Russian."""
    return cast("dict[str, dict[str, Any]]", tomllib.loads(files("app.core").joinpath("wording/metrics.toml").read_text("utf-8")))


def page_of(language: str) -> str:
    words, more = WORDS[language], told()
    lines = [words["title"], "", words["other"], "", words["intro"], "", words["head"], "|---|---|---|---|---|---|"]
    for metric in exported():
        name = name_of(metric)
        entry = more[name]
        what = metric._documentation if language == "en" else entry["ru"]  # noqa: SLF001
        values = entry.get("values", {})
        labels = "; ".join(f"`{label}`" + (f": {', '.join(values[label])}" if label in values else "") for label in labels_of(metric))
        lines.append(f"| `{name}` | {metric._type} | {labels} | {what} | {', '.join(entry['from'])} | {entry['since']} |")  # noqa: SLF001
    return "\n".join(lines) + "\n"


def write(docs: Path) -> None:
    (docs / "metrics.md").write_text(page_of("en"), "utf-8")
    (docs / "ru" / "metrics.md").write_text(page_of("ru"), "utf-8")


if __name__ == "__main__":
    write(Path("docs"))
