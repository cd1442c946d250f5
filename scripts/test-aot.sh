#!/usr/bin/env bash
# Compile training runs for a GPU and a TPU, without the devices, and test what they launch. Arguments go to pytest: `-m slow` runs
# the tests that take minutes. `scripts/test-aot.sh --print` prints all counts instead. The compilers (0.7 GB) are installed in
# .aot, next to the environment.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
prepare "[gymnax,test]"

required() { # the requirement of the installed jax whose name begins with $1
  "$VENV/bin/python" -c '
import importlib.metadata, sys
print(next(r.split(";")[0].replace("[with-cuda]", "") for r in importlib.metadata.requires("jax") if r.startswith(sys.argv[1])))' "$1"
}

# Folders of their own on the path, not the environment itself: with a plugin installed, JAX warns of the missing device.
install() { # folder, requirements
  local folder="$1"
  shift
  [ ! -e "$folder/installed" ] || [ "$(cat "$folder/installed")" != "$*" ] || return 0
  rm -rf "$folder"
  echo "jaxrl: installing $* into $folder"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder" "$@" \
    || fail "could not install the compilers; is there a connection to a package index?"
  echo "$*" > "$folder/installed"
}

version=$("$VENV/bin/python" -c 'import jax; print(jax.__version__)')
install .aot/cuda "jax-cuda12-plugin==$version" "jax-cuda12-pjrt==$version" nvidia-cuda-nvcc-cu12
install .aot/tpu "$(required libtpu)"

# There is no device to look for, and no driver whose version would have to fit.
export JAX_PLATFORMS=cpu JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1 TPU_SKIP_MDS_QUERY=1 TF_CPP_MIN_LOG_LEVEL=3
export JAX_ENABLE_COMPILATION_CACHE=false # it can store what was compiled for another device, and not read it back
for compiler in cuda tpu; do
  export PYTHONPATH="$PWD/.aot/$compiler:$PWD"
  "$VENV/bin/python" -c "
import sys
from benchmarks import launches
sys.exit(not any(launches.available(device) for device in launches.COMPILERS))" || fail "the compiler in .aot/$compiler does not work"
  if [ "${1:-}" = --print ]; then
    "$VENV/bin/python" benchmarks/launches.py
    "$VENV/bin/python" benchmarks/traffic.py
  else
    "$VENV/bin/python" -m pytest tests/test_aot.py -p no:cacheprovider "$@"
  fi
done
