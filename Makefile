# `make help` lists what there is. On a new machine, `make run` and `make test` need nothing but
# Python 3.11 or newer: they make the virtual environment and install what is missing.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
# How many processes share the tests, on SQLite and on PostgreSQL: more than cores, since many tests
# wait for other processes.
PARALLEL ?= 4
PARALLEL_POSTGRES ?= 2

BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest --durations=10
INSTALLED := $(VENV)/.installed
CELERY := $(VENV)/celery/.installed
# Says which interpreter one is, inside of a virtual environment and outside.
WHICH := import sys; print(sys.version, sys.base_prefix)
# Checks and tests don't depend on a developer's own .env.
HERMETIC := ENV_FILE= SECRET_KEY=check REDIS_URL=redis://localhost:6379/0

# Where the environment forbids bytecode, each of the hundreds of processes that tests start would
# compile this project anew: twice the time until it is up.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run web worker beat broker test test-sqlite test-postgres test-mariadb test-version themes contract storm \
	check check-version docs budget lint format release clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON=$(PYTHON) VENV=$(VENV) PORT=$(PORT) PARALLEL=$(PARALLEL) PARALLEL_POSTGRES=$(PARALLEL_POSTGRES) STORM='--tasks 20000 --kills 45'"

run: $(INSTALLED) .env ## Start web server, worker, beat and broker together
	@exec $(BIN)/python -m jobsite.dev --port $(PORT)

web: $(INSTALLED) .env ## Start the web server alone
	@exec $(BIN)/python manage.py runserver 127.0.0.1:$(PORT)

worker: $(INSTALLED) .env ## Start a worker alone
	@exec $(BIN)/python manage.py runworker --queues high,default,low --reload

beat: $(INSTALLED) .env ## Start beat alone
	@exec $(BIN)/python manage.py runbeat

broker: $(INSTALLED) .env ## Start the embedded broker in this terminal
	@exec $(BIN)/python manage.py runbroker

# What runs the same on every database, or needs none. Single tests in other files have the mark
# `one_database`. What is left is what writes rows in a way of its own, locks them, or reads them
# with queries of its own, and worker and beat as a whole.
ONE_DATABASE := unit browser integration/admin integration/broker integration/celery_guides \
	integration/commands integration/demo \
	integration/test_captured_commits.py integration/test_celery_canvas_guide.py \
	integration/test_celery_control.py integration/test_celery_forms.py integration/test_embedded.py \
	integration/test_every_call_ends.py integration/test_foreign_messages.py \
	integration/test_inspecting.py integration/test_moving.py integration/test_moving_here.py \
	integration/test_polling_page.py integration/test_pytest_plugin.py e2e/test_tutorial.py \
	integration/test_rate_limits.py integration/test_rate_overrides.py \
	integration/test_routing.py integration/test_stamps.py \
	integration/test_thread_timer.py integration/test_time_limit_overrides.py \
	integration/test_types_of_arguments.py integration/test_waiting_in_tasks.py \
	e2e/test_ascii_locale.py e2e/test_both_kinds.py e2e/test_celery_clients.py \
	e2e/test_celery_control.py e2e/test_moving_from_celery.py \
	e2e/test_control.py e2e/test_dev.py e2e/test_foreign_workers.py e2e/test_forkserver.py \
	e2e/test_isolation.py e2e/test_keys_left.py e2e/test_limits.py e2e/test_package.py \
	e2e/test_processes.py e2e/test_release.py e2e/test_rundev.py e2e/test_signals.py \
	faults/test_batches.py \
	faults/test_iteration.py faults/test_network.py faults/test_outages.py \
	faults/test_refusals.py faults/test_security.py

# What is run once more on a ledger in partitions.
ON_PARTITIONS := integration/test_fencing.py integration/test_ledger.py integration/test_relay.py \
	integration/admin/test_results.py

# What is run on MariaDB: what writes rows in a way of its own, locks them, or asks for them in SQL
# that differs there, and a worker and beat as processes.
ON_MARIADB := $(addprefix integration/,admin/test_errors.py admin/test_result_filters.py \
	admin/test_results.py test_atomic.py test_beat.py test_chords.py test_declared_schedules.py \
	test_fencing.py test_groups.py test_ledger.py test_migrations.py test_names_by_bytes.py \
	test_pruning.py test_publish.py test_recovery.py test_refused_records.py test_relay.py \
	test_replay.py test_unique.py test_upkeep.py) e2e/test_without_time_zones.py \
	faults/test_database.py

# What depends on the version of Python or Django: all but killing and cutting off, the pages in a
# browser, and most of what only starts processes.
EVERY_VERSION := unit integration e2e/test_beat.py e2e/test_processes.py e2e/test_project_fixture.py \
	e2e/test_worker.py

