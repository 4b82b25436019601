"""What could be written in place of what is written: the mutants of one module, made by mutmut's operators."""

from __future__ import annotations

import ast
import difflib
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import create_mutations

from mutation import PROJECT, path_of

if TYPE_CHECKING:
    from collections.abc import Iterator


class Mutant(NamedTuple):
    """One change of one function.

    Attributes:
        module: the module, by its name within the package.
        function: the function or method, as ``f`` or ``Class.f``. One inside another is a part of that.
        lines: the first and the last line of the file that the function takes, its decorators included.
        statement: the first and the last line of the statement that is changed.
        was: the lines that are changed, stripped and joined.
        now: what they are changed to.
        source: the function as it is now, in its class, without decorators.
    """

    module: str
    function: str
    lines: tuple[int, int]
    statement: tuple[int, int]
    was: str
    now: str
    source: str


def mutants_of(module: str) -> Iterator[Mutant]:
    """Every mutant of a module, from its top to its end."""
    path = path_of(module)
    source = path.read_text()
    tree = ast.parse(source)
    # mutmut leaves decorated functions out, since it would have to decorate its copies.
    bare = _without_decorators(source, tree)
    parsed, mutations, _, _ = create_mutations(str(path.relative_to(PROJECT)), bare)
    positions = MetadataWrapper(parsed, unsafe_skip_copy=True).resolve(PositionProvider)
    owners = _owners(parsed)
    spans = _spans(tree)
    statements = _statements(tree)
    for mutation in mutations:
        function = mutation.contained_by_top_level_function
        if not isinstance(function, cst.FunctionDef):
            continue
        owner = owners[function]
        changed = function.deep_replace(mutation.original_node, mutation.mutated_node)
        before, after = _code(function, owner), _code(changed, owner)
        offset, was, now = _difference(before, after)
        name = function.name.value
        first = positions[function.name].start.line
        # Lines of the text made above, counted from the line of the `def` in both.
        line = first + offset - _line_of_def(before)
        statement = _smallest(statements, max(line, first))
        yield Mutant(
            module,
            f"{owner.name.value}.{name}" if owner else name,
            spans[first],
            # What stands in its head counts for all of a function.
            spans[first] if statement[0] == first else statement,
            was,
            now,
            after,
        )


def _without_decorators(source: str, tree: ast.Module) -> str:
    """The same text with empty lines in place of the decorators of functions."""
    lines = source.split("\n")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                for number in range(decorator.lineno, (decorator.end_lineno or decorator.lineno) + 1):
                    lines[number - 1] = ""
    return "\n".join(lines)


def _owners(parsed: cst.Module) -> dict[cst.FunctionDef, cst.ClassDef | None]:
    """The functions of a module, and the class of those that are methods."""
    found: dict[cst.FunctionDef, cst.ClassDef | None] = {}
    for node in parsed.body:
        if isinstance(node, cst.FunctionDef):
            found[node] = None
        elif isinstance(node, cst.ClassDef):
            found.update({child: node for child in node.body.body if isinstance(child, cst.FunctionDef)})
    return found


def _spans(tree: ast.Module) -> dict[int, tuple[int, int]]:
    """By the line of its ``def``, the lines that a function takes."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.lineno] = (first, node.end_lineno or node.lineno)
    return found


def _statements(tree: ast.Module) -> dict[int, tuple[int, int]]:
    """By line, the smallest statement that takes it; of one that has others inside, its head alone."""
    found: dict[int, tuple[int, int]] = {}
    sizes: dict[int, int] = defaultdict(lambda: 1 << 30)
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt | ast.match_case | ast.ExceptHandler):
            continue
        body = getattr(node, "body", None)
        first = node.pattern.lineno if isinstance(node, ast.match_case) else node.lineno
        last = node.end_lineno or first if not body else max(first, body[0].lineno - 1)  # type: ignore[union-attr]
        for line in range(first, last + 1):
            if last - first < sizes[line]:
                sizes[line] = last - first
                found[line] = (first, last)
    return found


def _smallest(statements: dict[int, tuple[int, int]], line: int) -> tuple[int, int]:
    """The statement that takes a line, or the next one after it."""
    while line not in statements and line < max(statements):
        line += 1
    return statements[line]


def _code(function: cst.FunctionDef, owner: cst.ClassDef | None) -> str:
    """The text of a function; of a method, in a class of the same name, for the names that start with ``__``."""
    function = function.with_changes(leading_lines=[])
    if owner is None:
        return cst.Module([function]).code
    return cst.Module([cst.ClassDef(owner.name, cst.IndentedBlock([function]))]).code


def _line_of_def(text: str) -> int:
    """The line that holds the first ``def``, from 0."""
    return next(number for number, line in enumerate(text.splitlines()) if "def " in line)


def _difference(before: str, after: str) -> tuple[int, str, str]:
    """Where two texts begin to differ, from 0; the lines of the one, and those of the other."""
    old, new = before.splitlines(), after.splitlines()
    was: list[str] = []
    now: list[str] = []
    start = None
    for kind, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            start = i1 if start is None else start
            was += old[i1:i2]
            now += new[j1:j2]
    return start or 0, _joined(was), _joined(now)


def _joined(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines)
