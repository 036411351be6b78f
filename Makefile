# From a fresh machine (Python 3.9-3.11, gcc, make) to the demo and the tests. Needs nothing installed by hand.
.DEFAULT_GOAL := help
.PHONY: help env demo test torture lint docs clean distclean

# official or onedl; empty: official if the Python version allows it.
STACK ?=
# Python that builds the environment; empty: the first of python3, python3.11, ... that runs and suits the stack.
PYTHON ?=
# Scripts take PYTHON for the one to run with.
unexport PYTHON
# Tests at a time; each has one thread.
JOBS ?= 2
# More arguments for pytest or the demo: make test ARGS='-k losses'
ARGS ?=

ifneq (,$(filter env demo test torture lint docs,$(MAKECMDGOALS)))
  CHOICE := $(shell sh tools/dev/choose_python.sh '$(STACK)' '$(PYTHON)')
  ifeq (error,$(firstword $(CHOICE)))
    $(error $(wordlist 2,$(words $(CHOICE)),$(CHOICE)))
  endif
endif
CHOSEN_STACK := $(firstword $(CHOICE))
BASE_PYTHON := $(wordlist 2,$(words $(CHOICE)),$(CHOICE))

VENV := $(if $(filter onedl,$(CHOSEN_STACK)),.venv-onedl,.venv)
PY := $(VENV)/bin/python
PIP_INSTALL := $(PY) -m pip --disable-pip-version-check install
# Without the environment's PyTorch, mmcv would leave its ops out; MAX_JOBS limits the cores it uses.
INSTALL_MMCV := MMCV_WITH_OPS=1 MAX_JOBS=$${MAX_JOBS:-$$(nproc 2>/dev/null || echo 2)} \
    $(PIP_INSTALL) --no-build-isolation --no-deps -r requirements/$(CHOSEN_STACK)/mmcv.txt
REQUIREMENTS := $(wildcard requirements/$(CHOSEN_STACK)/*.txt) requirements/runtime.txt requirements/test.txt
# Written last, so the next call continues an interrupted installation.
COMPLETE := $(VENV)/.complete

define CHECK_PYTHON
import ensurepip, os, sysconfig, venv
include = {sysconfig.get_path('include'), sysconfig.get_config_var('INCLUDEPY')}
assert any(os.path.exists(os.path.join(path, 'Python.h')) for path in include)
endef
export CHECK_PYTHON

# The demo and the tests start scripts that need this environment's commands.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

help:  ## show this list
	@echo 'usage: make TARGET [STACK=official|onedl] [PYTHON=/path/to/python3] [ARGS=...]'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{printf "%-13s %s\n", $$1, $$2}'

demo: $(COMPLETE)  ## simulate, pretrain, detect, segment, encode: the whole chain on two cores
	$(PY) tools/demo.py $(ARGS)

test: $(COMPLETE)  ## run the tests
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest -n $(JOBS) --dist loadfile $(ARGS)

torture: $(COMPLETE)  ## kill runs and fill their disk, and see that they recover: at most 15 minutes
	$(PY) -m pytest torture $(ARGS)

lint: $(COMPLETE)  ## check the style
	$(PY) -m ruff check .

docs: $(COMPLETE)  ## build the documentation into build/docs
	$(PY) -m sphinx -W --keep-going -b html docs build/docs

env: $(COMPLETE)  ## build the environment only (.venv, or .venv-onedl for OneDL)

$(COMPLETE): $(REQUIREMENTS) setup.py
	@for tool in gcc g++; do command -v $$tool >/dev/null || { \
	    echo "Error: $$tool is missing, and mmcv must be compiled: install it (Debian and Ubuntu: apt install build-essential)."; \
	    exit 1; }; done
	@$(BASE_PYTHON) -c "$$CHECK_PYTHON" 2>/dev/null || { echo "Error: $(BASE_PYTHON) lacks its headers or the venv module, and both are needed: install" \
	    "them (Debian and Ubuntu: apt install python3-dev python3-venv) or name another Python with PYTHON=..."; exit 1; }
	@rm -f $@
	@$(PY) -m pip --version >/dev/null 2>&1 || { echo '== Creating $(VENV)'; $(BASE_PYTHON) -m venv --clear $(VENV); }
	@echo '== 1/4 PyTorch (a large download)'
	$(PIP_INSTALL) 'pip>=23' -r requirements/$(CHOSEN_STACK)/torch.txt
	@echo '== 2/4 mmcv with its ops, compiled here: about 8 minutes on 2 cores'
	$(INSTALL_MMCV)
	@echo '== 3/4 the OpenMMLab libraries and everything else'
	$(PIP_INSTALL) -r requirements/$(CHOSEN_STACK)/torch.txt -r requirements/$(CHOSEN_STACK)/openmmlab.txt \
	    -r requirements/runtime.txt -r requirements/test.txt
	@# Without screen libraries only the headless OpenCV loads.
	@$(PY) -c 'import cv2' 2>/dev/null || $(PIP_INSTALL) --force-reinstall --no-deps \
	    "$$(grep -h '^opencv-python-headless' requirements/$(CHOSEN_STACK)/*.txt)"
	@# pip may have cached an mmcv without ops or for another PyTorch: build it again, past the cache.
	@$(PY) -c 'import mmcv.ops' 2>/dev/null || { echo '== mmcv.ops does not load: building mmcv anew'; \
	    $(INSTALL_MMCV) --no-cache-dir --force-reinstall && $(PY) -c 'import mmcv.ops'; } || { \
	    echo 'Error: mmcv could not be built with its compiled ops; the reason is above. On a machine with a GPU it needs' \
	    'the CUDA toolkit (nvcc) of the version that PyTorch was built with, or CUDA_VISIBLE_DEVICES= for the CPU.'; exit 1; }
	@echo '== 4/4 mmnfn itself, editable'
	$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@$(PY) -c 'import mmcv.ops, mmpretrain, mmdet, mmseg, mmnfn' || { \
	    echo 'Error: the environment $(VENV) is damaged; the reason is above. Remove it and run make again.'; exit 1; }
	@touch $@
	@echo '== $(VENV) is complete ($(CHOSEN_STACK) stack)'

clean:  ## remove builds and caches
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find mmnfn tools tests torture configs -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## remove the environments too
	rm -rf .venv .venv-onedl
