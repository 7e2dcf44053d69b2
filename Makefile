# make run: train the digits network.  make test: the tests.  make check: lint, types, import order.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: run test check format peers test-peers bench clean

run: .venv/installed
	$(BIN)/stepgrad train digits

test: .venv/dev
	$(BIN)/python -m pytest

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# PyTorch, JAX, scikit-learn, tinygrad: only for comparing with them.
peers: .venv/peers
test-peers: .venv/peers
	$(BIN)/python -m pytest -m peers
bench: .venv/peers
	$(BIN)/stepgrad bench --peers all --seconds 4 --json benchmarks/results.json --markdown benchmarks/results.md
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.mistakes
	$(BIN)/python -m benchmarks.health

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist

# A virtual environment, also where Python comes without the venv module (as on Debian).
.venv/bin/python:
	$(PYTHON) -m venv .venv || { rm -rf .venv; $(PYTHON) -m pip install --quiet --user --break-system-packages virtualenv && $(PYTHON) -m virtualenv --quiet .venv; }
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/dev: .venv/installed
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

.venv/peers: .venv/dev
	$(BIN)/python -m pip install --quiet --group peers
	@touch $@
