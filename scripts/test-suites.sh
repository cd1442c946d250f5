#!/usr/bin/env bash
# Test the adapters for other environment suites, all or those named, e.g. `scripts/test-suites.sh pgx`. Each suite gets its own
# virtual environment in .venv-suites, so that their packages cannot conflict: about a gigabyte and a few minutes for each.
set -euo pipefail
cd "$(dirname "$0")/.."

for suite in ${@:-brax craftax jumanji pgx playground xminigrid}; do
  echo "jaxrl: $suite"
  (
    JAXRL_VENV=".venv-suites/$suite"
    . scripts/environment.sh
    prepare "[gymnax,test,$suite]"
    "$VENV/bin/python" -m pytest -rA "tests/envs/suites/test_$suite.py"
  )
done
