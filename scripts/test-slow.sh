#!/usr/bin/env bash
# The tests that take minutes. Arguments go to pytest.
set -euo pipefail
exec "$(dirname "$0")/test.sh" -m slow "$@"
