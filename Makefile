# Everything a newcomer needs: `make demo` runs a whole federation, `make test` the tests, `make check` the linters.
# Each target first makes the virtual environment it needs in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BASE := build/verifier-venv
EXTRAS := broker,client,sandbox,postgres,rfc3161,opcua,aas,prove,dev
# torch first: whatever else pulls it in would fetch a CUDA build of several gigabytes
TORCH := torch==2.13.0
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: venv demo test slow check clean verifier zipapp screens

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "iriai needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install $(TORCH)
	$(PIP) install -c constraints.txt -e ".[$(EXTRAS)]"
	@$(BIN)/python -c 'import torch; print("torch", torch.__version__, "is a CUDA build: several gigabytes, and of no use here; pip install $(TORCH) from a CPU index" if torch.version.cuda else "is the CPU build")'
	@touch $(STAMP)

# the auditor's environment: the base install only, nothing of the broker or the node
verifier: $(BASE)/.installed

$(BASE)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BASE)
	$(BASE)/bin/python -m pip --disable-pip-version-check --quiet install -c constraints.txt -e .
	@touch $@

# the verifier as one file, for an environment with cryptography and rfc8785; the same sources give the same bytes
zipapp: verifier
	$(BASE)/bin/python -m policies.verify.onefile build/iriai-verify.pyz

demo: $(STAMP) verifier
	$(BIN)/iriai-sandbox demo --verifier $(BASE)/bin/iriai-verify $(DEMO_ARGS)

# two workers for everything that runs in one process, then for the tests that start processes;
# a file stays with its worker
test: $(STAMP) verifier
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not e2e and not slow" --randomly-seed=20261129 $(TEST_ARGS)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m e2e --randomly-seed=20261129 $(TEST_ARGS)

# the tests that repeat something many times: more seeds, more kills, larger tables; six minutes of a processor
slow: $(STAMP) verifier
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow and not e2e" $(TEST_ARGS)

# a picture of every screen of the console, English and Japanese, light and dark, as the browser test sees it
screens: $(STAMP)
	IRIAI_SCREENS=build/screens $(BIN)/python -m pytest -m e2e tests/e2e/test_console_browser.py

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
