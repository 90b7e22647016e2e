# The front door. `make demo` and `make test` work on a fresh Debian or Ubuntu with Python 3.11 to 3.14 and no GPU.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install install-scale demo ui test test-slow test-oldest lint lock clean bench bench-gpu

BIN := .venv/bin
export DVC_NO_ANALYTICS := 1
export DAGSTER_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export UV_PYTHON_PREFERENCE := only-system
# A stage finds this environment's commands even when it is not activated.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# uv from the path, or one of our own.
UV = $$(command -v uv || echo .flame/uv/bin/uv)

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: .venv/installed  ## set up .venv with the locked versions

.venv/installed: requirements.lock pyproject.toml
	@command -v uv >/dev/null || test -x .flame/uv/bin/uv || { \
	  python3 -m venv .flame/uv || { echo "python3 -m venv failed; on Debian: apt-get install python3-venv" >&2; exit 1; }; \
	  .flame/uv/bin/pip install --quiet --disable-pip-version-check uv; }
	$(UV) venv --quiet --allow-existing --python '>=3.11,<3.15' .venv
	$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@test -e .git || $(BIN)/dvc config --local core.no_scm true
	@touch $@

demo: install  ## materialize the whole pipeline on the embedded default, and say where to look
	@start=$$SECONDS; $(BIN)/python -m orchestration.materialize; \
	echo; echo "Done in $$((SECONDS - start)) s. Look at:"; \
	echo "  data/reports/flame/report.html    the report: open it in a browser"; \
	echo "  data/reports/flame/metrics.json   its numbers"; \
	echo "  flame query 'a small bird'        ask the model (after: . .venv/bin/activate)"

ui: install  ## open Dagster and MLflow on this machine; Ctrl-C ends both
	@$(BIN)/flame ui

# One process more than cores, as tests wait for others; at most four (each takes 2 GB), with one thread each. The tests of
# a file share a process.
TEST_PROCESSES ?= $(shell cores=$$(nproc); echo $$((cores < 4 ? cores + 1 : 4)))
QUICK_TESTS = -m pytest -q -m "not slow" --numprocesses $(TEST_PROCESSES) --dist loadfile
test: install  ## run the tests, one run of the whole graph on real pictures among them
	OMP_NUM_THREADS=1 $(BIN)/python $(QUICK_TESTS)

test-slow: install  ## run the tests that take minutes: interruptions, Dagster, browser, MLflow outages, oracles
	$(BIN)/python -m pytest -q -m slow

test-oldest: install  ## run the tests with the oldest versions of packages that pyproject.toml allows
	$(UV) venv --quiet --allow-existing --python '>=3.11,<3.13' .flame/oldest
	$(UV) pip install --quiet --python .flame/oldest/bin/python --resolution lowest-direct --group dev \
	  --editable '.[pipeline,onnx,language,lora]'
	PATH="$(CURDIR)/.flame/oldest/bin:$$PATH" OMP_NUM_THREADS=1 .flame/oldest/bin/python $(QUICK_TESTS)

lint: install  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: install  ## measure the engines on this CPU (after `make demo`), some minutes; leave the machine alone meanwhile
	for case in store loader training_step ddp_scaling text_memory text_engine tracking_cost; do $(BIN)/python -m benchmarks.$$case; done

bench-gpu: install  ## measure the engines on this GPU (after `make demo`), five minutes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .flame/bench \
	  open_clip_torch ftfy wcwidth sentence-transformers || echo "the packages to compare with cannot be installed"
	$(BIN)/python -m benchmarks.on_gpu

install-scale: install  ## add Ray and S3 to .venv (docs/scale.md)
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --requirement requirements-scale.lock

LOCKED := --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "make lock" --quiet
lock:  ## resolve requirements.lock and requirements-scale.lock anew
	$(UV) pip compile pyproject.toml $(addprefix --extra ,pipeline onnx language lora postgres) --group dev $(LOCKED) \
	  --output-file requirements.lock
	python3 -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
	  print(*extras["scale"], *extras["s3"], sep="\n")' | \
	  $(UV) pip compile - --constraint requirements.lock $(LOCKED) --output-file requirements-scale.lock

clean:  ## remove outs, caches and workspaces; .venv and MLflow's records stay
	-test -d .flame && find .flame -mindepth 1 -maxdepth 1 ! -name mlflow ! -name tracking -exec rm -rf {} +
	rm -rf .dvc/cache .dvc/tmp dvc.lock $(addprefix data/,raw llm llm-adapter shards captions embeddings domains models \
	  reports baselines comparison prompts captioner concepts concept-fit codes selections semdedup scores heads probe \
	  $(addprefix sidecars/,clusters lexical concept-weights similarity features noise score-*))
