# `make demo` and `make test` work on a fresh machine: they build the environment in .venv first.
# Without make:  python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[dev]'
#                .venv/bin/soundsight demo   or   .venv/bin/python -m pytest

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m uv pip install --quiet --python $(BIN)/python -c constraints.txt

.PHONY: demo test test-lowest test-newest check docs bench torture wheel docker-check clean

demo: .venv/.run
	$(BIN)/soundsight demo

# One process per core, each with one thread: threads that spin against each other are many times slower.
# COVERAGE=1 measures lines and branches.
test: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile \
	    $(if $(COVERAGE),--cov --cov-report=term)

# The suite with the lowest versions that pyproject.toml allows, and with the newest that there are.
test-lowest: .venv/bin/uv
	$(call SUITE,3.11,lowest-direct)

test-newest: .venv/bin/uv
	$(call SUITE,3.13,highest)

define SUITE
$(BIN)/python -m uv venv --quiet --clear --python $(1) $@.venv
$(BIN)/python -m uv pip install --quiet --python $@.venv --resolution $(2) -e '.[dev]'
OMP_NUM_THREADS=1 $@.venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile -vv --tb=short
endef

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	for system in linux darwin win32; do $(BIN)/mypy --platform $$system || exit 1; done
	$(BIN)/python -m pytest tests/test_packages.py
	$(MAKE) docs

# The documentation site, strictly (a broken link is an error), without a network: build/site/index.html.
docs: .venv/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

bench: .venv/.dev
	$(BIN)/python -m benchmarks.render
	$(BIN)/python -m benchmarks.prepare
	$(BIN)/python -m benchmarks.answering
	$(BIN)/python -m benchmarks.train_speed

# Two to three hours on two cores, or one with `python -m torture --only PART ...` side by side; writes torture/results.json. SHARE=0.1 runs a tenth of the cases.
torture: .venv/.torture
	$(BIN)/python -m torture --share $(or $(SHARE),1)

docker-check:
	docker/check

wheel: .venv/.dev
	$(BIN)/python -m build --wheel

.venv/bin/uv:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

.venv/.run: .venv/bin/uv pyproject.toml constraints.txt
	$(INSTALL) -e .
	touch $@

.venv/.dev: .venv/bin/uv pyproject.toml constraints.txt
	$(INSTALL) -e '.[dev]'
	touch $@ .venv/.run

.venv/.torture: .venv/.dev
	$(INSTALL) -e '.[torture]'
	touch $@

clean:
	rm -rf test-lowest.venv test-newest.venv build dist .pytest_cache .mypy_cache .ruff_cache
