#!/usr/bin/env bash
# The tests that need packages of other extras (Optuna, ONNX, TensorBoard, wandb, MLflow, shell completion) or rlax, which
# scripts/test.sh skips. Here a missing package is a failure. Arguments go to pytest. The environment is .venv-extras: 2 GB.
set -euo pipefail
JAXRL_VENV="${JAXRL_VENV:-.venv-extras}"
. "$(dirname "$0")/environment.sh"
prepare "[test,optuna,export,onnx,tensorboard,wandb,mlflow,completion]"
"$VENV/bin/python" -c 'import importlib.metadata as m; m.version("rlax")' 2> /dev/null \
  || "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check rlax
export JAXRL_TEST_EXTRAS=1
exec "$VENV/bin/python" -m pytest -m needs --dist worksteal -n "${JAXRL_TEST_WORKERS:-2}" tests --ignore tests/envs/suites "$@"
