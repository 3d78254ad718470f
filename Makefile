# Two commands do everything on a fresh machine with GNU make, Python 3.11 or newer and git:
#   make demo   records and explores real MCP servers, stops them, replays the same calls, prints what happened
#   make test   installs what the tests need and runs them all
# Where npm is found, three more servers are installed and used. The second run of each is quick.

PYTHON ?= python3
VENV ?= .venv
NODE_TOOLS := $(and $(shell command -v node 2>/dev/null),$(shell command -v npm 2>/dev/null))

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -qq --constraint constraints.txt
PINS := pyproject.toml constraints.txt
SERVERS := $(if $(NODE_TOOLS),.servers/.installed)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo demo-train test check bench bench-replay bench-fidelity bench-graph bench-explore bench-synth bench-rollouts bench-train clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.demo $(SERVERS)  ## record and explore real servers, replay them offline, print what happened
	@$(BIN)/python examples/demo.py

demo-train: $(VENV)/.train  ## train a tiny model on a recorded server, in replay (takes six minutes)
	@rm -rf .demo-train
	@$(BIN)/python examples/training/demo.py

test: $(VENV)/.dev $(SERVERS)  ## run every test (ARGS="-k replay -x" is passed to pytest)
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev  ## ruff format, ruff and mypy --strict
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m mypy

bench: $(VENV)/.bench  ## measure what the proxy adds to a call
	@$(BIN)/python tests/bench/proxy_overhead.py

bench-replay: $(VENV)/.dev  ## measure opening and answering from a million exchanges (takes ten minutes)
	@$(BIN)/python tests/bench/replay.py $(ARGS)

bench-fidelity: $(VENV)/.dev  ## measure how often replays are right (CORPORA=folder of session files)
	@$(BIN)/python tests/bench/fidelity.py --corpora $(CORPORA) $(ARGS)

bench-graph: $(VENV)/.dev  ## measure building the tool graph (TOOLS=file of tool entries, JSON lines)
	@$(BIN)/python tests/bench/graph.py --tools $(TOOLS) $(ARGS)

bench-explore: $(VENV)/.dev  ## run 5,000 calls over servers that crash and hang, killed once and resumed
	@$(BIN)/python tests/bench/campaign.py $(ARGS)

bench-rollouts: $(VENV)/.dev  ## measure what the environment costs in training (TASKS=folder DB=file)
	@$(BIN)/python tests/bench/rollouts.py --tasks $(TASKS) --db $(DB) $(ARGS)

bench-train: $(VENV)/.dev  ## measure a GPU on a model of 4B parameters with random weights
	@$(BIN)/python tests/bench/train_4b.py $(ARGS)

bench-synth: $(VENV)/.dev  ## measure making tasks of a recording (DB=file)
	@$(BIN)/python tests/bench/synthesis.py --db $(DB) $(ARGS)

clean:  ## remove caches, the demo's recording and the npm servers; the virtual environment stays
	rm -rf .demo .demo-train .servers .mypy_cache .ruff_cache .pytest_cache dist
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

# pip is the last thing that venv installs, so it stands for a complete environment.
$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || { echo "Firefly needs Python 3.11 or newer, and $(PYTHON) was not found" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Firefly needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1): try make PYTHON=python3.12" >&2; exit 1; }
	@echo "making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(PINS) | $(BIN)/pip
	@echo "installing Firefly and two Python servers into $(VENV)"
	@$(INSTALL) -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(PINS) | $(BIN)/pip
	@echo "installing Firefly and what its tests need into $(VENV)"
	@$(INSTALL) -e '.[demo,dev,semantic]'
	@touch $@

$(VENV)/.train: $(PINS) | $(BIN)/pip
	@echo "installing Firefly and what it trains with into $(VENV)"
	@$(INSTALL) -e '.[train]'
	@touch $@

$(VENV)/.bench: $(PINS) | $(BIN)/pip
	@echo "installing Firefly and what it is compared with into $(VENV)"
	@$(INSTALL) -e '.[bench]'
	@touch $@

# npm ci takes exactly the versions in the lock file. The servers need no install scripts, so none are run.
.servers/.installed: tests/servers/package.json tests/servers/package-lock.json
	@echo "installing three npm servers into .servers"
	@mkdir -p .servers
	@cp $^ .servers
	@cd .servers && npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error >/dev/null
	@touch $@
