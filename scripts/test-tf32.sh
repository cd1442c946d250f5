#!/usr/bin/env bash
# What scripts/test-gpu.sh runs, on a CPU in place of a GPU: one device, on which all seeds run at once, and which multiplies
# matrices as a GPU does by default (TF32). Arguments go to pytest.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
prepare "[gymnax,test]"
export JAXRL_TEST_TF32=1 JAXRL_TEST_ONE_DEVICE=1
exec "$VENV/bin/python" -m pytest --dist worksteal -n "${JAXRL_TEST_WORKERS:-2}" "${ON_GPU[@]}" "$@"