# Of these, what runs the same with every version: the scripts, which run on the server; what reads
# the files of this repository; and one damaged key after the other, on pages that other tests open
# with every version. Single tests in other files have the mark `one_version`.
ONE_VERSION := integration/admin/test_damaged_keys.py integration/broker/lua unit/test_docs.py \
	unit/test_manifests.py unit/test_map.py unit/test_translations.py unit/test_troubleshooting.py

test: $(INSTALLED) $(CELERY) ## Run all tests on SQLite, and beside them those that depend on the database on PostgreSQL
	@$(BIN)/python -m tests.side_by_side $(MAKE) --no-print-directory test-postgres \
		-- $(MAKE) --no-print-directory test-sqlite

test-sqlite: $(INSTALLED) $(CELERY) ## Run all tests on SQLite alone
	$(PYTEST) -n $(PARALLEL)

test-postgres: $(INSTALLED) $(CELERY) ## Run those that depend on the database on PostgreSQL alone
	$(BIN)/python -m tests.with_postgres $(PYTEST) -n $(PARALLEL_POSTGRES) -m "not one_database" \
		$(addprefix --ignore=tests/,$(ONE_DATABASE))
	PARTITIONED=1 $(BIN)/python -m tests.with_postgres $(PYTEST) -n $(PARALLEL_POSTGRES) \
		$(addprefix tests/,$(ON_PARTITIONS))

test-mariadb: $(INSTALLED) ## Run what differs there on MariaDB, whose server must be installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-mysql.txt
	$(BIN)/python -m tests.with_mariadb $(PYTEST) -n $(PARALLEL_POSTGRES) -m "not one_database" \
		$(addprefix tests/,$(ON_MARIADB))

test-version: $(INSTALLED) $(CELERY) ## Run those that depend on the version of Python or Django, on SQLite
	$(PYTEST) -n $(PARALLEL) -m "not one_version" $(addprefix tests/,$(EVERY_VERSION)) \
		$(addprefix --ignore=tests/,$(ONE_VERSION))

themes: $(INSTALLED) ## Open the admin's pages under other themes in a browser
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-themes.txt
	$(PYTEST) -n 1 tests/browser/test_themes.py

contract: $(INSTALLED) ## Run Django's own tests of django.tasks on our backend, with Django 6
	$(BIN)/python -m tests.django_contract

storm: $(INSTALLED) ## Kill everything at random while tasks run (STORM=--cluster, --sentinel, --users)
	$(BIN)/python -m tests.storm $(STORM)

# Mypy reads the same stubs, as for the oldest Python, with each version.
check: $(INSTALLED) lint check-version ## Check style, types, the documentation's links, settings, migrations, packages and the budget
	$(BIN)/mypy
	$(BIN)/python -m tests.check_docs
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/python -m tests.check_examples

check-version: $(INSTALLED) ## Check what depends on the version of Python or Django
	$(BIN)/python -m tests.check_packages
	$(HERMETIC) $(BIN)/python manage.py check --fail-level WARNING
	$(HERMETIC) $(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/python -m benchmarks.budget

docs: $(INSTALLED) ## Make the documentation's site in build/site; a warning is an error
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	$(BIN)/python -m sphinx -q -E -j 2 -W --keep-going -c docs -d build/doctrees . build/site

budget: $(INSTALLED) ## Make what sending, running and recording cost now the budget that check holds
	$(BIN)/python -m benchmarks.budget --write

lint: $(INSTALLED) ## Check style alone
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(INSTALLED) ## Put the code into shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

release: $(INSTALLED) ## Build and tag a version of what is committed, here alone (VERSION=1.2.3)
	@$(BIN)/python -m tests.release $(or $(VERSION),$(error Say which: make release VERSION=1.2.3))

clean: ## Remove what was installed and built; databases and .env stay
	@if [ -x $(BIN)/python ] && [ -d .jobs ]; then $(BIN)/python manage.py runbroker --stop || true; fi
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache staticfiles
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.env:
	@cp .env.example .env
	@echo "Made .env for development from .env.example."

$(INSTALLED): requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed: make PYTHON=python3.13 ..."; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) ..."
	@# What was cut off is gone on with, unless it was begun with another interpreter.
	@{ [ -x $(BIN)/pip ] && { [ -e $@ ] || \
		[ "$$($(BIN)/python -c '$(WHICH)')" = "$$($(PYTHON) -c '$(WHICH)')" ]; }; } || \
		$(PYTHON) -m venv --clear $(VENV) || { \
		echo "Python can't make virtual environments (Debian: apt-get install python3-venv)."; \
		exit 1; }
	@$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check \
		-r requirements-dev.txt > $(VENV)/pip.log 2>&1 || { \
		cat $(VENV)/pip.log; echo "The installation failed."; exit 1; }
	@touch $@

# Celery has an environment of its own, as the clients have that the tests start.
$(CELERY): requirements-celery.txt $(INSTALLED)
	@$(BIN)/python -m venv $(VENV)/celery
	@$(VENV)/celery/bin/python -m pip install --quiet --no-input --disable-pip-version-check \
		-r requirements-celery.txt
	@touch $@
