#!/usr/bin/env bash
# The core of the suite with the newest releases of all packages, on the newest Python that is there. Arguments go to pytest.
# gymnax does not allow the newest jax; JAXRL_IGNORE_GYMNAX=1 installs that nevertheless, which works so far.
set -euo pipefail
JAXRL_VENV="${JAXRL_VENV:-.venv-newest}"
. "$(dirname "$0")/environment.sh"
[ -x "$VENV/bin/python" ] || "$(find_python python3.14 python3.13 python3.12)" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager --editable ".[test,gymnasium]"
[ -z "${JAXRL_IGNORE_GYMNAX:-}" ] || "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade jax 2> /dev/null
say_versions scripts/test-newest.sh
exec "$VENV/bin/python" -m pytest --dist worksteal -n "${JAXRL_TEST_WORKERS:-2}" "${CORE[@]}" "$@"
