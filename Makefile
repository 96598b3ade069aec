# Vedette. `make` alone says what there is. A bare Debian or Ubuntu with python3, git and make is enough.

PYTHON ?= python3
VENV := .venv

# Tests wait for servers and sleepers more than they compute: two processes, however few processors. A file stays in one of them.
WORKERS ?= 2

# Packages of the distribution, each where it is first needed. They are installed as root or through `sudo -n`; else the
# command to run is printed.
VENV_PACKAGES := python3-venv
# A machine has one mail system, and another one would take its place: exim4 only where there is none.
# systemd is there for systemd-analyze; it brings no init (that is systemd-sysv) and starts nothing.
TEST_PACKAGES := rabbitmq-server bind9 systemd $(if $(wildcard /usr/sbin/sendmail),,exim4-daemon-light)
BENCH_PACKAGES := rabbitmq-server libnginx-mod-nchan etcd-server gcc libc6-dev procps
# Unpacked into build/, never installed: the oldest kubectl that is held to.
KUBECTL_PACKAGE := kubernetes-client
KUBECTL_VERSION := 1.20

PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --no-input
SAY := @printf '· %s\n'
KUBECTL := $(CURDIR)/build/kubectl-$(KUBECTL_VERSION)/usr/bin/kubectl

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-cloud check bench clean packages kubectl

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: $(VENV)/.runtime ## A recorded cloud, live on 127.0.0.1:8470, until Ctrl-C
	$(SAY) 'vedette demo'
	@exec $(VENV)/bin/vedette demo $(ARGS)

test: $(VENV)/.dev packages kubectl ## Every test (ARGS="-k watch" for some)
	$(SAY) 'pytest'
	@VEDETTE_KUBECTL="$$(ls $(KUBECTL) 2>/dev/null)" $(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

test-cloud: $(VENV)/.dev kubectl ## Against a real OpenStack on this machine: 4 GiB, many minutes, root (CLOUD=keep leaves it up)
	$(SAY) 'a control plane, and pytest tests/realcloud'
	@VEDETTE_KUBECTL="$$(ls $(KUBECTL) 2>/dev/null)" tests/realcloud/run.sh $(VENV)/bin/python $(ARGS)

check: $(VENV)/.dev ## Style, types, import contracts, documents
	$(SAY) 'ruff check'
	@$(VENV)/bin/ruff check .
	$(SAY) 'ruff format'
	@$(VENV)/bin/ruff format --check .
	$(SAY) 'mypy --strict'
	@$(VENV)/bin/mypy --strict
	$(SAY) 'import contracts'
	@$(VENV)/bin/lint-imports --no-cache
	$(SAY) 'documents'
	@$(VENV)/bin/python -m pytest tests/docs

bench: $(VENV)/.dev build/peers/.made ## What it costs and carries, each figure beside its floor and a peer
	@scripts/install-packages $(BENCH_PACKAGES)
	$(SAY) 'bench/matching.py'
	@$(VENV)/bin/python bench/matching.py
	$(SAY) 'bench/ingest.py'
	@$(VENV)/bin/python bench/ingest.py --oslo=build/peers/bin/python
	$(SAY) 'bench/fanout.py'
	@$(VENV)/bin/python bench/fanout.py
	$(SAY) 'bench/latency.py'
	@$(VENV)/bin/python bench/latency.py
	$(SAY) 'bench/api_calls.py'
	@$(VENV)/bin/python bench/api_calls.py
	$(SAY) 'bench/resync.py'
	@$(VENV)/bin/python bench/resync.py
	$(SAY) 'bench/conditions.py'
	@$(VENV)/bin/python bench/conditions.py
	$(SAY) 'bench/kubernetes_watch.py'
	@$(VENV)/bin/python bench/kubernetes_watch.py
	$(SAY) 'bench/dispatch.py'
	@$(VENV)/bin/python bench/dispatch.py
	$(SAY) 'bench/audits.py'
	@$(VENV)/bin/python bench/audits.py
	$(SAY) 'bench/mirror.py'
	@$(VENV)/bin/python bench/mirror.py
	$(SAY) 'bench/strategies.py'
	@$(VENV)/bin/python bench/strategies.py --watcher=build/peers/bin/python
	$(SAY) 'bench/big_log.py'
	@$(VENV)/bin/python bench/big_log.py

clean: ## Remove what make made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# --- what they stand on ------------------------------------------------------------------------------------------------------

# A stamp is touched when its step has succeeded; it is made again when what it lists has changed.
$(VENV)/.made:
	$(SAY) '$(VENV): a virtual environment of $(PYTHON)'
	@PACKAGES='$(VENV_PACKAGES)' scripts/make-venv '$(PYTHON)' $(VENV)
	@touch $@

$(VENV)/.runtime: requirements.txt requirements-build.txt pyproject.toml | $(VENV)/.made
	$(SAY) "$$(grep -cE '^[a-zA-Z]' requirements.txt) packages of requirements.txt, and Vedette itself"
	@$(PIP) install --quiet -r requirements.txt -r requirements-build.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	$(SAY) "$$(grep -cE '^[a-zA-Z]' requirements-dev.txt) packages of requirements-dev.txt"
	@$(PIP) install --quiet -r requirements-dev.txt
	@touch $@

# The peers of bench/ingest.py and bench/strategies.py.
build/peers/.made: requirements-bench.txt
	$(SAY) 'build/peers: oslo.messaging, python-watcher'
	@PACKAGES='$(VENV_PACKAGES)' scripts/make-venv '$(PYTHON)' build/peers
	@build/peers/bin/python -m pip --disable-pip-version-check --no-input install --quiet -r requirements-bench.txt
	@touch $@

packages:
	@scripts/install-packages $(TEST_PACKAGES)

kubectl:
	@scripts/unpack-kubectl $(KUBECTL_PACKAGE) $(KUBECTL_VERSION) build/kubectl-$(KUBECTL_VERSION)
