PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS := $(VENV)/.installed-docs

.PHONY: run test test-slow test-lowest test-core types docs dist clean

run: $(VENV)/bin/apq-moo
	$(BIN)/apq-moo run --algo apq-ga --objectives acc,latency

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

test-slow: $(STAMP) $(DOCS)
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest -q -m slow

# The tests, or those of FILES, with the oldest releases that pyproject.toml allows of all it names.
test-lowest: $(STAMP)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/lowest
	$(BIN)/uv pip install --quiet --python $(VENV)/lowest --resolution lowest-direct -e .[test]
	$(BIN)/python tests/lowest.py $(VENV)/lowest
	OMP_NUM_THREADS=1 $(VENV)/lowest/bin/python -m pytest -q -n 2 $(FILES)

# Of the tests, or of FILES, those of what works without any extra, where none is installed.
test-core: $(VENV)/bin/python
	$(PYTHON) -m venv --clear $(VENV)/core
	$(VENV)/core/bin/pip install --quiet -e . hypothesis pytest pytest-xdist
	OMP_NUM_THREADS=1 $(VENV)/core/bin/python -m pytest -q -n 2 -rs $(FILES)

# Type checkers cannot follow the mapping of top-level folders into the package, so a built copy of
# it is checked.
types: $(STAMP)
	rm -rf build
	$(BIN)/pip install --quiet --no-deps --no-compile --target build/typed .
	cd build/typed && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p apq_moo

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/bin/apq-moo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet -e .
	touch $@

$(STAMP): pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet -e .[dev]
	touch $@

$(DOCS): $(STAMP)
	$(BIN)/pip install --quiet -e .[docs]
	touch $@

# The site, in build/site. It runs no tutorial: outputs are those that the tests hold pages to.
docs: $(DOCS)
	$(BIN)/sphinx-build -q -W --keep-going -d build/doctrees docs build/site
	@echo build/site/index.html

# What is released: built, checked, and the wheel run from an empty environment in another folder.
dist: $(STAMP)
	rm -rf build dist
	$(BIN)/python -m build --quiet
	$(BIN)/twine check --strict dist/*
	$(BIN)/python tests/distribution.py dist

clean:
	rm -rf $(VENV) build dist *.egg-info
