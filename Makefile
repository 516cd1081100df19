# Everything runs in this folder's own .venv; tools/env.sh makes it and keeps it current.
#   make PYTHON=/path/to/python3.12 demo     another Python than the first fitting one on the PATH
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: .dev help demo test test-browser install dev notebooks prepare readme readme-check web docs release clean distclean

export PYTHON
unexport PYTHONPATH PYTHONHOME

PY := .venv/bin/python
DEMO := --alpha --trimap --sheet --drop_alpha

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

demo: ## install what a cut-out needs, cut out the portraits in data/portraits, write them to out/demo
	@bash tools/env.sh runtime
	@.venv/bin/dim_cutout data/portraits --out out/demo $(DEMO)
	@echo
	@echo "The cut-outs are in out/demo; all of them on one sheet: out/demo/contact_sheet.png"

test: ## install with the dev extras, check style and notebooks, run them and the tests, drive the widgets in a browser
	@bash tools/env.sh dev
	@$(PY) tools/dev.py check
	@$(PY) tools/dev.py pytest
	@echo "== 7/7 in a browser"
	@if [ -n "$${NO_BROWSER:-}" ]; then echo "left out: NO_BROWSER is set"; else bash tests/browser/run.sh $(PY); fi

test-browser: .dev ## only drive the widgets in a real browser (installs Debian's chromium and chromium-driver where it may)
	@bash tests/browser/run.sh $(PY)

install: ## only install what a cut-out needs
	@bash tools/env.sh runtime

dev: .dev ## only install what the authors need, and git hooks that keep notebooks clean and mergeable
	@$(PY) tools/dev.py hooks

.dev:
	@bash tools/env.sh dev

notebooks: .dev ## run all notebooks in place, then clean them (NB=nbs/01_data_prep.ipynb for one)
	@$(PY) tools/dev.py notebooks $(NB)

prepare: .dev ## clean the notebooks, export the library and make README.md
	@$(PY) tools/dev.py prepare

readme: .dev ## make README.md from nbs/index.ipynb
	@$(PY) tools/dev.py readme

readme-check: .dev ## does README.md match nbs/index.ipynb?
	@$(PY) tools/dev.py readme --check

web: install ## make the page that cuts out in a browser, in out/web
	@.venv/bin/dim_page --out out/web

docs: .dev ## make the site, a page a notebook, in _docs
	@$(PY) tools/dev.py docs

release: test ## tag settings.ini's version and push the tag; the workflow builds the wheel from it
	@$(PY) tools/dev.py release

clean: ## remove what the commands wrote
	@rm -rf out build dist nbs/*_cutout.png .ruff_cache *.egg-info .pytest_cache .hypothesis _docs _proc
	@find . -path ./.venv -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -print0 | xargs -0 rm -rf

distclean: clean ## remove the environment too
	@rm -rf .venv
