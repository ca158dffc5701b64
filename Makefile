# The commands a newcomer types first; everything sets itself up in .venv.
.PHONY: demo test check score trial load record image image-test chart clean help
.DEFAULT_GOAL := help

help:           ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile

demo:           ## a broken three-node cluster and an incident channel in the browser (ONCE=1: without a person; FAULT=name: another fault)
	@.ci/venv run
	@exec .venv/bin/python -m bot.cli demo $(if $(ONCE),--once) $(if $(FAULT),--fault $(FAULT))

# Else each of a hundred labs, with a probe on every node, would compile itself anew.
test: export PYTHONDONTWRITEBYTECODE =
test:           ## all tests, of matrices a part that meets each row and column (ALL=1: every cell, as in CI)
	@.ci/venv dev
	@rm -rf .pytest_cache/v/cache/lastfailed .pytest_cache/d/calico-why-calls
	@export CALICO_WHY_TEST_ALL=$(ALL); .venv/bin/python -m pytest -n 6 --dist loadfile --no-loadscope-reorder $(ARGS) || { test $$? = 1 && .venv/bin/python -m tests.again; }

check:          ## style, types and the import arrow
	@.ci/venv dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

score:          ## every fault and every healthy shape, asked in labs: docs/scorecard.md (CHECK=1: is a right answer lost? QUICK=1, REST=1, ONLY=word: fewer)
	@.ci/venv dev
	@exec .venv/bin/python -m benchmarks.score $(if $(CHECK),--check) $(if $(QUICK),--quick) $(if $(REST),--rest) $(if $(ONLY),--only "$(ONLY)")

trial:          ## N approvals (100) while bots and fixers are killed with -9: how many fixes were done twice, lost or not allowed (SEED=number: the same kills again)
	@.ci/venv dev
	@exec .venv/bin/python -m benchmarks.trial $(if $(N),-n $(N)) $(if $(SEED),--seed $(SEED))

load:           ## 50 questions a second for a minute, over both transports: how fast they are acknowledged, is one lost (MEMORY=10000: does anything grow)
	@.ci/venv dev
	@exec .venv/bin/python -m benchmarks.load $(if $(MEMORY),--memory $(MEMORY))

record:         ## tests/cases/FAULT.json anew from the lab (FAULT=name), to be read by a person
	@.ci/venv dev
	@exec .venv/bin/python -m tests.record $(FAULT)

image:          ## the image, and how large it is (DIGEST=sha256:... of the base; TAG=name; BUILDER=podman or buildah; BASE=image)
	$(or $(BUILDER),docker) build --file deploy/Dockerfile $(if $(BASE),--build-arg PYTHON_IMAGE=$(BASE)) --build-arg PYTHON_DIGEST=$(DIGEST) --tag $(or $(TAG),calico-why:latest) .
	@$(or $(BUILDER),docker) images --format '$(or $(TAG),calico-why:latest): {{.Size}}' $(or $(TAG),calico-why:latest)

image-test:     ## the image built without an engine, on a base made here, and all of its containers run in a lab (root, on Debian)
	@.ci/image

chart:          ## a Helm chart of deploy/ (TO=directory; build/chart)
	@.ci/venv run
	.venv/bin/python deploy/chart.py $(or $(TO),build/chart)

clean:          ## remove .venv and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info build
