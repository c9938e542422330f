# make demo: watch a language model learn two cloned languages.  make test: the tests.
# Both set up a virtual environment of their own; nothing is needed before but Python and make.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test clean

demo: .venv/ready
	$(BIN)/python demo.py

test: .venv/ready-test
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
