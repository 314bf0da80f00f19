# What a developer and CI run; `make` alone lists it. Needs git, make and Python 3.11 or newer; everything else is installed
# from package registries by pip and go, into .venv and ~/.cache/voucher-operator.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
ARGS ?=
UV := uv==0.13.8

# What is installed is right as long as its name says so: a hash of the locks, and the Python it was made with.
PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
LOCKS := requirements/dev.txt
STAMP := $(VENV)/.installed-$(PYTHON_VERSION)-$(shell $(PYTHON) -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest()[:16])' $(LOCKS) 2>/dev/null)

export PYTHONPATH := $(CURDIR)/operator
# Where it is set, every run would compile everything again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: python
python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is $(or $(PYTHON_VERSION),not there)." >&2; \
	  echo "Name another one: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }

.PHONY: venv
venv: $(STAMP) ## install the pinned packages into .venv (done by the others when needed)

$(STAMP): | python
	@$(PY) -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(PYTHON_VERSION)")' 2>/dev/null \
	  || { echo "making $(VENV) with Python $(PYTHON_VERSION)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing the packages of $(LOCKS) into $(VENV); a minute the first time"
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCKS)
	@rm -f $(VENV)/.installed-* && touch $@

.PHONY: check
check: venv ## lint, types, layers, locks
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(PY) -m testbed.repository
	$(MAKE) --no-print-directory lock-check

.PHONY: crds
crds: ## copy the CRDs into the chart (copies, because sources that Flux archives drop links)
	cp crds/*.yaml charts/bp-voucher-operator/crds/

.PHONY: test
test: venv ## run all tests on real parts (ARGS="-k cap": some of them)
	$(PY) -m pytest --numprocesses=4 --dist=loadgroup $(ARGS)

.PHONY: stress
stress: venv ## run the mixed load and all interleavings (ARGS="--stress-seconds=600": the load's length)
	$(PY) -m pytest tests/stress --numprocesses=2 $(ARGS)

.PHONY: e2e
e2e: venv ## run Flux, and image, chart and operator in a real kind cluster; needs Docker (ARGS="--kind-image=...": options)
	$(PY) -m pytest tests/gitops tests/e2e --ignore=tests/e2e/test_failover.py $(ARGS)

.PHONY: failover
failover: venv ## fail a real CloudNativePG over in kind, under load (ARGS="--cnpg=FOLDER ...": see CONTRIBUTING.md)
	$(PY) -m pytest tests/e2e/test_failover.py $(ARGS)

.PHONY: demo
demo: venv ## vouchers from YAML to the ledger and back, on this machine (KEEP=1: stay up)
	@KEEP="$(KEEP)" $(PY) -m testbed.demo

.PHONY: bench
bench: venv ## measure ledger and operator, as ratios of one run
	@$(PY) -m benchmarks $(ARGS)

.PHONY: tools
tools: venv ## build the Go tools now instead of when they are needed
	@$(PY) -m testbed.tools

.PHONY: lock lock-check
# The tool that writes the locks checks them: what is locked is kept as long as it satisfies pyproject.toml.
lock-check: | python
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && cp requirements/*.txt "$$folder" \
	  && $(MAKE) --no-print-directory lock LOCK_DIR="$$folder" ARGS= && diff -r requirements "$$folder" \
	  || { echo "requirements/ does not match pyproject.toml: run make lock" >&2; exit 1; }

LOCK_DIR ?= requirements
lock: | python ## pin pyproject.toml's dependencies again, with hashes (ARGS=--upgrade: the newest)
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(PYTHON) -m venv "$$folder" \
	  && "$$folder/bin/pip" install --quiet --disable-pip-version-check $(UV) \
	  && compile="$$folder/bin/uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 $(ARGS)" \
	  && $$compile --output-file "$(LOCK_DIR)/run.txt" pyproject.toml \
	  && $$compile --output-file "$(LOCK_DIR)/dev.txt" --group dev pyproject.toml \
	  && $(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' \
	  | $$compile --output-file "$(LOCK_DIR)/build.txt" -

.PHONY: clean
clean: ## remove .venv and caches from the work tree
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "The built Go tools stay in $${XDG_CACHE_HOME:-~/.cache}/voucher-operator."

.PHONY: image
IMAGE ?= voucher-operator:dev
BASE ?= python:3.13-slim-bookworm
DOCKER ?= docker
image: ## build the image (IMAGE=name:tag, BASE=python@sha256:..., DOCKER=podman, ARGS="--network host")
	$(DOCKER) build -f Containerfile -t $(IMAGE) --build-arg BASE=$(BASE) \
	  --build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) \
	  --build-arg REVISION=$$(git rev-parse HEAD) $(ARGS) .

.PHONY: release
release: venv ## set the version of everything that is released together (VERSION=1.2.3)
	@$(PY) -m testbed.release "$(VERSION)"
