# Sourced by the other scripts: creates .venv in the clone and installs jaxrl with the extras in $1.
# Does nothing if that was already done for this pyproject.toml. Only one process at a time does it.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV="${JAXRL_VENV:-.venv}"

fail() {
  echo "jaxrl: $*" >&2
  exit 1
}

find_python() {  # the first that runs of $PYTHON, the arguments and the usual names; pyenv has names of versions that do not
  local candidate
  for candidate in "${PYTHON:-}" "$@" python3 python3.13 python3.12 python3.11; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

set_up() {
  local python stamp
  stamp="$(cksum pyproject.toml) $PWD $1"
  # What was installed with more extras will do: without its last bracket, $1 matches every line that starts like it.
  if grep -qF -- "${stamp%]}" "$VENV/.jaxrl-installed" 2> /dev/null; then return 0; fi
  if [ ! -x "$VENV/bin/python" ]; then
    python=$(find_python) || fail "needs Python 3.11 or newer, and found none. On Debian: apt install python3 python3-venv"
    "$python" -c 'import venv, ensurepip' 2>/dev/null \
      || fail "$python has no venv module. On Debian: apt install python3-venv"
    echo "jaxrl: making a virtual environment in $VENV ($("$python" --version))"
    "$python" -m venv "$VENV" || fail "could not make a virtual environment in $VENV; remove that folder and try again"
  fi
  echo "jaxrl: installing jaxrl and what it needs into $VENV (a few minutes the first time)"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".$1" \
    || fail "could not install the packages; is there a connection to a package index?"
  echo "$stamp" >> "$VENV/.jaxrl-installed"
}

prepare() {
  if command -v flock > /dev/null; then
    exec 9> "${TMPDIR:-/tmp}/jaxrl-$(echo "$PWD/$VENV" | cksum | cut -d' ' -f1).lock"
    flock 9
    set_up "$1"
    exec 9>&-
  else
    set_up "$1"
  fi
}

say_versions() { # what is tested, and a warning if it is not what docs/install.md names for the script $1
  local told named
  told=$("$VENV/bin/python" -c 'import sys
from importlib.metadata import version
print("Python %d.%d" % sys.version_info[:2], *(f"{name} {version(name)}" for name in ("jax", "flax", "optax", "numpy")), sep=", ")')
  echo "jaxrl: testing with $told"
  named=$(awk -F ' *[|] *' -v script="\`$1\`" '$6 == script {print "Python " $3 ", jax " $4}' docs/install.md)
  [[ "$told" == "$named, "* ]] || echo "jaxrl: WARNING: docs/install.md names $named for this test. If the Python is another," \
    "remove $VENV and put PYTHON=/path/to/python in front of $1" >&2
}

# What scripts/test-lowest.sh, test-newest.sh and test-x64.sh run: the core of the suite. Of the contract of agents, they run that
# each one trains, keeps its dtypes and can be pickled. The rest of it compiles most of the programs, and depends less on versions.
CONTRACT=tests/agents/test_contract.py
CORE=(
  tests/test_{imports,learner,rollout,dynamic_programming,normalization}.py tests/losses tests/returns tests/replay/test_uniform.py
  "$CONTRACT"::test_{a_run_is_finite_and_reports_exactly_its_metrics,a_step_keeps_shapes_dtypes_and_strong_types,it_can_be_pickled}
  tests/agents/test_{dqn,reinforce}.py tests/experiment/test_policies.py tests/envs/problems/test_point_mass.py
  tests/envs/suites/test_{gymnax,gymnasium}.py
)

# What scripts/test-gpu.sh runs, and scripts/test-tf32.sh on a CPU: everything that multiplies matrices or is compiled differently.
ON_GPU=(
  tests/agents tests/test_{learner,rollout,vectorization,optimizers,minibatches,normalization,policies,networks}.py
  tests/test_{recurrence,distributions,dynamic_programming}.py tests/losses tests/returns tests/replay
)
