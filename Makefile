# `make` alone says what there is. Python and make are all that is needed before: the targets set up
# a virtual environment of their own.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: help demo lab test clean

help:
	@echo 'make demo    two cloned languages on a laptop: what does one do for the other? (15 minutes)'
	@echo 'make lab     the runs of FINDINGS.md that are not finished yet (hours; it may be stopped)'
	@echo 'make test    format, lint and tests (10 minutes)'
	@echo 'make clean   remove the virtual environment'

demo: .venv/ready
	$(BIN)/python demo.py

lab: .venv/ready
	$(BIN)/python lab.py

test: .venv/ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal tests

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/ready-test: .venv/ready requirements-test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	touch $@

clean:
	rm -rf .venv
