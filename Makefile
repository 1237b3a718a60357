# The one door. Every target sets up what it needs by itself.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PY := .venv/bin/python
TEST := $(PY) -m pytest
AIRFLOWS := .venv-airflow-2.10/ready .venv-airflow/ready .venv-airflow-3.0/ready .venv-airflow-3.3/ready

# Whoever keeps Pythons with pyenv has them at hand but not active; uv fetches them for everybody else.
ifneq ($(shell command -v pyenv),)
  export PYENV_VERSION := $(shell pyenv versions --bare 2>/dev/null | grep -E '^3\.(11|12|13)\.[0-9]+$$' | sort -rV | paste -sd:)
endif
UV := $(or $(shell uv --version >/dev/null 2>&1 && command -v uv),.venv-uv/bin/uv)
export UV_LINK_MODE ?= copy
# Whoever keeps no bytecode would have pytest rewrite every module again in every process.
unexport PYTHONDONTWRITEBYTECODE

# The folders with tests of these marks: the others need not be imported.
marked = $(sort $(dir $(shell grep -rlE --include='*.py' 'mark\.($(1))\b' tests)))

.PHONY: help demo test test-real-airflow test-beside-it check check-source check-quickly report pictures bench sweep build install-dags dags-bundle docs models lock clean

help:  ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: .venv/ready .venv-airflow/ready .venv-glue/ready  ## One night and one morning of a real Airflow on this machine (ARGS=--keep leaves it up).
	PYTHONPATH=src $(PY) -m local.demo $(ARGS)

check: .venv/ready .venv-checkov/ready  ## The fast part: lint, types, arrows, template, state machines, domain, functions. Under 2 minutes.
	@$(MAKE) --no-print-directory -j2 check-source check-quickly

check-source:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	PYTHONPATH=src:. .venv/bin/lint-imports --no-logo
	.venv/bin/cfn-lint template.yaml analytics/template.yaml

check-quickly:
	$(TEST) -n 2 --dist worksteal -m "unit or functions or template" $(call marked,unit|functions|template)

test: check .venv/browser $(AIRFLOWS) .venv-glue/ready .venv-mwaa-dr/ready build/sizes.json build/native/ready  ## Everything, with a real Airflow and a real PostgreSQL. Half an hour on two cores, with all that it installs.
	@$(MAKE) --no-print-directory -j2 test-real-airflow test-beside-it

# A real Airflow mostly waits; what is told of it comes when it is over.
test-real-airflow:
	@mkdir -p .local
	@echo "A real Airflow goes through nights and mornings, meanwhile:"
	@$(TEST) -m cycle $(call marked,cycle) >.local/cycle.txt 2>&1; \
	  ended=$$?; cat .local/cycle.txt; exit $$ended
	$(TEST) -m "packaging or report" $(call marked,packaging|report)

test-beside-it:
	$(TEST) -n 2 --dist loadfile -m "(stories or local or laws) and not functions" $(call marked,stories|local|laws)
	$(TEST) -n 2 --dist loadfile -m engine $(call marked,engine)

