# The one door. Every target sets up what it needs by itself.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PY := .venv/bin/python
TEST := $(PY) -m pytest

# Whoever keeps Pythons with pyenv has them at hand but not active; uv fetches them for everybody else.
ifneq ($(shell command -v pyenv),)
  export PYENV_VERSION := $(shell pyenv versions --bare 2>/dev/null | grep -E '^3\.(11|12|13)\.[0-9]+$$' | sort -rV | paste -sd:)
endif
UV := $(or $(shell uv --version >/dev/null 2>&1 && command -v uv),.venv-uv/bin/uv)
export UV_LINK_MODE ?= copy

.PHONY: help demo test check build docs lock clean

help:  ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: .venv/ready .venv-airflow/ready .venv-glue/ready  ## One night and one morning of a real Airflow on this machine (ARGS=--keep leaves it up).
	PYTHONPATH=src $(PY) -m local.demo $(ARGS)

check: .venv/ready  ## The fast part: lint, types, arrows, template, state machines, domain, functions. Under 2 minutes.
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	PYTHONPATH=src:. .venv/bin/lint-imports
	.venv/bin/cfn-lint template.yaml
	$(TEST) -n 2 -m "unit or functions or template"

test: check .venv-airflow/ready .venv-glue/ready  ## Everything, with a real Airflow and a real PostgreSQL. Under 20 minutes.
	$(TEST) -n 2 --dist loadfile -m "stories or local or engine"
	$(TEST) -m cycle

build: .venv/ready .venv-sam/ready  ## Build the stack for sam deploy.
	PATH="$(CURDIR)/.venv/bin:$$PATH" .venv-sam/bin/sam build

docs: .venv/ready  ## Write the tables of docs/ that come from the code.
	$(PY) docs/make_tables.py

lock: $(UV)  ## Pin every requirement again, with hashes.
	$(UV) pip compile -q --generate-hashes --no-emit-index-url --upgrade --python-version 3.13 requirements/tools.in -o requirements/tools.txt
	$(UV) pip compile -q --generate-hashes --no-emit-index-url --upgrade --python-version 3.13 requirements/lambda.in -o src/requirements.txt
	$(UV) pip compile -q --generate-hashes --no-emit-index-url --upgrade --python-version 3.13 requirements/sam.in -o requirements/sam.txt

clean:  ## Forget everything that can be made again.
	rm -rf .venv .venv-airflow .venv-glue .venv-sam .venv-uv .aws-sam .local build

.venv-uv/bin/uv:
	python3 -m venv .venv-uv
	.venv-uv/bin/pip install --quiet uv

define install  # folder, Python version, requirements file
	$(UV) venv --quiet --clear --python $(2) $(1)
	$(UV) pip install --quiet --python $(1) --require-hashes --compile-bytecode -r requirements/$(3)
	touch $(1)/ready
endef

.venv/ready: requirements/tools.txt | $(UV)
	$(call install,.venv,3.13,tools.txt)

.venv-airflow/ready: requirements/airflow-2.11.txt | $(UV)
	$(call install,.venv-airflow,3.12,airflow-2.11.txt)

.venv-glue/ready: requirements/glue.txt | $(UV)
	$(call install,.venv-glue,3.11,glue.txt)

.venv-sam/ready: requirements/sam.txt | $(UV)
	$(call install,.venv-sam,3.13,sam.txt)
