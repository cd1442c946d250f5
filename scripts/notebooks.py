"""Run the notebooks from top to bottom and store what they show.

    python scripts/notebooks.py                    # all of them
    python scripts/notebooks.py 01_quickstart      # one

The notebooks are their own source: edit them in Jupyter, then run this, so that their outputs come from one clean run. It needs
the extra `notebooks`. `JAXRL_NOTEBOOK_SCALE=0.05 python scripts/notebooks.py --check` runs small versions and stores nothing.
"""

import argparse
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path) -> nbformat.NotebookNode:
    """Run a notebook in a kernel of this Python, with this clone's jaxrl; raises CellExecutionError at the first error."""
    notebook = nbformat.read(path, as_version=4)
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    client = NotebookClient(notebook, timeout=1800, record_timing=False, resources={"metadata": {"path": str(path.parent)}})
    client.execute(env=env)
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 01_quickstart; by default all")
    parser.add_argument("--check", action="store_true", help="store nothing")
    args = parser.parse_args()
    if unknown := set(args.names) - {path.stem for path in NOTEBOOKS}:
        parser.error(f"there is no notebook {', '.join(sorted(unknown))}; there are {', '.join(p.stem for p in NOTEBOOKS)}")
    for path in [path for path in NOTEBOOKS if path.stem in args.names or not args.names]:
        print(path.stem, flush=True)
        notebook = execute(path)
        if not args.check:
            nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
