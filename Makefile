# Everything runs in .venv, which is made on first use. From a clean clone on Debian this needs python3 (3.11 or
# newer, with python3-venv), make, and an index that pip can reach.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --require-virtualenv
JOBS ?= 2
SOAK_SECONDS ?= 3600

# A stamp is as new as the pyproject.toml that was installed.
DEV := $(VENV)/dev.stamp
DEMO := $(VENV)/demo.stamp
FUZZ := $(VENV)/fuzz.stamp
BENCH := $(VENV)/bench.stamp
DOCS := $(VENV)/docs.stamp
MUTANTS := $(VENV)/mutants.stamp

# Inputs for each target of `make fuzz`, and the seconds after which it is content with fewer.
FUZZ_RUNS ?= 100000
FUZZ_TIME ?= 60
FUZZ_TARGETS ?= $(shell sed -n 's/^    "\([a-z0-9]*\)",$$/\1/p' fuzz/__init__.py)
FOUND := .fuzz
SITE := site
BROWSER := .browser

# Rounds of each comparison of `make bench`, and the seconds after which it is content with fewer.
BENCH_ROUNDS ?= 31
BENCH_SECONDS ?= 4

# Modules for `make mutants`; all that mutation/ names if there are none.
MUTATE ?=

# Annotations of the public surface, as users' type checkers see it.
TYPING := $(wildcard tests/typing)

.DELETE_ON_ERROR:
.PHONY: help demo test test-all coverage docs docs-check docs-tables fuzz mutants lint types pytest format simulation soak \
	soak-report bench bench-report bench-check wheel wheel-test extras clean

help:
	@echo 'make demo     a bad afternoon at a local gateway, with and without gip_resilience (needs no network)'
	@echo 'make test     everything: lint, types, tests'
	@echo 'make test-all the same, and what takes long: streams cut at every byte, fuzzing'
	@echo 'make fuzz     FUZZ_RUNS inputs, or FUZZ_TIME seconds, for each target in fuzz/'
	@echo 'make mutants  change what decides, one thing at a time, and see that a test fails: hours (Linux); see mutation/README.md'
	@echo 'make coverage  which lines and branches of src the tests reach'
	@echo 'make docs     the documentation as a site, in $(SITE)/index.html; a warning is an error'
	@echo 'make docs-check   that site in a browser: accessibility, outside requests (needs Chromium, Node.js and npm)'
	@echo 'make docs-tables  write the tables of the documentation that are made of the code'
	@echo 'make lint     ruff check, ruff format --check, and a docstring for all that is public'
	@echo 'make types    mypy --strict and basedpyright'
	@echo 'make pytest   the tests alone'
	@echo 'make format   let ruff put the source in order'
	@echo 'make simulation  the standard scenarios of gip-resilience simulate, and docs/simulation.md from them'
	@echo 'make soak     the endurance run: an hour, or SOAK_SECONDS=60 (Linux; loopback only); see soak/README.md'
	@echo 'make soak-report  docs/soak.md from the result of the last run, or of one that is under way'
	@echo 'make bench    what it costs, beside bare clients and rivals: BENCH_ROUNDS rounds, some 8 minutes'
	@echo 'make bench-report  docs/performance.md and its plots from the result of the last run'
	@echo 'make bench-check   instruction counts of the key paths against those recorded (needs valgrind)'
	@echo 'make wheel    dist/: the source distribution and the wheel, the same bytes every time'
	@echo 'make wheel-test  the tests against the wheel, installed in an environment of its own, without src'
	@echo 'make extras   every extra installed by itself, and tried'
	@echo 'make clean    remove .venv and everything else that was made'

# The demo needs less than the tests; a .venv that is ready for the tests will do.
demo: $(if $(wildcard $(DEV)),$(DEV),$(DEMO))
	@$(BIN)/python -m gip_resilience demo

# One after the other, whatever -j says: the cheap checks first, pytest's summary last.
test: $(DEV)
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory types
	@$(MAKE) --no-print-directory pytest

test-all: test
	@$(BIN)/python -m pytest -p xdist -n $(JOBS) --dist worksteal -m exhaustive
	@$(MAKE) --no-print-directory fuzz

# One process at a time. Says nothing while nothing is found; then all that the fuzzer says, and where the input is.
fuzz: $(FUZZ)
	@mkdir -p $(FOUND)
	@for target in $(FUZZ_TARGETS); do \
		mkdir -p $(FOUND)/$$target; \
		$(BIN)/python -m fuzz $$target $(FOUND)/$$target fuzz/corpus/$$target \
			-runs=$(FUZZ_RUNS) -max_total_time=$(FUZZ_TIME) -max_len=200 -timeout=10 -rss_limit_mb=1024 \
			-artifact_prefix=$(FOUND)/$$target- >$(FOUND)/log 2>&1 || { cat $(FOUND)/log; exit 1; }; \
	done

