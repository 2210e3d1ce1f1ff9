# Environment in .venv; every target is at most four lines and CI runs the same ones. A lane that passed says so last.
PYTHON ?= python3
BIN := .venv/bin
# Where this is set, every process compiles all files again.
export PYTHONDONTWRITEBYTECODE :=

# What the lanes of versions run: every command and example, and the tests that touch libraries most.
LANE := tests/smoke tests/test_examples.py tests/test_docs.py tests/policies tests/cli/test_doctor.py \
	tests/connect/test_trl.py tests/connect/test_trl_environments.py tests/core/test_answer_log.py \
	tests/core/test_statistics.py tests/core/test_interruptible.py tests/credit/test_rules.py tests/credit/test_rules_sql.py \
	tests/formats/test_table.py tests/score/test_calibration.py tests/score/test_load.py tests/score/test_packing.py \
	tests/search/test_rebase_and_ets.py tests/serve/test_doors.py tests/serve/test_scoring.py \
	tests/tasks/test_mathematics.py tests/train/test_trainer.py
IN_LANE := -m pytest -n 2 --dist loadfile -W ignore::DeprecationWarning -W ignore::FutureWarning $(LANE)

.PHONY: demo test check docs bench mutants verl ray worlds vllm evals engines deepspeed newest lowest nightly clean

.venv/installed: pyproject.toml src/stepreward/tested.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint src/stepreward/tested.txt torch && $(BIN)/pip install --quiet --constraint src/stepreward/tested.txt --editable '.[all,dev]'
	touch $@

demo: .venv/installed
	$(BIN)/stepreward run --out runs/demo

test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p tests.workers --workers 6 tests

check: .venv/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

docs: .venv/installed
	$(BIN)/mkdocs build --strict

bench: .venv/installed
	$(BIN)/python -m benchmarks

verl: .venv/installed
	test -d .venv/verl || $(BIN)/pip install --quiet --no-deps --target .venv/verl --requirement tests/connect/verl.txt
	OMP_NUM_THREADS=1 PYTHONPATH=.venv/verl:src $(BIN)/python -m pytest -W ignore tests/connect/test_verl_release.py
	$(PYTHON) tests/lanes.py --passed verl

ray: .venv/installed
	test -d .venv/ray || $(BIN)/pip install --quiet --no-deps --target .venv/ray --requirement tests/connect/ray.txt
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/.venv/ray:$(CURDIR)/src $(BIN)/python -m pytest -W ignore tests/connect/test_ray.py
	$(PYTHON) tests/lanes.py --passed ray

worlds: .venv/installed
	test -d .venv/worlds || $(BIN)/pip install --quiet --no-deps --target .venv/worlds --requirement tests/environments/worlds.txt
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/.venv/worlds:$(CURDIR)/src $(BIN)/python -m pytest -W ignore tests/environments
	$(PYTHON) tests/lanes.py --passed worlds

deepspeed: .venv/installed
	test -d .venv/deepspeed || $(BIN)/pip install --quiet --no-deps --no-build-isolation --target .venv/deepspeed --requirement tests/train/deepspeed.txt
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/.venv/deepspeed:$(CURDIR)/src $(BIN)/python -m pytest tests/train/test_deepspeed.py

engines: .venv/installed
	test -d .venv/engines || $(BIN)/pip install --quiet --no-deps --target .venv/engines --requirement tests/connect/engines.txt
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/.venv/engines:$(CURDIR)/src $(BIN)/python -m pytest -W ignore tests/connect/engines
	$(PYTHON) tests/lanes.py --passed engines

vllm: .venv/installed
	test -d .venv/vllm || ($(PYTHON) -m venv .venv/vllm && .venv/vllm/bin/pip install --quiet torch==2.13.0 && .venv/vllm/bin/pip install --quiet --no-deps --requirement tests/connect/vllm.txt && .venv/vllm/bin/pip install --quiet --no-deps --editable .)
	OMP_NUM_THREADS=1 .venv/vllm/bin/python -m pytest tests/connect/test_vllm_release.py tests/connect/test_vllm_on_ray.py tests/connect/test_ray_serve.py
	$(PYTHON) tests/lanes.py --passed vllm

evals: .venv/installed
	test -d .venv/evals || $(BIN)/pip install --quiet --no-deps --target .venv/evals --requirement tests/connect/evals.txt
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/.venv/evals:$(CURDIR)/src $(BIN)/python -m pytest -n 2 tests/connect/test_evaluation_guide.py tests/connect/test_inspect_ai.py tests/connect/test_lm_eval.py
	$(PYTHON) tests/lanes.py --passed evals

# Environments of their own, with the newest and the least versions of what the package needs; it is built into a wheel.
.venv/%/installed: pyproject.toml tests/lanes.txt tests/lowest.txt
	$(PYTHON) -m venv --clear .venv/$* && .venv/$*/bin/pip install --quiet torch==2.13.0
	.venv/$*/bin/pip install --quiet $(RANGE) --requirement tests/lanes.txt '.[all]' && touch $@

newest: .venv/newest/installed
	.venv/newest/bin/pip install --quiet --force-reinstall --no-deps .
	OMP_NUM_THREADS=1 .venv/newest/bin/python $(IN_LANE)
	$(PYTHON) tests/lanes.py --passed newest

lowest: RANGE := --constraint tests/lowest.txt
lowest: .venv/lowest/installed
	.venv/lowest/bin/pip install --quiet --force-reinstall --no-deps .
	OMP_NUM_THREADS=1 .venv/lowest/bin/python $(IN_LANE)
	$(PYTHON) tests/lanes.py --passed lowest

mutants: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants

# All that holds: every example of the random tests, every lane whatever changed, and the tests of the tests.
nightly: export STEPREWARD_TESTS := all
nightly: test check verl ray worlds evals vllm engines deepspeed newest lowest mutants

clean:
	rm -rf .venv runs site
