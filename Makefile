# `make help` lists what there is.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
TESTED = $(VENV)/.installed-test

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check format bench clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: $(INSTALLED)  ## install into .venv, train LeNet-5 on the bundled digits, test it
	$(BIN)/lightning-lab fit --config digits/lenet5 --then test
	@echo
	@$(BIN)/lightning-lab runs
	@echo
	@echo "Look at the curves:  $(BIN)/tensorboard --logdir logs    (then open the address it prints)"
	@echo "Look at the mistakes: the pictures named above"

test: $(TESTED)  ## install what the tests need, run the default suite
	$(BIN)/pytest -n auto --dist worksteal -m "not slow and not gpu and not network"

test-slow: $(TESTED)  ## the slow tests too
	$(BIN)/pytest -m "not gpu and not network"

check: $(TESTED)  ## format and lint (ruff), types (mypy)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(TESTED)  ## let ruff rewrite the code in place
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED)  ## the short benchmarks against plain PyTorch and Lightning, ten minutes on two cores
	$(BIN)/python benchmarks/input_pipeline.py
	$(BIN)/python benchmarks/step_overhead.py --short
	$(BIN)/python benchmarks/throughput.py --short
	@if [ -n "$$LIGHTNING_LAB_DATA" ]; then \
	  $(BIN)/python benchmarks/time_to_accuracy.py --root "$$LIGHTNING_LAB_DATA" --short; \
	else echo "time_to_accuracy needs CIFAR-10: set LIGHTNING_LAB_DATA to its folder"; fi

clean:  ## remove .venv and caches; logs stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(TESTED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	@touch $@
