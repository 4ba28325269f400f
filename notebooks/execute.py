"""Run notebooks from top to bottom and keep their outputs.

    python notebooks/execute.py [--check] [NAME ...]
    python notebooks/execute.py --pair pair.yaml [--oracles FOLDER] [--fewer 10] [--cells A,B] [--template plain] [NAME ...]

With --check nothing is written: the run only has to succeed. Cells run with one thread, in a scratch folder. With --pair
the cell that names the pair names this one instead, nothing is written, and numbers of items are divided by --fewer.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Other:
    """What the cell that names the pair says instead.

    Attributes:
        pair: file of a pair.
        oracles: folder of the adapters oracle/ and oracle_prior/ on the base of the pair; "" for none.
        fewer: numbers of items are divided by this.
        cells: only these cells of the grid are asked; none: all.
        template: as of `interp.load`.
    """

    pair: Path
    oracles: str = ""
    fewer: int = 1
    cells: tuple[str, ...] = ()
    template: str = "own"

    def lines(self) -> dict[str, str]:
        """Beginning of a line of a notebook -> the line that replaces it."""
        made = "[Checkpoint(n, pair.engaged.base, f'{folder}/{n}') for n in ('oracle', 'oracle_prior')]"
        return {
            "pair = ": f"from interp.checkpoint import CheckpointPair; pair = CheckpointPair.from_yaml({str(self.pair)!r})",
            "loading = ": f"loading = {{'template': {self.template!r}}}",
            "fewer = ": f"fewer = {self.fewer}",
            "cells = ": f"cells = {list(self.cells) or None}",
            "oracle, prior = ": f"from interp.checkpoint import Checkpoint; folder = {self.oracles!r}; "
            f"oracle, prior = {made}",
        }

    def put(self, source: str) -> str:
        """A cell with these lines."""
        lines = self.lines()
        return "\n".join(
            next((new for start, new in lines.items() if line.startswith(start)), line) for line in source.split("\n")
        )


def execute(path: Path, *, keep: bool, other: Other | None = None) -> None:
    """Run one notebook; with `keep` write it back with its outputs, without times, ids of runs or machine paths.

    Raises:
        ValueError: `other` in a notebook that names no pair.
        nbclient.exceptions.CellExecutionError: a cell failed; the error shows it.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    if other is not None:
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        if not any("pair = embedded_pair()" in cell.source for cell in cells):
            raise ValueError(f"{path.name} names no pair. Leave it out.")
        for cell in cells:
            cell.source = other.put(cell.source)
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
    parser.add_argument("--pair", type=Path)
    parser.add_argument("--oracles", default="")
    parser.add_argument("--fewer", type=int, default=1)
    parser.add_argument("--cells", type=lambda text: tuple(text.split(",")), default=())
    parser.add_argument("--template", choices=("own", "plain"), default="own")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    other = None
    if options.pair is not None:
        oracles = str(Path(options.oracles).resolve()) if options.oracles else ""
        other = Other(options.pair.resolve(), oracles, options.fewer, options.cells, options.template)
    for path in sorted(HERE.glob("*.ipynb")):
        if not options.names or path.stem in options.names:
            print(path.name, file=sys.stderr, flush=True)
            execute(path, keep=not options.check and other is None, other=other)
    return 0


if __name__ == "__main__":
    sys.exit(main())
