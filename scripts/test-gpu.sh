#!/usr/bin/env bash
# The tests of the core on a GPU, in eight processes that share it. Arguments go to pytest.
#
# It needs Python and a GPU with its driver: without an environment in $JAXRL_VENV, one is made with JAX for CUDA. Programs are
# compiled without autotuning, which takes most of a GPU's compile time and none of these tests needs.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
prepare "[gymnax,test,cuda]"
export XLA_PYTHON_CLIENT_PREALLOCATE=false
export XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_autotune_level=0"
"$VENV/bin/python" -c 'import jax; assert jax.default_backend() == "gpu", jax.devices()' || fail "JAX finds no GPU here"
exec "$VENV/bin/python" -m pytest --dist worksteal -n "${JAXRL_TEST_WORKERS:-8}" "${ON_GPU[@]}" "$@"
