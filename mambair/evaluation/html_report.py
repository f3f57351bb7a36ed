"""The report for people: one HTML file that needs nothing else, with tables, plots and crops of every image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np

from mambair.evaluation.crops import as_data_uri, busiest_place, cut, thumbnail
from mambair.evaluation.evaluate import to_uint8
from mambair.evaluation.plots import Point, scatter
from mambair.evaluation.suite_tables import difference_rows, image_rows, level_rows, protocol, remarks, time_rows, title
from mambair.evaluation.summary import Summary, parameters_of
from mambair.evaluation.test_sets import ImageSet
from mambair.images.decoded_image import ImageFileError
from mambair.images.files import read_image
from mambair.system.atomic_file import atomic_path
from mambair.system.tables import Rows, printable

NAME = "report.html"
SHOWN_SIDE = 192  # CSS pixels of a crop

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: #1c2733; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
caption { caption-side: top; text-align: left; color: #55606c; font-size: 13px; padding: .3rem 0; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #dde3e8; text-align: right; }
th:first-child, td:first-child { text-align: left; }
.plots, .crops { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.plot .frame { fill: none; stroke: #55606c; }
.plot .grid { stroke: #e6eaee; }
.plot text { font: 11px system-ui, sans-serif; fill: #1c2733; }
.plot .title { font-size: 13px; font-weight: 600; }
.plot .measured { fill: #b3261e; }
.plot .printed { fill: #fff; stroke: #1f5c99; stroke-width: 1.5; }
figure { margin: 0; font-size: 12px; max-width: 192px; }
figure img { display: block; image-rendering: pixelated; }
figure.whole img { image-rendering: auto; }
h4 { margin: 1.2rem 0 .4rem; }
details { margin: .6rem 0; }
""".strip()


def write_html(summary: Summary, folder: Path, *, crop: int = 96) -> Path:
    """Write ``report.html`` into ``folder``; returns its path.

    Args:
        crop: side of the crops in pixels of the ground truth.
    """
    path = folder / NAME
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for part in html_parts(summary, folder, crop=crop):
            file.write(part + "\n")
    return path


def html_parts(summary: Summary, folder: Path, *, crop: int) -> Iterator[str]:
    """The report from top to bottom, image by image, so that memory does not hold them all."""
    head = escape(f"{summary.plan.suite.title}: measured results")
    yield f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{head}</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>\n{STYLE}\n</style>\n</head>\n<body>\n<h1>{head}</h1>"
    for level in summary.levels():
        yield f"<h2>{escape(title(summary, level))}</h2>"
        yield _table(level_rows(summary, level), protocol(summary, level))
        for rows, caption in (
            (difference_rows(summary, level), "ours beside the printed numbers; " + protocol(summary, level)),
            (time_rows(summary, level), "mean time of an image, decoding and encoding not counted"),
        ):
            if len(rows) > 1:
                yield _table(rows, caption)
        for name in summary.sets(level):
            yield from _set_parts(summary, folder, level, name, crop)
    notes = "".join(f"<li>{escape(remark)}</li>" for remark in remarks(summary))
    yield f"<h2>Remarks</h2>\n<ul>{notes}</ul>\n</body>\n</html>"


def plot_points(summary: Summary, level: int, name: str) -> tuple[list[Point], list[Point]]:
    """PSNR against parameters (printed networks too, where the set is complete), and against seconds an image."""
    by_parameters, by_seconds = [], []
    is_complete = summary.results.image_sets[level, name].is_complete
    for method in summary.methods(level):
        cell = summary.cell(level, name, method.name)
        if cell is not None and method.parameters is not None:
            by_parameters.append(Point(method.name, method.parameters, cell.psnr))
            by_seconds.append(Point(method.name, cell.seconds, cell.psnr))
    for row in summary.printed(level) if is_complete else []:
        parameters = parameters_of(row, summary.plan.suite.upscale(level))
        if parameters is not None and name in row.scores:
            by_parameters.append(Point(row.name, parameters, row.scores[name].psnr, printed=True))
    return by_parameters, by_seconds


def _set_parts(summary: Summary, folder: Path, level: int, name: str, crop: int) -> Iterator[str]:
    heading = f"{name}, {title(summary, level)}"
    yield f"<h3>{escape(heading)}</h3>"
    by_parameters, by_seconds = plot_points(summary, level, name)
    shared = {"y_label": "PSNR in dB"}
    plots = [
        scatter(by_parameters, title=f"{name}: PSNR and size", x_label="parameters (hollow: printed)", **shared),
        scatter(by_seconds, title=f"{name}: PSNR and time", x_label="seconds an image", **shared),
    ]
    yield f'<div class="plots">{"".join(plots)}</div>'
    rows = _table(image_rows(summary, level, name), protocol(summary, level))
    yield f"<details><summary>every image of {escape(name)}</summary>{rows}</details>"
    image_set = summary.results.image_sets[level, name]
    for index in range(len(image_set.paths)):
        yield _image_part(summary, folder, level, image_set, index, crop)


def _image_part(summary: Summary, folder: Path, level: int, image_set: ImageSet, index: int, crop: int) -> str:
    image = image_set.names[index]
    heading = f"<h4>{escape(printable(image))}</h4>"
    found = {
        m.method: m
        for method in summary.methods(level)
        for m in summary.images(level, image_set.name, method.name)
        if m.image == image
    }
    try:
        lq, gt = (to_uint8(tensor) for tensor in image_set.pair(index))
    except (ValueError, OSError) as error:
        return f"{heading}<p>{escape(str(error))}</p>"
    place = busiest_place(gt, crop)
    scale = summary.plan.suite.upscale(level)
    figures = [_figure(thumbnail(gt, place), "whole image", whole=True)]
    if scale > 1:
        figures.append(_figure(as_data_uri(cut(lq, place, scale)), f"input, {scale} times smaller"))
    for measurement in found.values():
        caption = f"{measurement.method}: {measurement.psnr:.2f} dB / {measurement.ssim:.4f}"
        try:
            picture = read_image(folder / measurement.picture).pixels
        except ImageFileError as error:
            figures.append(f"<figure><figcaption>{escape(f'{caption}; {error}')}</figcaption></figure>")
            continue
        figures.append(_figure(as_data_uri(cut(np.asarray(picture), place)), caption))
    figures.append(_figure(as_data_uri(cut(gt, place)), "ground truth"))
    return f'{heading}<div class="crops">{"".join(figures)}</div>'


def _figure(source: str, caption: str, *, whole: bool = False) -> str:
    if whole:
        return f'<figure class="whole"><img src="{source}" alt=""><figcaption>{escape(caption)}</figcaption></figure>'
    image = f'<img src="{source}" width="{SHOWN_SIDE}" alt="{escape(caption)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(rows: Rows, caption: str) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows[1:])
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(row: Sequence[str]) -> str:
    return "".join(f"<td>{escape(cell)}</td>" for cell in row)
