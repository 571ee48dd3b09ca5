# quickstart: train, evaluate and sample on this machine. test: everything. Both install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKDIR ?= runs/quickstart
# Two test processes; a file stays in one, so that its fixtures are made once; tests/conftest.py
# names the files that come first.
WORKERS ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: quickstart test fast extras docs tutorials faults mutants lint format clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

quickstart: $(VENV)/.installed
	$(BIN)/python -m ldd_jax train --config=configs/quickstart.py:method=lddm_m --workdir=$(WORKDIR)
	$(BIN)/python -m ldd_jax sample --workdir=$(WORKDIR) --num_samples=8
	$(BIN)/python -m ldd_jax sample --workdir=$(WORKDIR) --num_samples=4 --temperature=0.7 --output=$(WORKDIR)/fill.jsonl \
		--fill="the [MASK][MASK][MASK][MASK][MASK][MASK][MASK][MASK] of the list"

# libtpu compiles for slices that are not here; kept out of the environment, where it would look for one.
.tpu/.installed: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target .tpu libtpu
	touch $@

test: $(VENV)/.installed-dev .tpu/.installed
	$(BIN)/python -m pytest $(WORKERS)

fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(WORKERS) -m "not slow"

# What needs PyTorch, Lightning, transformers, lm-evaluation-harness or a store of objects, downloads of gigabytes: an environment of its own.
# TORCH="torch==VERSION+cpu" takes a build without CUDA where one is at hand.
TORCH ?= torch>=2.6
.extras/.installed: pyproject.toml
	$(PYTHON) -m venv .extras
	.extras/bin/python -m pip install --quiet --disable-pip-version-check '$(TORCH)'
	.extras/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev,torch,lm-eval,beam,gcs,s3,wandb]' gcp-storage-emulator hydra-core lightning 'moto[server]' transformers
	touch $@

extras: .extras/.installed
	.extras/bin/python -m pytest $(WORKERS) tests/interop tests/faults/s3.py tests/faults/gcs.py tests/training/wandb_offline.py tests/data/beam.py

# The site, in site/index.html, and the tutorials as notebooks, in docs/notebooks; a warning is an error. No page needs a network when it is read.
.docs/.installed: pyproject.toml
	$(PYTHON) -m venv .docs
	.docs/bin/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

docs: .docs/.installed
	.docs/bin/python -m sphinx -W --keep-going -q -E -b html docs site

# Every tutorial's notebook, from a wheel in an environment of its own, in an empty folder.
tutorials: $(VENV)/.installed-dev
	$(BIN)/python launch/tutorials.py --folder=runs/tutorials-$$(date +%Y%m%d-%H%M%S)

# Kills, stops, damaged files, NaN and 100,000 hostile inputs; prints a table of what was lost.
faults: $(VENV)/.installed-dev
	$(BIN)/python -m tests.faults

# A hundred small faults in the computing rooms, and whether the fast tests notice each.
mutants: $(VENV)/.installed-dev
	$(BIN)/python launch/mutate.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .tpu .extras .docs .pytest_cache site build dist *.egg-info
