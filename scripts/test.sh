#!/usr/bin/env bash
# In a fresh clone: set up and run the tests. Arguments go to pytest.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
prepare "[gymnax,test]"
exec "$VENV/bin/python" -m pytest --dist worksteal -n "${JAXRL_TEST_WORKERS:-2}" "$@"
