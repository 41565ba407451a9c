# `make help` lists the targets.

PYTHON ?= python3
PORT ?= 8888
VENV := .venv
BIN := $(VENV)/bin
CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
FIRST = $(firstword $(sort $(wildcard notebooks/*.ipynb)))
# Every test that is skipped is named, with its reason.
PYTEST = $(BIN)/python -m pytest -q -rs
# One notebook or test file stays in one process.
PARALLEL = -n 2 --dist loadfile

# JupyterLab prints the address of the first lesson, and opens it where there is a screen.
LAB_OPTIONS = --port=$(PORT) --LabApp.default_url=/lab/tree/$(FIRST) --log-level=WARN
ifeq ($(shell id -u),0)
LAB_OPTIONS += --allow-root
endif
ifneq ($(shell uname),Darwin)
ifeq ($(DISPLAY)$(WAYLAND_DISPLAY),)
LAB_OPTIONS += --no-browser
endif
endif

# JupyterLab asks nobody about news, and does not look for updates: it works without a network.
LAB_SETTINGS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}

.DEFAULT_GOAL := help
.PHONY: help lab test lint unit regression verify build browser colab chromium clean

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18
	@echo "Settings: PYTHON= the interpreter (3.11 or later), PORT= of \`make lab\`."
	@echo "Google Colab: \`$(BIN)/exercises set-repository OWNER/NAME\` puts its badge and its setup cell into every notebook."

lab: $(VENV)/.lab ## install, and open the first lesson in JupyterLab
	@test -n "$(FIRST)" || { echo "There is no notebook in notebooks/: run \`make build\`."; exit 1; }
	@echo "Starting JupyterLab; Ctrl-C ends it."
	@$(BIN)/jupyter lab $(LAB_OPTIONS)

test: lint unit regression ## install, and prove everything: lint, types, tests, notebooks

lint: $(VENV)/.dev
	@echo "== lint and types"
	$(BIN)/ruff check
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/python tools/workflows.py

unit: export OMP_NUM_THREADS = 1
unit: $(VENV)/.dev
	@echo "== unit tests, wrong answers, notebooks in step"
	$(PYTEST) $(PARALLEL)

regression: export OMP_NUM_THREADS = 1
regression: $(VENV)/.dev
	@echo "== regression: every output of every solution"
	$(PYTEST) $(PARALLEL) --nbval solutions

verify: export OMP_NUM_THREADS = 1
verify: $(VENV)/.dev ## run every solution on every set of weights
	$(BIN)/exercises verify

build: export OMP_NUM_THREADS = 1
build: $(VENV)/.dev chromium ## solutions -> executed solutions -> exercise notebooks
	$(BIN)/exercises build

browser: export OMP_NUM_THREADS = 1
browser: $(VENV)/.dev chromium ## run the notebooks in JupyterLab in a real browser
	$(PYTEST) -n 2 --dist load -m browser tests/browser

colab: export OMP_NUM_THREADS = 1
colab: $(VENV)/.dev ## run the notebooks as Google Colab would
	$(PYTEST) -n 2 -m colab tests/colab

clean: ## remove what make installed
	rm -rf $(VENV) .colab .mypy_cache .pytest_cache .ruff_cache

chromium:
	@test -n "$(CHROMIUM)" || { echo "This needs Chromium (the lessons themselves do not)."; \
	  echo "On Debian and Ubuntu, as root: apt-get install chromium. Elsewhere: https://www.chromium.org"; exit 1; }

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no \`$(PYTHON)\` here, and Python 3.11 or later is needed."; \
	  echo "Install it, or name another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or later is needed; \`$(PYTHON)\` is `$(PYTHON) --version 2>&1`."; \
	  echo "Choose another with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "No virtual environment could be made. On Debian and Ubuntu, as root: apt-get install python3-venv"; exit 1; }

# A stamp is older than what it was installed from: then pip runs again.
$(VENV)/.lab $(VENV)/.dev: $(VENV)/.%: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "== installing (the first time takes some minutes)"
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[$*]'
	@mkdir -p $(VENV)/share/jupyter/lab/settings
	@echo '$(LAB_SETTINGS)' > $(VENV)/share/jupyter/lab/settings/overrides.json
	@touch $@