mutants: $(MUTANTS)
	@$(BIN)/python -m mutation run --jobs $(JOBS) $(MUTATE)
	@$(BIN)/python -m mutation report

# Twice as slow as without. Lines and branches, of what tests start in processes of its own, too.
coverage: $(DEV)
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m coverage run -m pytest -p xdist -n $(JOBS) --dist worksteal --timeout 180
	@$(BIN)/python -m coverage combine -q
	@$(BIN)/python -m coverage report

# Not --quiet, which hides warnings from --strict as well. The theme's notice is about its own future.
docs: $(DOCS)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --site-dir $(SITE)

docs-tables: $(DEV)
	@$(BIN)/python -m docs.tools.tables

# The driver and axe come from npm, into a directory of their own. CHROMIUM=/path/to/it names the browser.
docs-check: docs
	@mkdir -p $(BROWSER) && cp docs/tools/browser/* $(BROWSER)
	@cd $(BROWSER) && npm install --silent --no-audit --no-fund
	@node $(BROWSER)/check.mjs $(SITE) --shots $(BROWSER)/shots

# A few minutes, on one core. Nothing on the page is written by hand but its words.
simulation: $(DEV)
	@$(BIN)/python -m gip_resilience simulate --scenario all --policy docs/simulation/policy.toml --json \
		--plot docs/simulation >docs/simulation/results.json
	@$(BIN)/python -m benchmarks.simulation_page

lint: $(DEV)
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/interrogate --quiet src

types: $(DEV)
	@$(BIN)/mypy --no-error-summary src $(TYPING) $(wildcard examples)
	@$(if $(TYPING),$(BIN)/basedpyright --level error $(TYPING))

pytest: $(DEV)
	@$(BIN)/python -m pytest -p xdist -n $(JOBS) --dist worksteal

format: $(DEV)
	@$(BIN)/ruff check --quiet --fix
	@$(BIN)/ruff format --quiet

soak: $(DEV)
	@$(BIN)/python -m soak run --seconds $(SOAK_SECONDS)

soak-report: $(DEV)
	@$(BIN)/python -m soak report

# Everything else on the machine is in the way; ratios survive some of it.
bench: $(BENCH)
	@$(BIN)/python -m benchmarks --rounds $(BENCH_ROUNDS) --seconds $(BENCH_SECONDS)

bench-report: $(DEV)
	@$(BIN)/python -m benchmarks report

bench-check: $(DEV)
	@$(BIN)/python -m benchmarks check

wheel: $(DEV)
	@$(BIN)/python -m release build

# A minute for the new environment, and then as long as the tests take.
wheel-test: $(DEV)
	@$(BIN)/python -m release test -p xdist -n $(JOBS) --dist worksteal

extras: $(DEV)
	@$(BIN)/python -m release extras

clean:
	rm -rf $(VENV) $(FOUND) $(SITE) $(BROWSER) dist .hypothesis .mypy_cache .ruff_cache .pytest_cache
	find src tests benchmarks docs examples fuzz mutation release soak -name __pycache__ -prune -exec rm -rf {} +

$(DEV): pyproject.toml | $(BIN)/pip
	@echo 'installing the development tools into $(VENV) ...'
	@$(PIP) install --editable '.[dev]'
	@touch $@

$(FUZZ): pyproject.toml | $(BIN)/pip
	@echo 'installing what fuzzing needs into $(VENV) ...'
	@$(PIP) install --editable '.[fuzz]'
	@touch $@

$(BENCH): pyproject.toml | $(BIN)/pip
	@echo 'installing what is compared into $(VENV) ...'
	@$(PIP) install --editable '.[bench]'
	@touch $@

$(DOCS): pyproject.toml | $(BIN)/pip
	@echo 'installing what the documentation needs into $(VENV) ...'
	@$(PIP) install --editable '.[docs]'
	@touch $@

$(MUTANTS): pyproject.toml | $(BIN)/pip
	@echo 'installing what mutation testing needs into $(VENV) ...'
	@$(PIP) install --editable '.[mutants]'
	@touch $@

$(DEMO): pyproject.toml | $(BIN)/pip
	@echo 'installing what the demo needs into $(VENV) ...'
	@$(PIP) install --editable '.[all]' openai trio
	@touch $@

$(BIN)/pip:
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
