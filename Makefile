# make demo: install, make phantoms, train on them, segment and score.   make test: the tests.
# For another Python: make test PYTHON=python3.12 VENV=.venv312
PYTHON ?= python3
VENV ?= .venv

demo: $(VENV)/installed
	$(VENV)/bin/python launch.py --config=configs/demo.py

test: $(VENV)/installed
	$(VENV)/bin/python -m pytest

install: $(VENV)/installed

# Made again when the lists of packages change.
$(VENV)/installed: pyproject.toml $(wildcard requirements*.txt)
	@$(PYTHON) -c "import msseg_jax"  # which refuses a Python that is too old or too new
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable ".[dev]"
	touch $@

.PHONY: demo test install
