"""The report at the end of a training: curves and sample pictures, so that people look instead of read."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mambair.images.decoded_image import DecodedImage
from mambair.images.files import write_image
from mambair.system.atomic_file import atomic_path
from mambair.training.sample_pictures import Restoring, samples

logger = logging.getLogger(__name__)

SAMPLES = 3
BESIDE_LOSSES = frozenset({"iter", "epoch", "lr", "seconds", "data_seconds", "images_per_second", "memory_mib"})


def write_report(opt: Mapping[str, Any], model: Restoring, validation_loaders: Sequence[Any]) -> Path:
    """Write ``report/report.md`` with its pictures into the experiment's folder; curves need matplotlib.

    Args:
        opt: checked options.
        model: restores the samples of the first validation set.
        validation_loaders: of the run; may be empty.

    Returns:
        The path of report.md.
    """
    root = Path(opt["path"]["experiments_root"])
    folder = root / "report"
    folder.mkdir(exist_ok=True)
    records = read_records(root / "metrics.jsonl")
    lines = [f"# {opt['name']}", "", *describe(opt, records), "", *best_values(opt, records)]
    if draw_curves(records, folder / "curves.png"):
        lines += ["", "## Curves", "", "![losses, learning rate and metrics](curves.png)"]
    if validation_loaders:
        dataset = validation_loaders[0].dataset
        lines += ["", f"## Samples of {dataset.opt['name']}", "", "Input (pixels repeated), result, ground truth.", ""]
        for number, picture in enumerate(samples(model, dataset, SAMPLES), 1):
            write_image(folder / f"sample_{number}.png", DecodedImage(picture))
            lines.append(f"![sample {number}](sample_{number}.png)")
    with atomic_path(folder / "report.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "report.md"


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl; a last line that a crash cut short is left out.

    Iterations done twice, because a killed run went on from an earlier checkpoint, count as they were done last.
    """
    latest: dict[tuple[int, str], dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        latest[record["iter"], record.get("validation", "")] = record
    return [latest[key] for key in sorted(latest)]


def describe(opt: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was trained and how fast, as a list."""
    steps = [record for record in records if "seconds" in record]
    network = ", ".join(f"{key}: {value}" for key, value in opt["network_g"].items())
    lines = [
        f"- network: {network}",
        f"- iterations: {steps[-1]['iter'] if steps else 0} of {opt['train']['total_iter']}",
    ]
    if steps:
        mean = sum(record["seconds"] for record in steps) / len(steps)
        memory = max(record["memory_mib"] for record in steps)
        lines += [f"- {mean:.3f} s per iteration, {memory:.0f} MiB at most"]
    return lines


def best_values(opt: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of the best and the last value of each metric on each validation set."""
    metrics = opt["val"].get("metrics") or {}
    lines = ["| data set | metric | best | at iteration | last |", "|---|---|---|---|---|"]
    for dataset in dict.fromkeys(record["validation"] for record in records if "validation" in record):
        own = [record for record in records if record.get("validation") == dataset]
        for metric, metric_opt in metrics.items():
            finite = [record for record in own if isinstance(record.get(metric), float)]
            if not finite:
                continue
            choose = min if metric_opt.get("better") == "lower" else max
            best = choose(finite, key=lambda record, metric=metric: record[metric])
            values = f"{best[metric]:.4f} | {best['iter']} | {finite[-1][metric]:.4f}"
            lines.append(f"| {dataset} | {metric} | {values} |")
    return lines if len(lines) > 2 else []


def draw_curves(records: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Draw losses, learning rate and validation metrics over the iterations; False where matplotlib is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        logger.info("matplotlib is not installed: the report has no curves (pip install matplotlib)")
        return False
    from matplotlib.figure import Figure

    panels: dict[str, dict[str, list[tuple[int, float]]]] = {"loss": {}, "learning rate": {}, "validation": {}}
    for record in records:
        for key, value in record.items():
            if key == "lr":
                panels["learning rate"].setdefault(key, []).append((record["iter"], value))
            elif isinstance(value, float) and key not in BESIDE_LOSSES:
                panel = panels["validation" if "validation" in record else "loss"]
                label = f"{record['validation']} {key}" if "validation" in record else key
                panel.setdefault(label, []).append((record["iter"], value))
    drawn = {title: curves for title, curves in panels.items() if curves}
    if not drawn:
        return False
    figure = Figure(figsize=(5 * len(drawn), 3.5), layout="constrained")
    for axis, (title, curves) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn.items(), strict=True):
        for label, points in curves.items():
            axis.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 30 else None)
        axis.set_title(title)
        axis.set_xlabel("iteration")
        axis.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return True
