#!/usr/bin/env bash
# Creates .venv-bench in the clone, with jaxrl and all its peers. One environment is enough, since their pinned versions agree.
# With PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu, PyTorch is installed without its GPU libraries, which are unused.
set -euo pipefail
JAXRL_VENV="${JAXRL_VENV:-.venv-bench}"
. "$(dirname "$0")/../scripts/environment.sh"
prepare "[bench]"
echo "jaxrl: now $VENV/bin/python benchmarks/run.py --quick"
