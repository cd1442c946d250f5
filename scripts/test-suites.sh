#!/usr/bin/env bash
# The tests of the adapters for other environment suites, all or those named, each in a virtual environment of its own under
# .venv-suites, so that their packages cannot disagree. A gigabyte and a few minutes for each; `scripts/test-suites.sh pgx`.
set -euo pipefail
cd "$(dirname "$0")/.."

for suite in ${@:-brax craftax jumanji pgx playground xminigrid}; do
  echo "jaxrl: $suite"
  (
    JAXRL_VENV=".venv-suites/$suite"
    . scripts/environment.sh
    prepare "[test,$suite]"
    "$VENV/bin/python" -m pytest -rA "tests/envs/suites/test_$suite.py"
  )
done
