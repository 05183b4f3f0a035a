# `make help` lists the targets; `make test` and `make demo` are all one needs.

PYTHON ?= python3
# Any value: `make test` goes on to the other Pythons.
ALL_PYTHONS ?=

BIN = .venv/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
# The markers carry Python's version: another PYTHON makes another environment.
INSTALLED = .venv/.installed-$(VERSION)
INSTALLED_DEMO = .venv-demo/.installed-$(VERSION)
PYODIDE = 314.0.7
INPUTS = pyproject.toml constraints.txt
# Those that the classifiers claim, but for the one that `make test` takes.
CLAIMED = $(shell sed -n 's/.*Python :: \(3\.[0-9]*\)".*/\1/p' pyproject.toml)
OTHER_PYTHONS = $(filter-out $(VERSION),$(CLAIMED))
OLDEST_PYTHON = $(firstword $(CLAIMED))
BESIDE_TRIO = tests/integration/test_beside_trio.py
PIP_INSTALL = -m pip --disable-pip-version-check install -qq -c constraints.txt
PIP_WHEEL = -m pip --disable-pip-version-check wheel -qq -c constraints.txt
CODE = $(wildcard asgi_lifespan_guard tests examples benchmarks)

# The pyright package asks its registry for news otherwise.
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1

# Prints where a Python of that version is: on PATH, pyenv's (whose commands on PATH
# refuse versions that its settings do not name), or uv's; fails where there is none.
define FIND_PYTHON
find_python() { \
	for found in "python$$1" "$$(pyenv prefix "$$(pyenv latest "$$1")")/bin/python" \
		"$$(uv python find --system --no-python-downloads "$$1")"; do \
		"$$found" -c "import sys; assert '%d.%d' % sys.version_info[:2] == '$$1'; \
			print(sys.executable)" && return; \
	done; \
	return 1; \
} 2>/dev/null
endef

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help test lint types unit test-pythons test-oldest test-314 foreign fuzz chaos demo bench outage diagrams servers constraints format clean

help:
	@echo 'make test          everything: lint, types, tests with 100 % coverage'
	@echo '                   (ALL_PYTHONS=1: then test-pythons and test-oldest, too;'
	@echo '                   they are left out otherwise, because time in CI is limited)'
	@echo 'make demo          see the guard at work, in an environment of its own'
	@echo 'make lint          ruff: rules and format'
	@echo 'make types         mypy --strict and pyright'
	@echo 'make unit          pytest with coverage (a part: $(BIN)/python -m pytest tests/asgi)'
	@echo 'make test-pythons  all tests on Python $(OTHER_PYTHONS), where present'
	@echo 'make test-oldest   all tests on Python $(OLDEST_PYTHON), with the oldest versions of'
	@echo '                   what the package requires; and beside an older trio'
	@echo 'make test-314      import everything on Python 3.14, where Node.js is present'
	@echo 'make chaos         100,000 scenarios of chaos with a new seed; again with'
	@echo '                   CHAOS_SEED=<what it printed>, fewer with CHAOS_EXAMPLES=,'
	@echo '                   past the first failure with CHAOS_GO_ON=1'
	@echo 'make foreign       the tests of Starlette, uvicorn, Falcon and asgiref, bare and with'
	@echo '                   every app in a guard (downloads their source archives)'
	@echo 'make fuzz          a million calls with whatever a scope, an app or a server may'
	@echo '                   come up with; fewer with FUZZ_EXAMPLES=, again with FUZZ_SEED='
	@echo 'make bench         what the guard costs'
	@echo 'make outage        what requests see while PostgreSQL goes away again and again'
	@echo 'make diagrams      draw the diagrams in docs/phases.md from the tables'
	@echo 'make servers       measure what servers do on SIGTERM, for docs/servers.md'
	@echo 'make format        ruff: mend what it can'
	@echo 'make constraints   newest versions into constraints.txt'
	@echo 'make clean         remove everything that was made'
	@echo
	@echo 'PYTHON=python3.12 make test   takes another Python than python3 (3.11 or later)'

