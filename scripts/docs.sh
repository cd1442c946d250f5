#!/usr/bin/env bash
# Build the documentation site in build/site, which opens without a server and without a network. Any warning is an error, such as
# a page that is not in the navigation or a dead link. Arguments go to mkdocs; `scripts/docs.sh serve` shows the site while you write.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
# An environment of its own: it needs neither jax nor jaxrl, whose docstrings are read and not run.
VENV="${JAXRL_VENV:-.venv-docs}"
export NO_MKDOCS_2_WARNING=1 # an advertisement of the theme

[ -x "$VENV/bin/python" ] || "$(find_python)" -m venv "$VENV"
# The packages of the extra `docs`, without jaxrl itself
required=$("$VENV/bin/python" -c '
import pathlib, tomllib
print(*tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]["optional-dependencies"]["docs"], sep="\n")')
if [ "$required" != "$(cat "$VENV/installed.txt" 2> /dev/null)" ]; then
  echo "$required" > "$VENV/required.txt"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r "$VENV/required.txt" \
    || fail "could not install the packages; is there a connection to a package index?"
  mv "$VENV/required.txt" "$VENV/installed.txt"
fi

[ "${1:-build}" = build ] || exec "$VENV/bin/mkdocs" "$@"
"$VENV/bin/mkdocs" build --strict "${@:2}"
"$VENV/bin/python" scripts/check_site.py build/site
echo "jaxrl: build/site/index.html"
