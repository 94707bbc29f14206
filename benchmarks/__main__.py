"""`make bench`: whole-path and per-stage measures, one line of JSON each, the median of three runs.

BENCH_MESSAGES (20,000) and BENCH_ACCOUNTS (200,000: imports and forecasts) set the size; BENCH_RUNS (3) the repetitions; name measures as arguments to run only these.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import cabinet, floors, forecasts, imports, letters, plan, pure, reports, whole_path
from benchmarks.stack import Stack

MESSAGES = int(os.environ.get("BENCH_MESSAGES", "20000"))
ACCOUNTS = int(os.environ.get("BENCH_ACCOUNTS", "200000"))
RUNS = int(os.environ.get("BENCH_RUNS", "3"))

ON_A_STACK: dict[str, Callable[[Stack, int], dict[str, Any]]] = {
    "batch": whole_path.batch,
    "single": whole_path.single,
    "latency": whole_path.latency,
    "slow_receipts": whole_path.slow_receipts,
    "email": whole_path.email,
    **imports.MEASURES,
    "forecast_planned": forecasts.planned,
}
ALONE: dict[str, Callable[[int], dict[str, Any]]] = {
    "floors": floors.measure,
    "rendering": pure.rendering,
    "segmenting": pure.segmenting,
    "letters": letters.letters,
    "plan": plan.planning,
    "forecast_scans": forecasts.scans,
    "cabinet": cabinet.cabinet,
    "reports": reports.reports,
}
OF_ACCOUNTS = {*imports.MEASURES, "forecast_planned", "forecast_scans", "cabinet"}


def report(name: str, measure: Callable[[], dict[str, Any]]) -> None:
    """Run it, and print the run that is in the middle by its rate."""
    runs = [measure() for _ in range(RUNS)]
    rates = [run["rate_per_s"] for run in runs]
    middle = min(runs, key=lambda run: abs(run["rate_per_s"] - statistics.median(rates)))
    print(json.dumps({"measure": name, **middle, "runs": rates}, ensure_ascii=False), flush=True)


def size_of(name: str) -> int:
    return ACCOUNTS if name in OF_ACCOUNTS else MESSAGES


def main() -> None:
    wanted = sys.argv[1:] or [*ALONE, *ON_A_STACK]
    if unknown := set(wanted) - {*ALONE, *ON_A_STACK}:
        raise SystemExit(f"no such measure: {', '.join(sorted(unknown))}; there are {', '.join([*ALONE, *ON_A_STACK])}")
    began = time.monotonic()
    for name in wanted:
        if name in ALONE:
            report(name, lambda measure=ALONE[name], name=name: measure(size_of(name)))  # type: ignore[misc]
    if on_stack := [name for name in wanted if name in ON_A_STACK]:
        with Stack() as stack:
            for name in on_stack:
                report(name, lambda measure=ON_A_STACK[name], name=name: measure(stack, size_of(name)))  # type: ignore[misc]
    print(json.dumps({"measure": "all", "seconds": round(time.monotonic() - began)}), flush=True)


if __name__ == "__main__":
    main()
