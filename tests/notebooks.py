"""Runs a notebook's cells as Jupyter would: in order, in one namespace, the last expression of each shown.

python tests/notebooks.py examples/retries.ipynb            # prints the notebook with its outputs
python tests/notebooks.py examples/retries.ipynb --write    # and keeps it
"""

from __future__ import annotations

import ast
import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

Notebook = dict[str, Any]


def run(notebook: Notebook) -> None:
    """Run all code cells, and put what they print and show in place of their outputs.

    Raises:
        Exception: what a cell raises.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    number = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        number += 1
        cell["execution_count"] = number
        cell["outputs"] = _outputs("".join(cell["source"]), names, number)


def _outputs(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    tree = ast.parse(source)
    shown: object = None
    printed = io.StringIO()
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with redirect_stdout(printed):
        exec(compile(tree, f"cell {number}", "exec"), names)
        if isinstance(last, ast.Expr):
            shown = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)})
    if shown is not None:
        pictured = getattr(shown, "_repr_svg_", None)
        data = {"image/svg+xml": [pictured()]} if pictured else {"text/plain": [repr(shown)]}
        result = {"data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result"}
        outputs.append(result)
    return outputs


def main(file: Path, *, write: bool) -> None:
    """Run a notebook that is a file."""
    notebook: Notebook = json.loads(file.read_text(encoding="utf-8"))
    run(notebook)
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    if write:
        file.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), write="--write" in sys.argv)
