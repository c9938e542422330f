# `make` lists the targets. Requires Python and make: each target sets up a virtual environment.
PYTHON ?= python3
BIN = .venv/bin
DEMO = config/laptop.py --ratios=[90_10,50_50] --seeds=2 --rates=[1.0] --budgets=8 --out=out/demo

.PHONY: help demo lab night table1 test clean

help:
	@echo 'make demo    two cloned languages on a laptop: what does one do for the other? (6 to 12 minutes)'
	@echo 'make lab     the runs of FINDINGS.md that are not finished yet (days of two cores; resumes)'
	@echo 'make night   the question at four sizes of model, on one GPU (half an hour of an H200, by estimate)'
	@echo 'make table1  the rows of Table 1 of the paper at full size, with controls (days of a GPU)'
	@echo 'make test    format, lint and tests (5 minutes)'
	@echo 'make clean   remove the virtual environment'

demo: .venv/ready
	$(BIN)/python prepare.py config/demo_data.py
	$(BIN)/python experiment.py $(DEMO)

lab: .venv/ready
	$(BIN)/python -m lab.lab

night: .venv/ready
	$(BIN)/python -m lab.night

table1: .venv/ready
	$(BIN)/python -m lab.night --table1=True

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
