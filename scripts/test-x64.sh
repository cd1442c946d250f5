#!/usr/bin/env bash
# The core of the suite with 64-bit types enabled. Arguments go to pytest.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
prepare "[gymnax,test]"
export JAX_ENABLE_X64=1
exec "$VENV/bin/python" -m pytest --dist worksteal -n "${JAXRL_TEST_WORKERS:-2}" "${CORE[@]}" "$@"
