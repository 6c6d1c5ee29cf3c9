# make help lists what there is. Everything runs in .venv, which is made on first use and again when the requirements change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
REQUIREMENTS := setup.py pyproject.toml

# Each test process keeps to one thread in the matrix products: two of them fill two cores.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: help demo test test-slow verify proof compiled lint style types format bench docs clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/demo.stamp ## train a translator on real text, watch it learn, and try it
	@$(BIN)/minirnn demo $(ARGS)

test: $(VENV)/test.stamp ## the fast tests (ARGS="-k lstm" picks some)
	@$(PYTEST) $(ARGS)

test-slow: $(VENV)/test.stamp ## the tests marked slow
	@$(PYTEST) -m slow $(ARGS)

verify: test test-slow lint proof ## everything that can be checked

proof: $(VENV)/test.stamp $(VENV)/compile.stamp ## the GPU kernels, without a GPU: sanitizers, compilation, planted bugs (ARGS=--quick: some)
	@$(ONE_THREAD) $(BIN)/python -m minirnn.kernels.verification $(ARGS)

compiled: $(VENV)/compile.stamp ## registers, spills and memory of every GPU kernel, into kernels/COMPILED.md
	@$(BIN)/python -m minirnn.kernels.cuda.compiled $(ARGS)

lint: style types ## ruff, the format, and mypy --strict (make -k lint: all of them, also after one fails)

style: $(VENV)/dev.stamp
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

# mypy sees the package as it is installed: kernels/ lies inside minirnn/.
types: $(VENV)/dev.stamp
	@rm -rf build/types && mkdir -p build/types/minirnn
	@ln -s "$(CURDIR)"/minirnn/* "$(CURDIR)"/kernels build/types/minirnn
	@cd build/types && ../../$(BIN)/mypy --strict --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p minirnn

format: $(VENV)/dev.stamp ## let ruff put the code in order
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: $(VENV)/bench.stamp ## time the kernels, validated first
	@$(BIN)/minirnn bench lstm $(ARGS)

# From nothing, so that all code in it runs. For a look while writing: .venv/bin/python -m sphinx docs build/docs/html
docs: $(VENV)/docs.stamp ## the documentation site, into build/docs/html; whatever fails or leads nowhere in it fails
	@rm -rf build/docs docs/course docs/drawn
	@$(ONE_THREAD) $(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -d build/docs/doctrees docs build/docs/html $(ARGS)
	@echo "build/docs/html/index.html"

clean: ## remove .venv, what was built, and the caches here (the runs stay)
	rm -rf $(VENV) build dist docs/course docs/drawn *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find minirnn kernels tests examples docs -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/pip.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "minirnn needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/%.stamp: $(VENV)/pip.stamp $(REQUIREMENTS)
	@echo "installing minirnn[$*] and what it needs into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

.SECONDARY:
