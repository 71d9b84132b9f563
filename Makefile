# Needs make and a Python (3.11 or newer), nothing else. Each target does its own set-up; done twice, it is quick.

# The pins were frozen on 3.11, so that version is the first choice.
PYTHON = python3.11 python3.12 python3.13 python3.14 python3
PIP = python -m pip --disable-pip-version-check --no-input install --quiet
LIGHT_LIMIT_MB = 300

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo bench test check light format system data

help:
	@echo "make demo     tell stolen models from independent ones, and write a report   (OUT=folder)"
	@echo "make bench    every scheme against every theft of a small population   (OUT=folder)"
	@echo "make test     run the tests   (ALL=1 adds the slow ones; ARGS='-k akh' goes to pytest)"
	@echo "make check    format, lint, types, import contracts, examples in the docs"
	@echo "make light    the base install alone: its size, and its tests without torch"
	@echo "make format   write what 'make check' asks of the format"
	@echo "make system   install the Debian packages of apt.txt   (not needed for the demo)"
	@echo "make data     get the data sets emoji, letters and reviews, 160 MB   (LOCARD_DATA=folder)"

demo: .venv/.demo
	.venv/bin/locard demo $(if $(OUT),--out '$(OUT)')

BENCH = $(or $(OUT),locard-bench)
bench: .venv/.dev
	.venv/bin/locard zoo build digits-small -o '$(BENCH)/population'
	.venv/bin/locard bench run '$(BENCH)/population' -o '$(BENCH)/bench'
	.venv/bin/locard bench report '$(BENCH)/bench'

# A whole file goes to one worker, so that what its tests train is trained once.
PYTEST = .venv/bin/pytest -n 2 --dist loadfile
bench test check light: export OMP_NUM_THREADS = 1
bench test check light: export LOCARD_PLUGINS = none

test: .venv/.dev .venv-server/.ready
	$(PYTEST) $(if $(ALL),,-m 'not slow') --ignore=tests/docs --ignore=tests/light tests $(ARGS)

check: .venv/.dev
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/basedpyright
	.venv/bin/lint-imports --no-logo
	$(PYTEST) tests/docs

format: .venv/.dev
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

# Installed as a user installs it, from a wheel, so that a file missing from the wheel shows.
light: .venv-light/.ready
	.venv-light/bin/$(PIP) --no-build-isolation --no-deps --force-reinstall .
	.venv-light/bin/pytest tests/light

system:
	@missing=$$(for package in $$(sed 's/#.*//' apt.txt); do \
		dpkg-query --show --showformat '$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed || echo $$package; \
	done); \
	if [ -z "$$missing" ]; then echo "system packages: all there"; exit 0; fi; \
	command -v apt-get >/dev/null || { echo "no apt-get here: install by other means:" $$missing >&2; exit 1; }; \
	root=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	echo "system packages: installing" $$missing; \
	$$root apt-get update -qq && \
	$$root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends $$missing

# Data that no package puts in place without more: R's packages are unpacked, for installing them would bring R.
DATA = $(or $(LOCARD_DATA),$(or $(XDG_DATA_HOME),$(HOME)/.local/share)/locard)
R_DATA = mlbench modeldata
NPM_DATA = emoji-datasource-google emoji-datasource-twitter
NPM_DATA_VERSION = 16.0.0

data:
	@set -e; mkdir -p '$(DATA)'; cd '$(DATA)'; \
	missing=; for name in $(R_DATA); do [ -d usr/lib/R/site-library/$$name/data ] || missing="$$missing r-cran-$$name"; done; \
	if [ -n "$$missing" ]; then \
		command -v dpkg >/dev/null && command -v apt-get >/dev/null || { echo "no apt-get here for:$$missing" >&2; exit 1; }; \
		echo "data: unpacking$$missing into $(DATA)"; \
		rm -rf .part; mkdir .part; \
		root=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		get="apt-get -qq -o APT::Sandbox::User=root download $$missing"; \
		(cd .part && { $$get 2>/dev/null || { $$root apt-get update -qq && $$get; }; }); \
		for package in .part/*.deb; do dpkg -x "$$package" .; done; rm -rf .part; \
	fi; \
	missing=; for name in $(NPM_DATA); do \
		grep -qs '"version": "$(NPM_DATA_VERSION)"' node_modules/$$name/package.json || missing="$$missing $$name@$(NPM_DATA_VERSION)"; \
	done; \
	if [ -n "$$missing" ]; then \
		command -v npm >/dev/null || { echo "no npm here for:$$missing" >&2; exit 1; }; \
		echo "data: installing$$missing into $(DATA)"; \
		npm install --silent --ignore-scripts --no-audit --no-fund --prefix . $$missing; \
	fi; \
	echo "data sets: all in $(DATA)"

# Makes the environment $(1), or keeps a sound one.
define environment
	@python=; for candidate in $(PYTHON); do \
		if $$candidate -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			python=$$candidate; break; \
		fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "Locard needs Python 3.11 or newer, with venv; none of these is: $(PYTHON)" >&2; \
		echo "Name yours: make PYTHON=/path/to/python ..." >&2; \
		exit 1; \
	fi; \
	if ! $(1)/bin/python -m pip --version >/dev/null 2>&1; then \
		echo "$(1): $$($$python --version)"; \
		$$python -m venv --clear $(1); \
	fi
endef

# Old pips know no dependency groups, and the build runs with pinned tools instead of whatever is newest that day.
.venv/.tools: constraints.txt
	$(call environment,.venv)
	.venv/bin/$(PIP) --constraint constraints.txt pip hatchling editables
	@touch $@

INSTALL = $(PIP) --constraint constraints.txt --no-build-isolation

.venv/.demo: .venv/.tools pyproject.toml
	@echo "installing Locard and torch into .venv: a minute or two, once"
	.venv/bin/$(INSTALL) --editable '.[demo]'
	@touch $@

.venv/.dev: .venv/.tools pyproject.toml
	@echo "installing Locard, its extras and its tools into .venv: a minute or two, once"
	.venv/bin/$(INSTALL) --group dev --editable '.[all]'
	@touch $@ .venv/.demo

# Made afresh each time, because what is measured is the whole of what a first install brings: the bytes of its files,
# whatever blocks a file system rounds them up to.
.venv-light/.ready: pyproject.toml constraints.txt
	@echo "installing the base alone into .venv-light"
	rm -rf .venv-light
	$(call environment,.venv-light)
	.venv-light/bin/$(PIP) --constraint constraints.txt pip hatchling editables
	@du -sm --apparent-size .venv-light | cut -f1 > .venv-light/.bare
	.venv-light/bin/$(INSTALL) .
	@size=$$(( $$(du -sm --apparent-size .venv-light | cut -f1) - $$(cat .venv-light/.bare) )); \
	echo "the base install takes $$size MB on disk; it must stay under $(LIGHT_LIMIT_MB)"; \
	[ $$size -lt $(LIGHT_LIMIT_MB) ]
	.venv-light/bin/$(INSTALL) --group test '.[sklearn]'
	@touch $@

.venv-server/.ready: tests/server/requirements.txt
	@echo "installing the inference server of the endpoint tests into .venv-server"
	$(call environment,.venv-server)
	.venv-server/bin/$(PIP) --requirement $<
	@touch $@
