#!/usr/bin/env bash
# Run all notebooks with few seeds and steps, and check what they store. Arguments go to pytest, e.g. `-k 01_quickstart`.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
prepare "[gymnax,test]"
exec "$VENV/bin/python" -m pytest -m "slow or not slow" tests/docs/test_notebooks.py "$@"