report: .venv/ready  ## One HTML file about what is in the lake: LAKE="s3://bucket ..." or folders [OUT=build/report.html] [ZONE=Europe/Berlin].
	PYTHONPATH=src $(PY) -m analytics report $(or $(LAKE),$(error LAKE is a folder or s3://bucket)) $(if $(OUT),--out $(OUT)) $(if $(ZONE),--time-zone $(ZONE))

pictures: .venv/browser  ## Take the pictures of docs/report.md again.
	PYTHONPATH=src $(PY) -m analytics.report.pictures

bench: .venv/ready .venv-airflow-2.10/ready .venv-mwaa-dr/ready build/sizes.json build/native/ready  ## Export, restore and queries against raw COPY, the blog's way and mwaa-dr (ARGS="--scale 0.1"); cold starts; cost.
	$(PY) -m bench $(ARGS)
	$(PY) -m bench.scan $(ARGS)
	$(PY) -m bench.imports
	PYTHONPATH=src $(PY) -W ignore -m bench.cost

sweep: .venv/ready  ## Every fault at every step of the state machines (ARGS="--only dies", ARGS="--replay '...'").
	PYTHONPATH=src $(PY) -W ignore -m sweep $(ARGS)

build: build/sizes.json  ## Build the stack for sam deploy, and weigh every function: build/sizes.json.

# What lies in a folder that goes into the cloud.
SOURCES := $(shell find dags functions layers sample src statemachine -type f -not -name '*.pyc')

# What they take out of a build is only there again after the next.
LEAN := artefacts/lean.py artefacts/elf.py artefacts/bytecode.py

# The region of the tests: the answer is not to depend on the shell's, which cfn-lint may not know.
.aws-sam/build/template.yaml: template.yaml samconfig.toml $(SOURCES) $(LEAN) | .venv/ready .venv-sam/ready
	.venv-sam/bin/sam validate --lint --region us-east-1
	PATH="$(CURDIR)/.venv/bin:$$PATH" .venv-sam/bin/sam build

build/sizes.json: .aws-sam/build/template.yaml | .venv/ready
	$(PY) -m artefacts

# The same libraries for this machine, which cannot import those that were compiled for another.
PINNED := $(wildcard src/requirements.txt layers/*.txt functions/*/requirements.txt)

build/native/ready: $(PINNED) $(LEAN) | .venv/ready $(UV)
	rm -rf build/native
	for each in $(PINNED); do \
	  $(UV) pip install --quiet --python $(PY) --no-deps --require-hashes --target build/native/$${each%.txt} \
	    --requirement $$each || exit; \
	done
	$(PY) -m artefacts.lean $(PINNED:%.txt=build/native/%)
	touch $@

install-dags: .venv/ready  ## DAGs, requirements and options for an environment: ENVIRONMENT=... [STACK=...] [APPLY=yes].
	PYTHONPATH=src $(PY) -m install $(ENVIRONMENT) --stack $(or $(STACK),transient-mwaa-$(ENVIRONMENT)) $(if $(filter yes,$(APPLY)),--apply)

dags-bundle: .venv/ready  ## Wheels for environments without internet, in build/dags-bundle.
	$(PY) requirements/make_bundle.py

docs: .venv/ready  ## Write the tables of docs/ and what of analytics/ comes from the code.
	$(PY) docs/make_tables.py
	$(PY) analytics/make_views.py
	$(PY) analytics/make_template.py

# Lambda's own botocore is older than the pinned one, and would not know MWAA's newer members.
MODEL := mwaa/2020-07-01/service-2.json.gz
models: .venv/ready
	cp "$$($(PY) -c 'import botocore; print(*botocore.__path__)')/data/$(MODEL)" src/transient_mwaa/aws/models/$(MODEL)

# boto3, which Lambda brings, and what it needs.
IN_LAMBDA := boto3 botocore jmespath python-dateutil s3transfer six urllib3
LOCK = $(UV) pip compile -q --generate-hashes --no-emit-index-url --upgrade

# Each Airflow stays as on the day of its release: the head of its file says how it was pinned.
lock: $(UV)  ## Pin every requirement again, with hashes.
	$(LOCK) --python-version 3.13 requirements/tools.in -o requirements/tools.txt
	$(LOCK) --python-version 3.13 requirements/lambda.in -o src/requirements.txt
	$(LOCK) --python-version 3.13 $(addprefix --no-emit-package ,$(IN_LAMBDA)) requirements/calendar.in -o layers/calendar.txt
	$(LOCK) --python-version 3.13 $(addprefix --no-emit-package ,$(IN_LAMBDA)) requirements/encryption.in -o layers/encryption.txt
	$(LOCK) --python-version 3.13 requirements/verify_file.in -o functions/verify_file/requirements.txt
	$(LOCK) --python-version 3.13 requirements/sam.in -o requirements/sam.txt
	$(LOCK) --python-version 3.13 requirements/checkov.in -o requirements/checkov.txt
	$(LOCK) --python-version 3.11 requirements/mwaa-dr.in -o requirements/mwaa-dr.txt
	for each in 2.10.3:3.11 2.11.2:3.12 3.0.6:3.12 3.3.1:3.12; do \
	  $(LOCK) --python-version $${each#*:} --python-platform x86_64-manylinux_2_28 \
	    -c requirements/constraints/$${each%:*}.txt dags/requirements.txt -o requirements/dags-$${each%:*}.txt || exit; \
	done
	$(MAKE) --no-print-directory models

clean:  ## Forget everything that can be made again.
	rm -rf .venv .venv-airflow* .venv-checkov .venv-glue .venv-mwaa-dr .venv-sam .venv-uv .aws-sam .local build

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

# The machine's own Chromium, or else Playwright's.
.venv/browser: .venv/ready
	$(PY) -m local.browser
	touch $@

.venv-airflow/ready: requirements/airflow-2.11.txt | $(UV)
	$(call install,.venv-airflow,3.12,airflow-2.11.txt)

.venv-airflow-2.10/ready: requirements/airflow-2.10.txt | $(UV)
	$(call install,.venv-airflow-2.10,3.11,airflow-2.10.txt)

.venv-airflow-3.0/ready: requirements/airflow-3.0.txt | $(UV)
	$(call install,.venv-airflow-3.0,3.12,airflow-3.0.txt)

.venv-airflow-3.3/ready: requirements/airflow-3.3.txt | $(UV)
	$(call install,.venv-airflow-3.3,3.12,airflow-3.3.txt)

.venv-glue/ready: requirements/glue.txt | $(UV)
	$(call install,.venv-glue,3.11,glue.txt)

.venv-mwaa-dr/ready: requirements/mwaa-dr.txt | $(UV)
	$(call install,.venv-mwaa-dr,3.11,mwaa-dr.txt)

.venv-sam/ready: requirements/sam.txt | $(UV)
	$(call install,.venv-sam,3.13,sam.txt)

.venv-checkov/ready: requirements/checkov.txt | $(UV)
	$(call install,.venv-checkov,3.13,checkov.txt)