test: lint types unit $(if $(ALL_PYTHONS),test-pythons test-oldest)

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
	@$(FIND_PYTHON); failed=; \
	for version in $(OTHER_PYTHONS); do \
		if ! find_python $$version >/dev/null; then \
			echo "== Python $$version: NOT FOUND, its tests are SKIPPED"; \
			continue; \
		fi; \
		$(MAKE) -s .venv-$$version/.installed || exit 1; \
		echo "== tests on Python $$version"; \
		.venv-$$version/bin/python -m pytest -q || failed="$$failed $$version"; \
	done; \
	test -z "$$failed" || { echo "== failed on Python$$failed" >&2; exit 1; }

test-oldest:
	@$(FIND_PYTHON); \
	if ! find_python $(OLDEST_PYTHON) >/dev/null; then \
		echo "== Python $(OLDEST_PYTHON): NOT FOUND, the oldest versions are SKIPPED"; \
		exit 0; \
	fi; \
	$(MAKE) -s .venv-oldest/.installed .venv-oldest-trio/.installed || exit 1; \
	echo '== tests with the oldest versions'; \
	.venv-oldest/bin/python -m pytest -q || exit 1; \
	echo '== tests beside an older trio'; \
	.venv-oldest-trio/bin/python -m pytest -q --noconftest $(BESIDE_TRIO)

# Until machines have a Python 3.14: the one that npm has, which imports, and runs no
# event loop as we know it.
test-314: $(INSTALLED)
	@if ! npm --version >/dev/null 2>&1; then \
		echo '== Node.js: NOT FOUND, Python 3.14 is SKIPPED'; \
		exit 0; \
	fi; \
	rm -rf .venv-pyodide/wheels && mkdir -p .venv-pyodide || exit 1; \
	npm install --silent --prefix .venv-pyodide pyodide@$(PYODIDE) || exit 1; \
	$(BIN)/python $(PIP_WHEEL) -w .venv-pyodide/wheels . || exit 1; \
	echo '== imports on Python 3.14'; \
	node tests/import_on_pyodide.mjs .venv-pyodide .venv-pyodide/wheels

chaos: $(INSTALLED)
	@$(BIN)/python -m tests.chaos

fuzz: $(INSTALLED)
	@$(BIN)/python -m tests.fuzz

foreign: .venv-foreign/.installed
	@.venv-foreign/bin/python tests/foreign

demo: $(INSTALLED_DEMO)
	@.venv-demo/bin/python -m examples.demo

bench: $(INSTALLED)
	@$(BIN)/python -m benchmarks

outage: $(INSTALLED)
	@$(BIN)/python -m benchmarks.outage

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
	@$(FIND_PYTHON); "$$(find_python 3.$*)" -m venv --clear .venv-3.$*
	@.venv-3.$*/bin/python $(PIP_INSTALL) -e '.[tests]'
	@touch $@

.venv-foreign/.installed: pyproject.toml $(wildcard tests/foreign/*.txt) \
		| python-is-new-enough
	@echo "== installing what other people's tests need"
	@$(PYTHON) -m venv --clear .venv-foreign
	@.venv-foreign/bin/python -m pip --disable-pip-version-check install -qq \
		-c tests/foreign/constraints.txt -r tests/foreign/requirements.txt -e .
	@touch $@

# What constraints-oldest.txt names goes before what constraints.txt says of it.
.venv-oldest/.installed: $(INPUTS) constraints-oldest.txt
	@echo '== installing the oldest versions'
	@$(FIND_PYTHON); "$$(find_python $(OLDEST_PYTHON))" -m venv --clear .venv-oldest
	@sed -n 's/^\([^#=]*==\).*/^\1/p' constraints-oldest.txt > .venv-oldest/named
	@grep -vif .venv-oldest/named constraints.txt \
		| cat - constraints-oldest.txt > .venv-oldest/constraints.txt
	@.venv-oldest/bin/python -m pip --disable-pip-version-check install -qq \
		-c .venv-oldest/constraints.txt -e '.[tests]'
	@touch $@

# Older than what the extra `trio` allows: for processes that run asyncio.
.venv-oldest-trio/.installed: $(INPUTS)
	@echo '== installing an older trio'
	@$(FIND_PYTHON); "$$(find_python $(OLDEST_PYTHON))" -m venv --clear .venv-oldest-trio
	@.venv-oldest-trio/bin/python -m pip --disable-pip-version-check install -qq \
		-e . 'trio<0.23' pytest pytest-timeout
	@touch $@
