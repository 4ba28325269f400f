"""Run notebooks from top to bottom and keep their outputs.

    python notebooks/execute.py [--check] [NAME ...]

With --check nothing is written: the run only has to succeed. Cells run with one thread, in a scratch folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def execute(path: Path, *, keep: bool) -> None:
    """Run one notebook; with `keep` write it back with its outputs, without times, ids of runs or machine paths.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; the error shows it.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(HERE.parent)}
    with tempfile.TemporaryDirectory() as scratch:
        NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": scratch}}
        ).execute()
    if not keep:
        return
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(notebook, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    for path in sorted(HERE.glob("*.ipynb")):
        if not options.names or path.stem in options.names:
            print(path.name, file=sys.stderr, flush=True)
            execute(path, keep=not options.check)
    return 0


if __name__ == "__main__":
    sys.exit(main())
