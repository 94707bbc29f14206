.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --quiet

.PHONY: help setup run demo test check bench soak openapi metrics-docs dashboard dashboard-picture alerts-test letters-pictures helm-check lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(STAMP) ## .venv with the locked dependencies; finds Python 3.11 or 3.12 by itself

run: $(STAMP) ## everything in one command, with demo data: servers, API, workers, simulators; Ctrl-C stops it
	@$(BIN)/vestnik up --demo

demo: $(STAMP) ## the same, but ends by itself: exit 0 when every demo message reached its expected state
	@$(BIN)/vestnik up --demo --exit-when-done

test: $(STAMP) ## the test suite, on PostgreSQL and Redis of its own
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile

check: $(STAMP) ## formatting, lint, types, import order, OpenAPI drift, then the tests
	@echo "==> ruff format"; $(BIN)/ruff format --check .
	@echo "==> ruff check"; $(BIN)/ruff check .
	@echo "==> mypy"; $(BIN)/mypy
	@echo "==> import order"; $(BIN)/lint-imports
	@echo "==> OpenAPI document"; $(BIN)/vestnik openapi | diff -u openapi/vestnik.json - || { echo "openapi/vestnik.json is not what the code serves: run \`make openapi\` and look at the difference"; exit 1; }
	@echo "==> tests"; $(MAKE) --no-print-directory test

bench: $(STAMP) ## whole-path and per-stage benchmarks, one JSON line each; BENCH_MESSAGES and BENCH_ACCOUNTS set the size
	@$(BIN)/python -m benchmarks

soak: $(STAMP) ## many messages through far ends that drop, throttle, delay, reorder and lie; SOAK_MESSAGES sets how many
	@$(BIN)/python -m benchmarks.soak

openapi: $(STAMP) ## write openapi/vestnik.json from the code
	@mkdir -p openapi && $(BIN)/vestnik openapi > openapi/.new && mv openapi/.new openapi/vestnik.json

metrics-docs: $(STAMP) ## write docs/metrics.md and docs/ru/metrics.md from the code
	@$(BIN)/python -m app.core.metrics_page

dashboard: $(STAMP) ## write the Grafana dashboards from deploy/grafana/panels.yml
	@$(BIN)/python deploy/grafana/dashboard.py

dashboard-picture: $(STAMP) ## draw the English dashboard with the data of a Prometheus (needs npm and Chromium; deploy/grafana/look/README.md)
	@cd deploy/grafana/look && npm install --silent && node look.mjs
	@$(BIN)/python -c 'import sys; from PIL import Image; Image.open(sys.argv[1]).convert("RGB").quantize(256, dither=0).save(sys.argv[1], optimize=True)' \
		"$${LOOK_PICTURE:-docs/pictures/dashboard-$${LOOK_LANGUAGE:-en}.png}"

alerts-test: ## check the alert rules, and that each fires and is quiet when it should (needs promtool: Debian's package prometheus; PROMTOOL=/path/to/it)
	@cd deploy/prometheus && "$${PROMTOOL:-promtool}" check rules alerts.yml && "$${PROMTOOL:-promtool}" test rules alerts_test.yml

letters-pictures: $(STAMP) ## draw the pictures of the default letters for the docs again (needs Chromium; CHROMIUM=/path/to/it)
	@$(BIN)/python docs/pictures/letters.py

helm-check: ## lint and render the Helm chart, with the least and with everything turned on (needs helm)
	@command -v helm >/dev/null || { echo "make helm-check: helm is not installed" >&2; exit 1; }
	@for values in deploy/helm/vestnik/values.yaml deploy/helm/check.yaml; do \
		helm lint --strict deploy/helm/vestnik --values $$values && helm template vestnik deploy/helm/vestnik --values $$values >/dev/null; \
	done

lock: ## resolve the dependencies again (needs uv): requirements.txt and requirements-dev.txt
	@$(LOCK) -o requirements.txt
	@echo setuptools | $(LOCK) - --extra local --extra dev --constraint requirements.txt -o requirements-dev.txt

clean: ## remove what was built and cached; data in ./var stays
	@rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ensurepip is asked for too: some distributions ship a Python whose venv cannot install anything.
$(STAMP): requirements-dev.txt pyproject.toml
	@fits='import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'; \
	if ! { [ -x $(BIN)/python ] && $(BIN)/python -c "$$fits" 2>/dev/null; }; then \
		found=; \
		for candidate in "$${PYTHON:-}" python3.12 python3.11 python3 python "$${HOME:-}"/.pyenv/versions/3.1[12].*/bin/python /usr/local/bin/python3.1[12] /opt/*/bin/python3.1[12]; do \
			if [ -n "$$candidate" ] && "$$candidate" -c "$$fits" >/dev/null 2>&1; then found=$$candidate; break; fi; \
		done; \
		if [ -z "$$found" ]; then echo "make setup: Python 3.11 or 3.12 (with venv and ensurepip) was not found: install one, or name it with PYTHON=/path/to/python3.12" >&2; exit 1; fi; \
		echo "==> $(VENV) with $$("$$found" --version) ($$found)"; \
		rm -rf $(VENV); "$$found" -m venv $(VENV); \
	fi
	@echo "==> the locked dependencies (a minute or two the first time)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@echo "==> vestnik itself"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
