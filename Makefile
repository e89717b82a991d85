# Two commands: `make quickstart` needs Python 3.11 and make; `make test` also installs what the tests need.
# `make soak` and `make fuzz-doors` are long tests: docs/delivery.md and docs/serving.md say what they do.
PYTHON ?= python3
VENV := .venv
DEV := .venv-dev
KILLS ?= 200
FRAMES ?= 10000000
STORM ?= $(shell date +%s)
CASES ?= 100000
SEED ?= $(shell date +%s)
PIP := -m pip install --quiet --disable-pip-version-check
# What Debian has: $(APT) PACKAGE...
SUDO = if [ "$$(id -u)" = 0 ]; then SUDO=; else SUDO=sudo; fi
APT = $(SUDO); $$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq --no-install-recommends
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt

.PHONY: quickstart test soak fuzz-doors check format clean

quickstart: $(VENV)/.quickstart
	$(VENV)/bin/edgemw up examples/quickstart/edgemw.toml $(ARGS)
	@echo "next: . $(VENV)/bin/activate && edgemw --help"

test: $(DEV)/.dev mosquitto prometheus chromium iproute2 brokers
	$(MAKE) --no-print-directory check
	$(DEV)/bin/python -m pytest -q

soak: $(DEV)/.dev mosquitto
	$(DEV)/bin/python -m pytest tests/system/test_soak.py tests/system/test_frames_fuzz.py -s -q \
	  --kills $(KILLS) --storm $(STORM) --frames $(FRAMES)

fuzz-doors: $(DEV)/.dev mosquitto
	$(DEV)/bin/python -m pytest tests/system/test_doors_fuzz.py -s -q --door-cases $(CASES) --door-seed $(SEED)

check: $(DEV)/.dev
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports

format: $(DEV)/.dev
	$(DEV)/bin/ruff check --fix .
	$(DEV)/bin/ruff format .

$(VENV)/.quickstart: pyproject.toml constraints.txt
	@echo "setting up $(VENV) (once, without torch)"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP) -e '.[quickstart]'
	@touch $@

$(DEV)/.dev: pyproject.toml constraints.txt
	@echo "setting up $(DEV) (once, with torch)"
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python $(PIP) torch==2.13.0
	$(DEV)/bin/python $(PIP) -e '.[dev]'
	@touch $@

.PHONY: mosquitto
mosquitto:
	@command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || { \
	  echo "the integration tests run against mosquitto: installing it"; \
	  $(APT) mosquitto mosquitto-clients; } || \
	  { echo "install mosquitto and run make test again" >&2; exit 1; }

.PHONY: prometheus
prometheus:
	@command -v promtool >/dev/null && command -v prometheus-node-exporter >/dev/null || { \
	  echo "metrics are checked with promtool, and energy beside Prometheus's node exporter: installing them"; \
	  $(APT) prometheus prometheus-node-exporter; } || \
	  { echo "install prometheus and prometheus-node-exporter and run make test again" >&2; exit 1; }

.PHONY: chromium
chromium:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
	  echo "the page of fog nodes is looked at with chromium: installing it"; \
	  $(APT) chromium chromium-driver; } || \
	  { echo "install chromium and chromium-driver and run make test again" >&2; exit 1; }

.PHONY: iproute2
iproute2:
	@command -v ip >/dev/null || [ -x /usr/sbin/ip ] || { \
	  echo "docker/compose.yaml is run in networks that iproute2 makes: installing it"; \
	  $(APT) iproute2; } || \
	  { echo "install iproute2 and run make test again" >&2; exit 1; }

# No service of theirs may start: a container has nobody to run it, and on a machine it would take the ports.
.PHONY: brokers
brokers:
	@[ -x /usr/sbin/nats-server ] && [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || { \
	  echo "the files of brokers/ are tried on NATS and RabbitMQ: installing them"; \
	  $(SUDO); POLICY=/usr/sbin/policy-rc.d; \
	  if [ ! -e $$POLICY ]; then printf '#!/bin/sh\nexit 101\n' | $$SUDO tee $$POLICY >/dev/null && $$SUDO chmod +x $$POLICY; OURS=1; fi; \
	  $(APT) nats-server rabbitmq-server; DONE=$$?; \
	  if [ -n "$$OURS" ]; then $$SUDO rm $$POLICY; fi; [ $$DONE = 0 ]; } || \
	  { echo "install nats-server and rabbitmq-server and run make test again" >&2; exit 1; }

clean:
	rm -rf $(VENV) $(DEV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
