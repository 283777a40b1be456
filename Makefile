# make demo: install, make phantoms, train on them, segment and score.
# make test: install, and run the fast tests.
# make docs: install, and build the documentation in build/docs.
# make test PYTHON=python3.12 VENV=.venv312: the same with another Python.
PYTHON ?= python3
VENV ?= .venv
ifneq ($(words $(VENV)),1)
$(error VENV=$(VENV) contains a space, which make cannot handle. Choose a name without a space)
endif

demo: $(VENV)/installed
	$(VENV)/bin/python launch.py --config=configs/demo.py

test: $(VENV)/installed
	$(VENV)/bin/python -m pytest

docs: $(VENV)/installed
	$(VENV)/bin/python -m sphinx --fail-on-warning --keep-going --quiet --fresh-env --write-all docs build/docs

install: $(VENV)/installed

# Runs again when the requirements change.
$(VENV)/installed: pyproject.toml $(wildcard requirements*.txt)
	@"$(PYTHON)" -c "import msseg_jax"  # fails if Python is too old or too new
	"$(PYTHON)" -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable ".[dev]"
	touch $@

.PHONY: demo test docs install
