"""Tables of measured results, per image and per data set, with what was measured written beside the numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mambair.evaluation.evaluate import NAME, Evaluation
from mambair.system.atomic_file import atomic_path
from mambair.system.tables import aligned, comma_separated, jsonable, latex, markdown, printable

MEAN = "mean"
DIGITS = 4  # as BasicSR prints them; files keep every digit
IMPLIED = {"crop_border": 0, "test_y_channel": False, "input_order": "HWC"}
SSIM_WINDOW = "11x11 Gaussian window, sigma 1.5, valid region"


@dataclass(frozen=True)
class SetResult:
    """One data set's evaluation and the conditions it was made under.

    Attributes:
        conditions: what the metrics' own options do not say: {"tiles": "whole images", "noise": "sigma 25, seed 0"}.
    """

    evaluation: Evaluation
    conditions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Everything one test run measured.

    Attributes:
        name: of the experiment.
        results: one for each data set.
        conditions: what holds for all of them: network, weights, versions.
    """

    name: str
    results: Sequence[SetResult]
    conditions: Mapping[str, str] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, Mapping[str, Any]]:
        """Every metric of any data set, with its options, in the order of appearance."""
        return {name: options for result in self.results for name, options in result.evaluation.metrics.items()}


def describe_metric(options: Mapping[str, Any]) -> str:
    """What a metric of an option file measures, in words: ``Y channel, crop border 4``."""
    words = ["Y channel" if options.get("test_y_channel", False) else "all channels (RGB)"]
    words.append(f"crop border {options.get('crop_border', 0)}")
    if options["type"].endswith("calculate_ssim"):
        words.append(SSIM_WINDOW)
    words += [f"{key} {value}" for key, value in options.items() if key not in (*IMPLIED, "type", "better")]
    return ", ".join(words)


def set_rows(report: Report) -> list[list[str]]:
    """Header, then one row per data set: name, number of images, mean of each metric."""
    metrics = list(report.metrics)
    rows = [["data set", "images", *metrics]]
    for result in report.results:
        evaluation = result.evaluation
        means = [_number(evaluation.mean.get(metric)) for metric in metrics]
        rows.append([evaluation.dataset, str(len(evaluation.per_image)), *means])
    return rows


def image_rows(evaluation: Evaluation) -> list[list[str]]:
    """Header, one row per image, and the mean."""
    metrics = list(evaluation.metrics)
    rows = [["image", *metrics]]
    rows += [
        [printable(image[NAME]), *(_number(image[metric]) for metric in metrics)] for image in evaluation.per_image
    ]
    return [*rows, [MEAN, *(_number(evaluation.mean[metric]) for metric in metrics)]]


def protocol_lines(report: Report) -> list[str]:
    """One line for each metric, each common condition and each data set's own conditions."""
    lines = [f"{name}: {describe_metric(options)}" for name, options in report.metrics.items()]
    if lines:
        lines.append("results clipped and rounded to 8 bits before they are measured; mean of the images' values")
    lines += [f"{what}: {value}" for what, value in report.conditions.items()]
    for result in report.results:
        if result.conditions:
            told = ", ".join(f"{what} {value}" for what, value in result.conditions.items())
            lines.append(f"{result.evaluation.dataset}: {told}")
    return lines


def as_text(report: Report) -> str:
    """For a terminal: a table per data set, the table of means, the protocol."""
    parts = [f"{result.evaluation.dataset}\n{aligned(image_rows(result.evaluation))}" for result in report.results]
    parts.append(aligned(set_rows(report)))
    parts.append("\n".join(protocol_lines(report)))
    return "\n\n".join(parts) + "\n"


def as_markdown(report: Report) -> str:
    """The table of means and the protocol first, then a table per data set."""
    protocol = "\n".join(f"- {line}" for line in protocol_lines(report))
    parts = [f"# {report.name}", markdown(set_rows(report)), protocol]
    for result in report.results:
        parts += [f"## {result.evaluation.dataset}", markdown(image_rows(result.evaluation))]
    return "\n\n".join(parts) + "\n"


def as_json(report: Report) -> str:
    """All digits, the metrics' options and the conditions; numbers JSON lacks are the texts "inf" and "nan"."""
    sets = [
        {
            "dataset": result.evaluation.dataset,
            "conditions": dict(result.conditions),
            "mean": result.evaluation.mean,
            "per_image": result.evaluation.per_image,
        }
        for result in report.results
    ]
    metrics = {name: {**options, "means": describe_metric(options)} for name, options in report.metrics.items()}
    content = {"name": report.name, "conditions": dict(report.conditions), "metrics": metrics, "sets": sets}
    return json.dumps(jsonable(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def sets_as_csv(report: Report) -> str:
    """One row per data set and metric: data set, images, metric, mean, what it measures."""
    rows: list[list[object]] = [["dataset", "images", "metric", MEAN, "protocol"]]
    for result in report.results:
        evaluation = result.evaluation
        told = "; ".join(f"{what} {value}" for what, value in result.conditions.items())
        for metric, value in evaluation.mean.items():
            protocol = "; ".join(filter(None, (describe_metric(evaluation.metrics[metric]), told)))
            rows.append([evaluation.dataset, len(evaluation.per_image), metric, value, protocol])
    return comma_separated(rows)


def images_as_csv(report: Report) -> str:
    """One row per image: data set, image, every metric."""
    metrics = list(report.metrics)
    rows: list[list[object]] = [["dataset", "image", *metrics]]
    for result in report.results:
        for image in result.evaluation.per_image:
            values = [image.get(metric, "") for metric in metrics]
            rows.append([result.evaluation.dataset, printable(image[NAME]), *values])
    return comma_separated(rows)


def as_latex(report: Report) -> str:
    """The table of means, with the protocol as its caption."""
    return latex(set_rows(report), caption=f"{report.name}. {'; '.join(protocol_lines(report))}.") + "\n"


FILES: dict[str, Callable[[Report], str]] = {
    "metrics.md": as_markdown,
    "metrics.tex": as_latex,
    "metrics.json": as_json,
    "metrics_per_set.csv": sets_as_csv,
    "metrics_per_image.csv": images_as_csv,
}


def write_report(report: Report, folder: str | os.PathLike[str]) -> list[Path]:
    """Write every table of ``FILES`` into ``folder``, each at once or not at all; returns their paths."""
    written = []
    for name, render in FILES.items():
        path = Path(folder) / name
        with atomic_path(path) as temporary:
            temporary.write_text(render(report), encoding="utf-8", newline="\n")
        written.append(path)
    return written


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.{DIGITS}f}"
