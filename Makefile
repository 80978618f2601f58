# make test PG=16, make demo KEEP=1: everything else is in scripts/.
PG ?= $(shell scripts/default-pg)
KEEP ?=
QUICK ?=
ARGS ?=
export PG KEEP

.DEFAULT_GOAL := help
.PHONY: help demo test bench lint clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16
	@echo '  Variables: PG=15..18 picks the major (now $(PG)), KEEP=1 leaves the demo server running,'
	@echo '  ARGS="-s main -r 3" goes to the benchmark: make bench ARGS=--help.'

demo: ## a million rows filled before your eyes, with a pause, a lagging standby and a crash
	@scripts/demo $(PG)

test: ## all tests of one major
	@scripts/test $(PG)

bench: ## side by side with one UPDATE and with what else one would pick: hours, with QUICK=1 a minute
	@scripts/bench $(PG) $(if $(QUICK),--quick) $(ARGS)

lint: ## formatting and lints of Rust, shell and Python
	@scripts/lint

clean: ## removes the build, keeps the private servers and tools
	@scripts/clean
