#!/usr/bin/env bash
# Makes .venv-bench in the clone, with jaxrl and all its peers. One environment is enough, for their pins agree with ours. With
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu PyTorch comes without its libraries for GPUs, which nothing here needs.
set -euo pipefail
JAXRL_VENV="${JAXRL_VENV:-.venv-bench}"
. "$(dirname "$0")/../scripts/environment.sh"
prepare "[bench]"
echo "jaxrl: now $VENV/bin/python benchmarks/run.py --quick"
