# make test and make demo set everything up by themselves, in .venv; they need a Python of at least 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup test lint typecheck unit demo docs clean

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

test: lint typecheck unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: setup
	$(BIN)/mypy

# Two processes of one thread each: two of two would wait for each other most of the time. What is computed with
# several threads is tested with several, too.
unit: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2
	$(BIN)/python -m pytest tests/ops tests/test_golden.py tests/test_differential.py tests/refiners/test_whole_path.py

demo: setup
	$(BIN)/cliper segment --example --refiner self --out demo

docs: setup
	$(BIN)/python docs/generate_command_line.py

clean:
	rm -rf $(VENV) demo build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
