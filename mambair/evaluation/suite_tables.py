"""A run's results as text, Markdown, CSV, LaTeX and JSON, with the protocol and the printed numbers beside ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mambair.evaluation.published import Score
from mambair.evaluation.summary import SetScore, Summary, parameters_of
from mambair.system.atomic_file import atomic_path
from mambair.system.tables import aligned, comma_separated, jsonable, latex, markdown, printable

MEASURED, PRINTED = "measured", "printed"
MEAN = "mean"


def title(summary: Summary, level: int) -> str:
    """``Super-resolution x4``."""
    suite = summary.plan.suite
    return f"{suite.title} {suite.degree(level)}"


def protocol(summary: Summary, level: int) -> str:
    """How the numbers of a level came to be, in one sentence."""
    return f"{summary.plan.suite.protocol(level)}, {summary.plan.tiles}"


def level_rows(summary: Summary, level: int, *, decorate: bool = False) -> list[list[str]]:
    """Header, a row for each method measured, a row for each printed one; a set is one column ``PSNR / SSIM``.

    Args:
        decorate: put the best measured result of each set between ``**``.
    """
    sets = summary.sets(level)
    rows = [["method", "parameters", *(_set_title(summary, level, name) for name in sets)]]
    best = {name: _best(summary, level, name) for name in sets} if decorate else {}
    for method in summary.methods(level):
        cells = [(name, summary.cell(level, name, method.name)) for name in sets]
        texts = [f"**{_pair(cell)}**" if best.get(name) == method.name else _pair(cell) for name, cell in cells]
        rows.append([method.name, _count(method.parameters), *texts])
    upscale = summary.plan.suite.upscale(level)
    for row in summary.printed(level):
        if any(name in row.scores for name in sets):
            texts = [_score(row.scores.get(name)) for name in sets]
            rows.append([f"{row.name} ({PRINTED})", _count(parameters_of(row, upscale)), *texts])
    return rows


def difference_rows(summary: Summary, level: int) -> list[list[str]]:
    """Header, and for each network and set: ours, the printed one, the difference; only the header if there is none."""
    rows = [["network", "set", "PSNR", PRINTED, "difference", "SSIM", PRINTED, "difference", "compared with"]]
    for method in summary.methods(level):
        for name in summary.sets(level):
            found, cell = summary.comparison(level, name, method), summary.cell(level, name, method.name)
            if found is None or cell is None:
                continue
            relation = f"{found.reference}, {found.relation}"
            printed_ssim = "-" if found.printed.ssim is None else f"{found.printed.ssim:.4f}"
            ours = [f"{cell.psnr:.2f}", f"{found.printed.psnr:.2f}", _signed(found.psnr, 2)]
            ours += [f"{cell.ssim:.4f}", printed_ssim, _signed(found.ssim, 4)]
            rows.append([method.name, name, *ours, f"{relation}; {found.remark}" if found.remark else relation])
    return rows


def time_rows(summary: Summary, level: int) -> list[list[str]]:
    """Header, and the mean seconds an image takes, by network and set."""
    sets = summary.sets(level)
    rows = [["network", *(f"{name}: s an image" for name in sets)]]
    for method in summary.methods(level):
        if method.parameters is not None:
            cells = [summary.cell(level, name, method.name) for name in sets]
            rows.append([method.name, *("-" if cell is None else f"{cell.seconds:.3f}" for cell in cells)])
    return rows


def image_rows(summary: Summary, level: int, dataset: str) -> list[list[str]]:
    """Header, a row for each image and the mean; a method is one column."""
    methods = summary.methods(level)
    columns = [
        {m.image: _pair(SetScore(m.psnr, m.ssim, m.seconds, 1)) for m in summary.images(level, dataset, method.name)}
        for method in methods
    ]
    images = list(dict.fromkeys(image for column in columns for image in column))
    rows = [["image", *(method.name for method in methods)]]
    rows += [[printable(image), *(column.get(image, "-") for column in columns)] for image in images]
    return [*rows, [MEAN, *(_pair(summary.cell(level, dataset, method.name)) for method in methods)]]


def remarks(summary: Summary) -> list[str]:
    """Where inputs come from, what is missing or failed, the machine."""
    found = []
    for (level, name), image_set in summary.results.image_sets.items():
        found.append(f"{name} {summary.plan.suite.degree(level)}: {len(image_set.paths)} images, {image_set.made}")
    found += [f"missing: {reason}" for reason in summary.results.missing.values()]
    found += [f"failed: {printable(reason)}" for reason in summary.results.failed]
    return [*found, *(f"measured on {machine}" for machine in summary.machines())]


def as_text(summary: Summary) -> str:
    """For a terminal: the tables of means with their protocol, without the single images."""
    parts = []
    for level in summary.levels():
        parts += [f"{title(summary, level)}\n{protocol(summary, level)}", aligned(level_rows(summary, level))]
        differences = difference_rows(summary, level)
        if len(differences) > 1:
            parts.append(aligned(differences, sides="llrrrrrrl"))
    return "\n\n".join([*parts, "\n".join(remarks(summary))]) + "\n"


def as_markdown(summary: Summary) -> str:
    """Everything: means, differences, times, single images."""
    parts = [f"# {summary.plan.suite.title}: measured results"]
    for level in summary.levels():
        parts += [f"## {title(summary, level)}", protocol(summary, level) + "."]
        parts.append(markdown(level_rows(summary, level, decorate=True)))
        for rows, head in ((difference_rows(summary, level), "printed numbers"), (time_rows(summary, level), "time")):
            if len(rows) > 1:
                parts += [f"### {title(summary, level)}: {head}", markdown(rows)]
        for name in summary.sets(level):
            parts += [f"### {name}, {title(summary, level)}: images", markdown(image_rows(summary, level, name))]
    parts += ["## Remarks", "\n".join(f"- {remark}" for remark in remarks(summary))]
    return "\n\n".join(parts) + "\n"


def as_latex(summary: Summary) -> str:
    """One table of means for each level, the best of each set in bold."""
    tables = [
        latex(
            level_rows(summary, level, decorate=True),
            caption=f"{title(summary, level)}. {protocol(summary, level)}. {'; '.join(summary.machines())}.",
        )
        for level in summary.levels()
    ]
    return "\n\n".join(tables) + "\n"


def sets_as_csv(summary: Summary) -> str:
    """A row for each level, set and method, measured or printed, with the protocol."""
    suite = summary.plan.suite
    head = [
        "suite",
        suite.level,
        "set",
        "method",
        "source",
        "images",
        "parameters",
        "psnr",
        "ssim",
        "seconds_per_image",
    ]
    rows: list[list[object]] = [
        [*head, "compared_with", "psnr_difference", "ssim_difference", "protocol"],
    ]
    for level in summary.levels():
        told, upscale = protocol(summary, level), suite.upscale(level)
        for name in summary.sets(level):
            for method in summary.methods(level):
                cell = summary.cell(level, name, method.name)
                if cell is None:
                    continue
                found = summary.comparison(level, name, method)
                compared = ["", "", ""] if found is None else [found.reference, _known(found.psnr), _known(found.ssim)]
                figures = [cell.images, _known(method.parameters), cell.psnr, cell.ssim, cell.seconds]
                rows.append([suite.name, level, name, method.name, MEASURED, *figures, *compared, told])
            for row in summary.printed(level):
                if name in row.scores:
                    score = row.scores[name]
                    figures = ["", _known(parameters_of(row, upscale)), score.psnr, _known(score.ssim), ""]
                    rows.append([suite.name, level, name, row.name, PRINTED, *figures, "", "", "", row.about])
    return comma_separated(rows)


def images_as_csv(summary: Summary) -> str:
    """A row for each image and method."""
    suite = summary.plan.suite
    rows: list[list[object]] = [
        ["suite", suite.level, "set", "image", "method", "psnr", "ssim", "seconds", "protocol", "machine"]
    ]
    for m in summary.results.measurements:
        figures = [m.psnr, m.ssim, m.seconds, protocol(summary, m.level), m.machine]
        rows.append([suite.name, m.level, m.dataset, printable(m.image), m.method, *figures])
    return comma_separated(rows)


def as_json(summary: Summary) -> str:
    """All digits; numbers JSON lacks are the texts "inf" and "nan"."""
    content = {
        "suite": summary.plan.suite.name,
        "levels": [_level_content(summary, level) for level in summary.levels()],
        "missing": summary.results.missing,
        "failed": summary.results.failed,
        "machines": summary.machines(),
    }
    return json.dumps(jsonable(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


FILES: dict[str, Callable[[Summary], str]] = {
    "results.md": as_markdown,
    "results.json": as_json,
    "results.tex": as_latex,
    "results_per_set.csv": sets_as_csv,
    "results_per_image.csv": images_as_csv,
}


def write_tables(summary: Summary, folder: Path) -> list[Path]:
    """Write every file of ``FILES`` into ``folder``, each at once or not at all; returns their paths."""
    written = []
    for name, render in FILES.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(render(summary), encoding="utf-8", newline="\n")
        written.append(folder / name)
    return written


def _level_content(summary: Summary, level: int) -> dict[str, Any]:
    suite = summary.plan.suite
    return {
        suite.level: level,
        "protocol": protocol(summary, level),
        "metrics": suite.metrics(level),
        "printed": {
            row.name: {"about": row.about, "scores": {name: vars(score) for name, score in row.scores.items()}}
            for row in summary.printed(level)
        },
        "sets": [_set_content(summary, level, name) for name in summary.sets(level)],
    }


def _set_content(summary: Summary, level: int, name: str) -> dict[str, Any]:
    image_set = summary.results.image_sets[level, name]
    methods = {}
    for method in summary.methods(level):
        cell, found = summary.cell(level, name, method.name), summary.comparison(level, name, method)
        if cell is not None:
            images = [vars(m) for m in summary.images(level, name, method.name)]
            methods[method.name] = {
                "parameters": method.parameters,
                "mean": vars(cell),
                "comparison": None if found is None else {**vars(found), "printed": vars(found.printed)},
                "images": images,
            }
    return {
        "name": name,
        "images": len(image_set.paths),
        "is_complete": image_set.is_complete,
        "inputs": image_set.made,
        "methods": methods,
    }


def _set_title(summary: Summary, level: int, name: str) -> str:
    return f"{name} ({len(summary.results.image_sets[level, name].paths)})"


def _best(summary: Summary, level: int, name: str) -> str | None:
    cells = {method.name: summary.cell(level, name, method.name) for method in summary.methods(level)}
    scores = {method: cell.psnr for method, cell in cells.items() if cell is not None and cell.psnr == cell.psnr}
    return max(scores, key=scores.__getitem__) if scores else None


def _pair(cell: SetScore | None) -> str:
    return "-" if cell is None else f"{cell.psnr:.2f} / {cell.ssim:.4f}"


def _score(score: Score | None) -> str:
    if score is None:
        return "-"
    return f"{score.psnr:.2f}" if score.ssim is None else f"{score.psnr:.2f} / {score.ssim:.4f}"


def _count(parameters: int | None) -> str:
    return "-" if parameters is None else f"{parameters:,}"


def _signed(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:+.{digits}f}"


def _known(value: float | None) -> float | str:
    return "" if value is None else value
