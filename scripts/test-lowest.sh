#!/usr/bin/env bash
# The core of the suite with the lowest versions that pyproject.toml allows, on Python 3.12 if it is there. Arguments go to pytest.
# The environment is .venv-lowest; a requirement `NAME>=X` is installed as NAME==X.
set -euo pipefail
JAXRL_VENV="${JAXRL_VENV:-.venv-lowest}"
. "$(dirname "$0")/environment.sh"
[ -x "$VENV/bin/python" ] || "$(find_python python3.12)" -m venv "$VENV"
# pyparsing: with a later one, matplotlib of that time warns.
"$VENV/bin/python" - > "$VENV/lowest.txt" <<'END'
import pathlib, re, tomllib
project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
lowest = [re.sub(r">=([^,]+).*", r"==\1", requirement) for requirement in project["dependencies"]]
print(*lowest, *project["optional-dependencies"]["gymnax"], "pyparsing<3.3", sep="\n")
END
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r "$VENV/lowest.txt" --editable ".[test,gymnasium]"
say_versions scripts/test-lowest.sh
exec "$VENV/bin/python" -m pytest --dist worksteal -n "${JAXRL_TEST_WORKERS:-2}" "${CORE[@]}" "$@"
