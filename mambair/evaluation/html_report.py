"""The report for people: one HTML file that needs nothing else, with tables, plots and crops of every image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np

from mambair.data.restoration_dataset import to_pixels
from mambair.evaluation.candidates import Candidate, InputCandidate, Sample
from mambair.evaluation.comparison import parameters_of, printed_rows
from mambair.evaluation.crops import as_data_uri, busiest_place, cut, thumbnail
from mambair.evaluation.plots import Point, scatter
from mambair.evaluation.results import ImageResult, Run, SetResult
from mambair.evaluation.tables import (
    conditions,
    difference_rows,
    image_rows,
    level_rows,
    protocol,
    remarks,
    time_rows,
    title,
)
from mambair.images.decoded_image import ImageFileError
from mambair.images.files import read_image
from mambair.images.resize import imresize
from mambair.system.atomic_file import atomic_path
from mambair.system.console import printable
from mambair.system.tables import Rows

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


def write_html(run: Run, *, crop: int = 96) -> Path:
    """Write ``report.html`` into the run's folder; returns its path.

    Args:
        crop: side of the crops in pixels of the ground truth.
    """
    path = run.folder / NAME
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for part in html_parts(run, crop=crop):
            file.write(part + "\n")
    return path


def html_parts(run: Run, *, crop: int) -> Iterator[str]:
    """The report from top to bottom, image by image, so that memory does not hold them all."""
    head = escape(f"{run.title}: measured results")
    yield f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{head}</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>\n{STYLE}\n</style>\n</head>\n<body>\n<h1>{head}</h1>"
    for level in run.levels():
        told = "; ".join(filter(None, (protocol(run, level), conditions(run))))
        yield f"<h2>{escape(title(run, level))}</h2>"
        yield _table(level_rows(run, level), told)
        for rows, caption in (
            (difference_rows(run, level), "ours beside the printed figures; " + told),
            (time_rows(run, level), "mean time of an image, decoding and encoding not counted"),
        ):
            if len(rows) > 1:
                yield _table(rows, caption)
        for result in run.sets_at(level):
            yield from _set_parts(run, result, told, crop)
    notes = "".join(f"<li>{escape(remark)}</li>" for remark in remarks(run))
    yield f"<h2>Remarks</h2>\n<ul>{notes}</ul>\n</body>\n</html>"


def plot_points(run: Run, result: SetResult) -> tuple[list[Point], list[Point]]:
    """The first metric against parameters, with printed networks where they belong, and against seconds an image."""
    by_parameters, by_seconds = [], []
    metric = next(iter(result.metrics), "")
    for candidate in run.candidates_at(result.level):
        mean = result.mean(candidate.name)
        if candidate.parameters is not None and metric in mean:
            by_parameters.append(Point(candidate.name, candidate.parameters, mean[metric]))
            by_seconds.append(Point(candidate.name, result.seconds(candidate.name), mean[metric]))
    for row in printed_rows(run, result):
        parameters = parameters_of(row, run.suite.upscale(result.level)) if run.suite else None
        if parameters is not None:
            by_parameters.append(Point(row.name, parameters, row.scores[result.name].psnr, printed=True))
    return by_parameters, by_seconds


def _set_parts(run: Run, result: SetResult, told: str, crop: int) -> Iterator[str]:
    yield f"<h3>{escape(f'{result.name}, {title(run, result.level)}')}</h3>"
    by_parameters, by_seconds = plot_points(run, result)
    metric = next(iter(result.metrics), "")
    name = "PSNR in dB" if metric == "psnr" else metric
    plots = [
        scatter(by_parameters, title=f"{result.name}: size", x_label="parameters (hollow: printed)", y_label=name),
        scatter(by_seconds, title=f"{result.name}: time", x_label="seconds an image", y_label=name),
    ]
    yield f'<div class="plots">{"".join(plots)}</div>'
    rows = _table(image_rows(run, result), told)
    yield f"<details><summary>every image of {escape(result.name)}</summary>{rows}</details>"
    for index, image in sorted(result.names.items()):
        yield f"<h4>{escape(printable(image))}</h4>{_image_part(run, result, index, crop)}"


def _image_part(run: Run, result: SetResult, index: int, crop: int) -> str:
    try:
        item = result.dataset[index]
    except (ValueError, OSError) as error:
        return f"<p>{escape(str(error))}</p>"
    lq = to_pixels(item["lq"])
    if "gt" in item:
        gt = to_pixels(item["gt"])
    else:  # the place is chosen in the input, at the size of the results
        gt = np.asarray(imresize(lq, run.suite.upscale(result.level) if run.suite else result.level))
    place = busiest_place(gt, crop)
    scale = max(1, gt.shape[0] // lq.shape[0])
    figures = [_figure(thumbnail(gt, place), "whole image", whole=True)]
    if scale > 1:
        figures.append(_figure(as_data_uri(cut(lq, place, scale)), f"input, {scale} times smaller"))
    for candidate in run.candidates_at(result.level):
        found = result.images.get(candidate.name, {}).get(index)
        if found is not None:
            figures.append(
                _restored(run, candidate, found, Sample(item["lq"], result.name, found.image, result.level), place)
            )
    if "gt" in item:
        figures.append(_figure(as_data_uri(cut(gt, place)), "ground truth"))
    return f'<div class="crops">{"".join(figures)}</div>'


def _restored(
    run: Run, candidate: Candidate, found: ImageResult, sample: Sample, place: tuple[int, int, int, int]
) -> str:
    """The crop of a restored image, read from where it was kept; that of the unrestored input is made again."""
    values = " / ".join(
        f"{value:.2f} dB" if metric == "psnr" else f"{value:.4f}" for metric, value in found.scores.items()
    )
    caption = f"{candidate.name}: {values}"
    try:
        if found.picture is not None:
            pixels = np.asarray(read_image(run.folder / found.picture).pixels)
        elif isinstance(candidate, InputCandidate):
            pixels = to_pixels(candidate(sample))
        else:
            return _without_image(f"{caption}; set val: save_img to see it")
    except ImageFileError as error:
        return _without_image(f"{caption}; {error}")
    return _figure(as_data_uri(cut(pixels, place)), caption)


def _without_image(caption: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption></figure>"


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
