#!/usr/bin/env bash
# Other circumstances, one after the other: 64-bit types, lowest and newest versions, TF32; .ci/run has only the first. Before a
# release, and after a change of the versions in pyproject.toml. Arguments go to pytest. It goes on after a failure, and fails at
# the end.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=""
for circumstance in x64 lowest newest tf32; do
  echo "jaxrl: $circumstance"
  "scripts/test-$circumstance.sh" "$@" || failed="$failed $circumstance"
done
[ -z "$failed" ] || { echo "jaxrl: failed:$failed" >&2; exit 1; }
