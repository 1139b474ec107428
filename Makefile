# Each target sets up what it needs, in environments of its own. Python 3.11 or later is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles a module when it is first imported; compiling all that is installed takes half of the time.
PIP := pip install --quiet --disable-pip-version-check --no-compile
PYTEST := $(BIN)/python -m pytest
# Run with the folder of another environment: lets it import what is installed in $(VENV).
SEE_PACKAGES := $(BIN)/python -c 'import sys, sysconfig as s; where = s.get_path("purelib", vars={"base": sys.argv[1]}); \
	open(f"{where}/packages.pth", "w").write(s.get_path("purelib"))'
# Two processes of one thread each: two of two would wait for each other most of the time. What is computed with
# several threads is tested with several, too.
PARALLEL := OMP_NUM_THREADS=1 $(PYTEST) --numprocesses 2
THREADED := tests/ops tests/test_golden.py tests/test_differential.py tests/refiners/diffusion/test_whole_path.py

.PHONY: setup demo test test-all onnxruntime-web lint typecheck check-project unit test-oldest test-extra wheel check-tag image docs clean

# --- what a user runs --------------------------------------------------------------------------------------------

demo: $(VENV)/user
	$(BIN)/cliper segment --example --refiner self --out demo

$(VENV)/user: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(PIP) --constraint constraints.txt --editable .
	touch $@

# --- what a developer runs ---------------------------------------------------------------------------------------

setup: $(VENV)/dev

$(VENV)/dev: $(VENV)/user
	$(BIN)/$(PIP) --constraint constraints.txt --editable ".[dev]"
	touch $@

test: lint typecheck unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

typecheck: setup
	$(BIN)/mypy

unit: setup
	$(PARALLEL) -m "not full"

# The generated pages, and the site in the folder site.
docs: .venv-docs
	.venv-docs/bin/python docs/generate_command_line.py
	.venv-docs/bin/mkdocs build --strict

.venv-docs: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/$(PIP) --constraint constraints.txt --editable ".[docs]"
	touch $@

# --- what continuous integration runs too ------------------------------------------------------------------------

test-all: lint typecheck check-project .venv-moto .venv-label-studio .venv-ultralytics .venv-integrations
test-all: .venv-geo .venv-export onnxruntime-web
	$(PARALLEL)
	OMP_NUM_THREADS=1 PYTHONPATH=src .venv-geo/bin/python -m pytest tests/raster tests/cli/test_segment_tiles.py
	OMP_NUM_THREADS=1 PYTHONPATH=src .venv-export/bin/python -m pytest tests/export tests/test_extras.py -k export
	$(PYTEST) $(THREADED)

# An S3 protocol server for tests/batch/test_s3.py; moto and s3fs need different versions of botocore.
.venv-moto:
	$(PYTHON) -m venv .venv-moto
	.venv-moto/bin/$(PIP) "moto[server]==5.2.5"

# For tests/server/test_label_studio_package.py; it needs other versions of many packages.
.venv-label-studio:
	$(PYTHON) -m venv .venv-label-studio
	.venv-label-studio/bin/$(PIP) "label-studio==1.23.2"

# For tests/formats/test_ultralytics_package.py; it sees the packages of the developer's environment, such as torch.
.venv-ultralytics: | $(VENV)/dev
	$(PYTHON) -m venv .venv-ultralytics
	$(SEE_PACKAGES) .venv-ultralytics
	.venv-ultralytics/bin/$(PIP) --constraint constraints.txt "ultralytics==8.4.190"

# For tests/integrations. fiftyone-db cannot fetch its database where there is no network, and is installed without.
.venv-integrations: | $(VENV)/dev
	$(PYTHON) -m venv .venv-integrations
	$(SEE_PACKAGES) .venv-integrations
	.venv-integrations/bin/$(PIP) "cvat-cli==2.80.0" "datasets==5.2.0" "fiftyone==1.22.1" "gradio==6.31.0"

# For tests/raster/test_raster.py: the extra geo takes 210 MB.
.venv-geo: | $(VENV)/dev
	$(PYTHON) -m venv .venv-geo
	$(SEE_PACKAGES) .venv-geo
	.venv-geo/bin/$(PIP) --constraint constraints.txt rasterio pyogrio

# For tests/export: the extra export takes 280 MB. It sees the packages of the developer's environment.
.venv-export: pyproject.toml constraints.txt | $(VENV)/dev
	$(PYTHON) -m venv .venv-export
	$(SEE_PACKAGES) .venv-export
	.venv-export/bin/$(PIP) --constraint constraints.txt onnx onnxscript onnxruntime openvino
	touch $@

# What the page in examples/browser runs on, from the npm registry; its test is skipped where that cannot be reached.
onnxruntime-web:
	test -d examples/browser/onnxruntime-web || sh examples/browser/fetch.sh || echo "onnxruntime-web could not be fetched"

# The files that a code host and a citation manager read.
check-project: setup
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[bf]*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/pre-commit validate-config

# With the oldest dependencies that pyproject.toml allows; PYTHON should be the oldest Python.
test-oldest:
	$(PYTHON) -m venv --clear .venv-oldest
	.venv-oldest/bin/$(PIP) --constraint constraints-oldest.txt --editable ".[test]"
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest --numprocesses 2 -m "not full"

# One extra alone, in an environment of its own: make test-extra EXTRA=video
test-extra:
	$(PYTHON) -m venv --clear .venv-extra
	.venv-extra/bin/$(PIP) --constraint constraints.txt ".[$(EXTRA)]" pytest pytest-socket
	.venv-extra/bin/python -m pytest tests/test_extras.py -k "[$(EXTRA)]"

# The wheel, built and installed clean.
wheel:
	rm -rf dist
	$(PYTHON) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	$(PYTHON) -m venv --clear .venv-wheel
	.venv-wheel/bin/$(PIP) --constraint constraints.txt dist/*.whl
	cd dist && ../.venv-wheel/bin/cliper doctor

# A tag names the version: make check-tag TAG=v0.1.0
check-tag:
	test "$(TAG)" = "v$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' src/cliper/__init__.py)"

image:
	docker build --tag cliper .

clean:
	rm -rf $(VENV) .venv-* demo build dist site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
