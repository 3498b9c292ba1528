# The front door: every command that a developer, a user or CI needs.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
NETNS  := preread-e2e

.DEFAULT_GOAL := help
.PHONY: help setup demo test check e2e durability bench serve-stack clean

help: ## Show this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## Create the virtual environment (about 2 GB, one to two minutes)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
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

.stack/.installed: orthanc/install-companions.sh orthanc/fhir-server/package.json
	bash orthanc/install-companions.sh
	$(BIN)/pip install --quiet --editable '.[dev,e2e]'
	@mkdir -p .stack && touch $@

e2e: setup .stack/.installed ## Real Orthanc, OHIF in Chromium, FHIR server, PostgreSQL and the validators
	bash tests/stack/in-namespace.sh $(NETNS) $(BIN)/pytest --timeout=900 -m "(orthanc or ohif or fhir_server or postgres or validators or slow) and not durability"

durability: setup .stack/.installed ## Kill tests: SIGKILL at every step boundary and at random times
	bash tests/stack/in-namespace.sh $(NETNS) $(BIN)/pytest --timeout=1500 -m durability

bench: setup .stack/.installed ## Receive rate beside Orthanc and storescp, and the node's overhead per study
	bash tests/stack/in-namespace.sh $(NETNS) $(BIN)/python benchmarks/receive.py
	$(BIN)/python benchmarks/overhead.py

serve-stack: setup ## Node + Orthanc + OHIF + FHIR server on this Debian machine, without Docker
	$(BIN)/python orthanc/serve_stack.py

clean: ## Remove what was built or demonstrated here, but not received studies (var/)
	rm -rf build dist demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
