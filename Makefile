# make demo   tune a real model on this machine, from nothing
# make test   the whole test suite, with linting and types, from nothing
# make bench  the figures that the project claims, measured here (takes long; nothing else running)
# make native llama.cpp's own tools, of the revision inside llama-cpp-python (part of make test)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# GCC 12 drops llama.cpp's AMX tile shapes, and the first long prompt ends in SIGILL: built without.
export CFLAGS += -U__AMX_INT8__
export CXXFLAGS += -U__AMX_INT8__
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell getconf _NPROCESSORS_ONLN)

.PHONY: demo test lint bench native clean

demo: $(VENV)/demo.stamp
	$(BIN)/autotune demo

test: lint native
	$(BIN)/python -m pytest

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/test.stamp $(VENV)/bench.stamp native
	$(BIN)/python -m tests.benchmarks

native: .native/bin/llama-bench

clean:
	rm -rf $(VENV) .native

# The extras only add packages: whichever comes first, the other re-uses its environment.
# Nothing from pip's cache: a wheel compiled there without our flags would be taken for ours.
$(VENV)/%.stamp: pyproject.toml | $(VENV)
	$(BIN)/python -m pip install --quiet --no-cache-dir --editable '.[$*]'
	touch $@

$(VENV):
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=24'

.native/bin/llama-bench: | $(VENV)/test.stamp
	$(BIN)/python -m tests.benchmarks.build_native .native
