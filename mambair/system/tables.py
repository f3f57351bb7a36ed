"""Rows of text as a table: for a terminal, Markdown, CSV, LaTeX; and numbers as strict JSON has them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mambair.system.console import printable

Rows = Sequence[Sequence[str]]

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
}


_MARKDOWN = {"<": "&lt;", ">": "&gt;", "&": "&amp;", **{character: f"\\{character}" for character in "\\|[]`"}}
NOT_FINITE = ("inf", "-inf", "nan")
"""Numbers that JSON lacks, as `jsonable` writes them."""
_FORMULA_STARTS = ("=", "+", "-", "@")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class where it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def aligned(rows: Rows, *, sides: str = "l") -> str:
    """Columns of one width, the first row being the head; control characters are escaped.

    Args:
        sides: "l" or "r" for each column: which side the text stands on; missing ones are "r".
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    signs = ["<" if side == "l" else ">" for side in sides.ljust(len(widths), "r")]
    lines = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return "\n".join(
        "  ".join(f"{cell:{sign}{width}}" for cell, sign, width in zip(line, signs, widths, strict=True)).rstrip()
        for line in lines
    )


def markdown(rows: Rows) -> str:
    """The first row being the head; the first column is text, the others numbers. ``**...**`` is bold."""
    escaped = [[markdown_text(cell) for cell in row] for row in rows]
    escaped.insert(1, ["---", *["---:"] * (len(rows[0]) - 1)])
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)


def markdown_text(text: str) -> str:
    """Text that starts no table cell, HTML, link, picture or code in Markdown, and no link by looking like one."""
    escaped = "".join(_MARKDOWN.get(character, character) for character in printable(text))
    return escaped.replace("://", "&#58;//").replace("www.", "www&#46;")


def latex(rows: Rows, *, caption: str) -> str:
    """A table environment in plain LaTeX, no package needed; cells in ``**...**`` are bold."""
    body = [" & ".join(map(_latex_cell, row)) + r" \\" for row in rows]
    columns = "l" + "r" * (len(rows[0]) - 1)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\hline",
        body[0],
        r"\hline",
        *body[1:],
        r"\hline",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def latex_text(text: str) -> str:
    """Text whose signs mean themselves in LaTeX."""
    return "".join(_LATEX.get(sign, sign) for sign in printable(text))


def _latex_cell(cell: str) -> str:
    if len(cell) > 4 and cell.startswith("**") and cell.endswith("**"):
        return rf"\textbf{{{latex_text(cell[2:-2])}}}"
    # after \\ LaTeX takes [ and * for an argument of it
    return f"{{}}{latex_text(cell)}" if cell.startswith(("[", "*")) else latex_text(cell)


def comma_separated(rows: Sequence[Sequence[object]]) -> str:
    """CSV with a line feed after each row.

    A text that a spreadsheet would run as a formula (it starts with =, @, + or -) gets an apostrophe in front.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(_csv_cell, row) for row in rows)
    return text.getvalue()


def _csv_cell(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    text = printable(cell)
    is_formula = text.lstrip().startswith(_FORMULA_STARTS) and text != "-" and not _is_number(text)
    return f"'{text}" if is_formula else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def jsonable(value: Any) -> Any:
    """The same with the numbers JSON lacks as the texts "inf", "-inf" and "nan"."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): jsonable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(each) for each in value]
    return value
