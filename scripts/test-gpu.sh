#!/usr/bin/env bash
# The tests of the core on a GPU, in eight processes that share it. Arguments go to pytest.
#
# It needs Python and a GPU with its driver. If the environment in $JAXRL_VENV, or without that variable the Python in PATH, has all
# packages and finds the GPU, the tests run there, and nothing is installed: not even jaxrl, which is on the path. Otherwise an
# environment is made with JAX for CUDA, which needs a package index. Programs are compiled without autotuning, which takes most of
# a GPU's compile time and none of these tests needs.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
export XLA_PYTHON_CLIENT_PREALLOCATE=false
export XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_autotune_level=0"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

can_run() { # a Python
  local told
  told=$("$1" -c '
import chex, cloudpickle, flax, gymnax, hypothesis, jax, numpy, optax, psutil, pytest, scipy, sys, xdist
if jax.default_backend() != "gpu": sys.exit("JAX finds no GPU")' 2>&1) && return
  echo "jaxrl: $1 cannot run these tests: ${told##*$'\n'}" >&2
  return 1
}

has_plugin() { # a second one, of another version of CUDA, would be in its way
  "$VENV/bin/python" -c '
import pkgutil, sys
sys.exit(not any(module.name.startswith("jax_cuda") for module in pkgutil.iter_modules()))' 2> /dev/null
}

if [ -x "$VENV/bin/python" ] && can_run "$VENV/bin/python"; then
  python="$VENV/bin/python"
elif [ -z "${JAXRL_VENV:-}" ] && python=$(find_python) && can_run "$python"; then
  echo "jaxrl: testing with $python, which has what the tests need"
else
  python="$VENV/bin/python"
  if has_plugin; then prepare "[gymnax,test]"; else prepare "[gymnax,test,cuda]"; fi
  can_run "$python" || exit 1
fi
exec "$python" -m pytest --dist worksteal -n "${JAXRL_TEST_WORKERS:-8}" "${ON_GPU[@]}" "$@"
