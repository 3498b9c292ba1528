# The front door: every command that a developer, a user or CI needs.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test check e2e durability bench serve-stack clean

help: ## Show this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## Create the virtual environment (about 6 GB, two to three minutes)

$(STAMP): pyproject.toml no-deps.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps --requirement no-deps.txt
	@touch $@

demo: setup ## A synthetic brain MR through the whole node: SQLite, local folders, no server
	$(BIN)/preread demo

test: setup ## Unit, contract and protocol tests on the embedded default
	$(BIN)/pytest -m "not orthanc and not ohif and not fhir_server and not postgres and not validators and not durability and not slow"

check: setup ## Formatting, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

COMPANIONS := .stack/.installed

$(COMPANIONS): $(STAMP) orthanc/install.py orthanc/fhir-server/package-lock.json tests/stack/install-tools.sh
	apt-get update -qq
	$(BIN)/python -m orthanc.install --system --fetch
	bash tests/stack/install-tools.sh
	$(BIN)/pip install --quiet --editable '.[dev,e2e,masks]'
	@touch $@

e2e: $(COMPANIONS) ## Real Orthanc, OHIF in Chromium, FHIR server, PostgreSQL and the validators
	$(BIN)/pytest --timeout=1200 -m "(orthanc or ohif or fhir_server or postgres or validators or slow) and not durability"

durability: $(COMPANIONS) ## Kill tests: SIGKILL at every step boundary and at random times
	$(BIN)/pytest --timeout=3000 -s -m durability

bench: $(COMPANIONS) ## Receive rate beside Orthanc and storescp, overhead per study, speed of every model, what texts cost and what the checker lets through
	$(BIN)/python benchmarks/receive.py --repeats 3
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/models.py
	$(BIN)/python benchmarks/language_cost.py --reports 10 --adapter models/report-wording-lora/1.1.0
	$(BIN)/python benchmarks/checker.py --held-back
	$(BIN)/python benchmarks/assistant.py

serve-stack: $(COMPANIONS) ## Node + Orthanc + OHIF + FHIR server on this Debian machine, without Docker
	$(BIN)/python -m orthanc.serve_stack

clean: ## Remove what was built or demonstrated here, but not received studies (var/)
	rm -rf build dist demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
