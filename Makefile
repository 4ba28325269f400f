# Every target works on a fresh clone: the first one that needs it makes .venv from the locked versions.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
export OMP_NUM_THREADS = 1
export TOKENIZERS_PARALLELISM = false
# Bytecode is kept, whatever the shell says: dozens of processes would compile the same sources each.
export PYTHONDONTWRITEBYTECODE =

TYPED := interp,probes,steering,beartype.beartype
TENSORS := $(wildcard $(foreach what,batch_invariance cache_* edits heads_* hooks oracle_inject* positions probe_* \
	prompt* stats_* steering_* sweep*,tests/test_$(what).py))
SLOW_RATES := build/validity
KILLS ?= 20
INPUTS ?= 400
STUDIES ?= 400

.PHONY: install demo test test-fast test-rest test-notebooks test-types test-long test-slow real real-quick check docs format notebooks bench science gpu clean

install: .venv/.installed

# torch first, from its own line in the lock: no other package may choose its version or its CUDA build.
.venv/.demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[report]'
	touch $@

.venv/.installed: .venv/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bridges,notebooks,report,real,dev]'
	touch $@

# Installs only what a study with its report needs.
demo: .venv/.demo
	$(BIN)/python -m study.demo --out runs/demo

test: install
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m 'not notebooks and not long and not gpu and not real'

test-fast: install
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m 'not slow and not long and not real'

# What `make test` leaves out, at the counts of CI; `make test-slow` also checks types.
test-rest: test-long test-notebooks

# Kills, attacks and simulations of a fixed size; without the slowest (rebuilds, a kill in every step), as in CI.
LONG ?= long and not slowest
test-long: install
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m '$(LONG)'

test-notebooks: install
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m notebooks tests/test_notebooks.py

# On pretrained weights: SmolLM2 is fetched unless DIPTYCH_REAL names a folder of checkpoints.
REAL := $(or $(DIPTYCH_REAL),build/real)
real: install
	test -n "$(DIPTYCH_REAL)" || $(BIN)/python -m tests.real.fetch $(REAL)
	DIPTYCH_REAL=$(abspath $(REAL)) $(BIN)/python -m pytest -n $(JOBS) --dist loadscope -m real tests/real

# The quickest part of it, on SmolLM2 alone; skipped with a sentence where SmolLM2 cannot be fetched.
real-quick: install
	test -n "$(DIPTYCH_REAL)" || $(BIN)/python -m tests.real.fetch $(REAL) || echo "SmolLM2 cannot be fetched here: its tests are skipped."
	DIPTYCH_REAL=$(abspath $(REAL)) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m 'real and quick' -k 'not qwen and not gemma' tests/real

# Shapes and types of every call are checked while these run: two to four times slower, so only where tensors are.
test-types: install
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m 'not slow and not long' --jaxtyping-packages=$(TYPED) $(TENSORS)

# The attacks of tests/faults and the simulations of tests/validity at full size; writes docs/concepts/validity.md.
test-slow: LONG = long
test-slow: test-long test-types
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal tests/faults tests/test_cli_eval_resume.py tests/test_extract.py \
		--kills $(KILLS) --inputs $(INPUTS) --bbq-rows 11956
	rm -rf $(SLOW_RATES)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal tests/validity --studies $(STUDIES) --validity-out $(SLOW_RATES)
	$(BIN)/python -m tests.validity.page $(SLOW_RATES) docs/concepts/validity.md

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(MAKE) docs

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

notebooks: install
	$(BIN)/python notebooks/execute.py

bench: install
	$(BIN)/python -m benchmarks.run

# Known results of the literature on pretrained weights; writes benchmarks/SCIENCE.md. What is up to date is not run again.
science: install
	test -n "$(DIPTYCH_REAL)" || $(BIN)/python -m tests.real.fetch $(REAL)
	DIPTYCH_REAL=$(REAL) $(BIN)/python -m benchmarks.science $(if $(DIPTYCH_REAL),,--model smollm2)

# On any machine with a CUDA device: its tests, 7B shapes and, with DIPTYCH_REAL, real weights in bfloat16.
# DEVICE=cpu rehearses every line on small shapes without a GPU and records nothing.
DEVICE ?= cuda
gpu:
	DIPTYCH_GPU_DEVICE=$(DEVICE) $(or $(wildcard $(BIN)/python),$(PYTHON)) -m pytest -m gpu -p no:cacheprovider tests/test_gpu.py tests/real
	$(or $(wildcard $(BIN)/python),$(PYTHON)) -m benchmarks.run --gpu --device $(DEVICE)

clean:
	rm -rf .venv build dist *.egg-info
