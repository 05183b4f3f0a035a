# `make help` lists the targets; `make test` and `make demo` are all one needs.

PYTHON ?= python3
# Any value: `make test` goes on to the other Pythons.
ALL_PYTHONS ?=
OTHER_PYTHONS = 3.12 3.13

BIN = .venv/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
# The markers carry Python's version: another PYTHON makes another environment.
INSTALLED = .venv/.installed-$(VERSION)
INSTALLED_DEMO = .venv-demo/.installed-$(VERSION)
INPUTS = pyproject.toml constraints.txt
PIP_INSTALL = -m pip --disable-pip-version-check install -qq -c constraints.txt
CODE = $(wildcard asgi_lifespan_guard tests examples benchmarks)

# The pyright package asks its registry for news otherwise.
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help test lint types unit test-pythons chaos demo bench diagrams servers constraints format clean

help:
	@echo 'make test          everything: lint, types, tests with 100 % coverage'
	@echo '                   (ALL_PYTHONS=1: then test-pythons, too; it is left out'
	@echo '                   otherwise, because time in CI is limited)'
	@echo 'make demo          see the guard at work, in an environment of its own'
	@echo 'make lint          ruff: rules and format'
	@echo 'make types         mypy --strict and pyright'
	@echo 'make unit          pytest with coverage (a part: $(BIN)/python -m pytest tests/asgi)'
	@echo 'make test-pythons  the quick tests on Python $(OTHER_PYTHONS), where present'
	@echo 'make chaos         100,000 scenarios of chaos with a new seed; again with'
	@echo '                   CHAOS_SEED=<what it printed>, fewer with CHAOS_EXAMPLES=,'
	@echo '                   past the first failure with CHAOS_GO_ON=1'
	@echo 'make bench         what the guard costs'
	@echo 'make diagrams      draw the diagrams in docs/phases.md from the tables'
	@echo 'make servers       measure what servers do on SIGTERM, for docs/servers.md'
	@echo 'make format        ruff: mend what it can'
	@echo 'make constraints   newest versions into constraints.txt'
	@echo 'make clean         remove everything that was made'
	@echo
	@echo 'PYTHON=python3.12 make test   takes another Python than python3 (3.11 or later)'

test: lint types unit $(if $(ALL_PYTHONS),test-pythons)

lint: $(INSTALLED)
	@echo '== lint'
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .

types: $(INSTALLED)
	@echo '== types: mypy'
	@$(BIN)/mypy --no-error-summary $(CODE)
	@echo '== types: pyright'
	@$(BIN)/pyright --pythonpath $(BIN)/python $(CODE)

unit: $(INSTALLED)
	@echo '== tests'
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -q
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report

test-pythons:
	@for version in $(OTHER_PYTHONS); do \
		if ! python$$version -c '' 2>/dev/null; then \
			echo "== python$$version: not found, skipped"; \
			continue; \
		fi; \
		$(MAKE) -s .venv-$$version/.installed || exit 1; \
		echo "== tests on Python $$version"; \
		.venv-$$version/bin/python -m pytest -q -m 'not slow' || exit 1; \
	done

chaos: $(INSTALLED)
	@$(BIN)/python -m tests.chaos

demo: $(INSTALLED_DEMO)
	@.venv-demo/bin/python -m examples.demo

bench: $(INSTALLED)
	@$(BIN)/python -m benchmarks

diagrams: $(INSTALLED)
	@$(BIN)/python -m docs.make_diagrams

servers: $(INSTALLED)
	@$(BIN)/python -m docs.measure_servers

format: $(INSTALLED)
	@$(BIN)/ruff check -q --fix .
	@$(BIN)/ruff format -q .

# Lines with a Python marker are kept by hand; everything else is pip's choice of today.
constraints:
	@rm -rf .venv-constraints
	@$(PYTHON) -m venv .venv-constraints
	@.venv-constraints/bin/python -m pip --disable-pip-version-check install -qq '.[dev]'
	@sed '/^[^#]/,$$d' constraints.txt > constraints.new
	@grep '; python_version' constraints.txt | sed 's/==.*/==/' | sort -u > constraints.kept
	@.venv-constraints/bin/python -m pip freeze \
		| grep -v '^asgi-lifespan-guard' | grep -viFf constraints.kept >> constraints.new
	@grep '; python_version' constraints.txt >> constraints.new
	@mv constraints.new constraints.txt
	@rm -rf .venv-constraints constraints.kept
	@git diff --stat constraints.txt

clean:
	@rm -rf .venv .venv-* .coverage .coverage.* build dist htmlcov
	@rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: python-is-new-enough
python-is-new-enough:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo '$(PYTHON): Python 3.11 or later is needed; name one with PYTHON=' >&2; exit 1; }

$(INSTALLED): $(INPUTS) | python-is-new-enough
	@echo '== installing for Python $(VERSION)'
	@test -e $@ || rm -rf .venv
	@$(PYTHON) -m venv .venv
	@$(BIN)/python $(PIP_INSTALL) -e '.[dev]'
	@touch $@

$(INSTALLED_DEMO): $(INPUTS) | python-is-new-enough
	@echo '== installing what the demo needs'
	@test -e $@ || rm -rf .venv-demo
	@$(PYTHON) -m venv .venv-demo
	@.venv-demo/bin/python $(PIP_INSTALL) -e '.[demo]'
	@touch $@

.venv-3.%/.installed: $(INPUTS)
	@echo '== installing for Python 3.$*'
	@python3.$* -m venv .venv-3.$*
	@.venv-3.$*/bin/python $(PIP_INSTALL) -e '.[tests]'
	@touch $@
