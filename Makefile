# Every target hands over to lab.py, so that the same commands work where there is no make.
# ARGS goes on to the program behind a target: make test ARGS="-k panel", make lab ARGS=--no-browser

PYTHON ?= python3
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help lab test setup notebooks workshop site lint bench lock clean

help: ## list the targets
	@echo "A lab for why gradients die and numbers blow up. Targets:"
	@awk -F ': ## ' '/^[a-z]+: ## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lab: ## set up and open JupyterLab on your own copies of the notebooks
	@$(PYTHON) lab.py lab $(ARGS)

test: ## set up and run the whole suite, as CI does
	@$(PYTHON) lab.py test $(ARGS)

setup: ## set up the lab and open nothing
	@$(PYTHON) lab.py setup $(ARGS)

notebooks: ## build the notebooks from their text and execute them
	@$(PYTHON) lab.py notebooks $(ARGS)

workshop: ## make the learner's and the facilitator's edition of the notebooks
	@$(PYTHON) lab.py workshop $(ARGS)

site: ## make the pages that need no kernel, in site/ (all of them: about five minutes)
	@$(PYTHON) lab.py site $(ARGS)

lint: ## check style and format
	@$(PYTHON) lab.py lint $(ARGS)

bench: ## run the benchmarks one after another; each prints a table
	@$(PYTHON) lab.py bench $(ARGS)

lock: ## rebuild requirements.lock from pyproject.toml in a clean environment
	@$(PYTHON) lab.py lock $(ARGS)

clean: ## remove the environment and caches; my_lab/ stays
	@$(PYTHON) lab.py clean $(ARGS)
