#!/usr/bin/env bash
# What scripts/test-gpu.sh runs, on a CPU that multiplies matrices as a GPU does by default (TF32). Arguments go to pytest.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
prepare "[gymnax,test]"
export JAXRL_TEST_TF32=1
exec "$VENV/bin/python" -m pytest --dist worksteal -n "${JAXRL_TEST_WORKERS:-2}" "${ON_GPU[@]}" "$@"
