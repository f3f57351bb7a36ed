"""The report at the end of a training: what was run, curves and sample pictures."""

from __future__ import annotations

import importlib.util
import itertools
import logging
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mambair import __version__
from mambair.images.decoded_image import DecodedImage
from mambair.images.files import write_image
from mambair.system.atomic_file import atomic_path
from mambair.system.console import printable
from mambair.system.jsonl import JsonLines
from mambair.system.machine import describe_machine
from mambair.system.path_gate import open_folder
from mambair.system.tables import markdown_text
from mambair.training.sample_pictures import Restoring, samples

logger = logging.getLogger(__name__)

SAMPLES = 3
MOST_PANELS, MOST_CURVES = 16, 32  # that are drawn; metrics.jsonl may have been written by somebody else
SAMPLES_CAPTION = (
    "Input (enlarged bicubically, if smaller), result, ground truth; PSNR of the pixels shown, all channels."
)
BESIDE_LOSSES = frozenset({"iter", "epoch", "lr", "seconds", "data_seconds", "images_per_second", "memory_mib"})


def write_report(opt: Mapping[str, Any], model: Restoring, validation_loaders: Sequence[Any]) -> Path:
    """Write ``report/report.md`` with its pictures into the experiment's folder; curves need matplotlib.

    Args:
        opt: checked options.
        model: restores the samples of the first validation set.
        validation_loaders: of the run; may be empty.

    Returns:
        The path of report.md.

    Raises:
        UnsafePathError: ``report`` is a link that leads out of the experiment's folder.
    """
    root = Path(opt["path"]["experiments_root"])
    folder = root / "report"
    open_folder(folder, within=root).close()
    records = read_records(root / "metrics.jsonl")
    described = [*describe(opt, records), *describe_origin(opt, model, validation_loaders)]
    lines = [f"# {markdown_text(opt['name'])}", "", *map(markdown_text, described), "", *best_values(opt, records)]
    if draw_curves(records, folder / "curves.png"):
        lines += ["", "## Curves", "", "![losses, learning rate and metrics](curves.png)"]
    if validation_loaders:
        dataset = validation_loaders[0].dataset
        lines += ["", f"## Samples of {markdown_text(dataset.opt['name'])}", "", SAMPLES_CAPTION, ""]
        for number, picture in enumerate(samples(model, dataset, SAMPLES), 1):
            write_image(folder / f"sample_{number}.png", DecodedImage(picture), within=root)
            lines.append(f"![sample {number}](sample_{number}.png)")
    with atomic_path(folder / "report.md", within=root) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "report.md"


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl; a last line that a crash cut short is left out.

    Iterations done twice, because a killed run went on from an earlier checkpoint, count as they were done last.
    """
    latest: dict[tuple[int, str], dict[str, Any]] = {}
    for record in JsonLines(path).new():
        if record is not None and _is_record(record):
            latest[record["iter"], record.get("validation", "")] = record
    return [latest[key] for key in sorted(latest)]


def _is_record(record: Mapping[str, Any]) -> bool:
    """Return whether the entries that the report relies on have the types that `RunLog` writes."""
    baseline = record.get("baseline", {"name": ""})
    return (
        isinstance(record.get("iter"), int)
        and isinstance(record.get("validation", ""), str)
        and (isinstance(baseline, dict) and isinstance(baseline.get("name"), str))
        and all(isinstance(record.get(key, 0), int | float) for key in ("seconds", "memory_mib"))
    )


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
        memory = max(record.get("memory_mib", 0.0) for record in steps)
        lines += [f"- {mean:.3f} s per iteration, {memory:.0f} MiB at most"]
    return lines


def describe_origin(opt: Mapping[str, Any], model: object, validation_loaders: Sequence[Any]) -> list[str]:
    """What is needed to repeat the run: parameters, seed, batch, data sets, versions and machine, commit."""
    lines = []
    net = getattr(model, "net_g", None)
    if net is not None:
        lines.append(f"- parameters: {sum(parameter.numel() for parameter in net.parameters()):,}")
    lines.append(f"- seed: {opt.get('manual_seed')}")
    train = opt.get("datasets", {}).get("train", {})
    if train:
        passes, processes = opt["train"].get("accumulation", 1), opt.get("world_size", 1)
        batch = f"{train.get('total_batch_size')} images in a step, {processes} process(es), {passes} pass(es) in each"
        lines += [f"- batch: {batch}", f"- training data: {_describe_data(train)}"]
    for loader in validation_loaders:
        lines.append(f"- validation data: {_describe_data(loader.dataset.opt)}, {len(loader.dataset)} images")
    lines.append(f"- machine: {describe_machine('numpy')}; mambair {__version__}")
    if torch.cuda.is_available():
        lines.append(f"- GPU: {torch.cuda.get_device_name()}")
    commit = _commit()
    return [*lines, f"- commit: {commit}"] if commit else lines


def _describe_data(dataset_opt: Mapping[str, Any]) -> str:
    keys = ("name", "type", "dataroot_gt", "dataroot_lq", "gt_size", "sigma", "quality")
    return ", ".join(f"{key} {dataset_opt[key]}" for key in keys if dataset_opt.get(key) is not None)


def _commit() -> str | None:
    """The commit of the checkout this package lies in, marked where files were changed; None for an installed one."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def best_values(opt: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of the baseline, the best and the last value of each metric on each validation set."""
    lines = ["| data set | metric | unrestored input | best | at iteration | last |", "|---|---|---|---|---|---|"]
    for dataset in dict.fromkeys(record["validation"] for record in records if "validation" in record):
        own = [record for record in records if record.get("validation") == dataset]
        baseline = _baseline(own)
        for metric, metric_opt in _metrics_of(opt, dataset).items():
            finite = [record for record in own if isinstance(record.get(metric), float)]
            if not finite:
                cells = f"{markdown_text(dataset)} | {markdown_text(metric)}"
                lines.append(f"| {cells} | - | not measured, see the log | - | - |")
                continue
            choose = min if metric_opt.get("better") == "lower" else max
            best = choose(finite, key=lambda record, metric=metric: record[metric])
            before = (
                f"{markdown_text(baseline['name'])} {baseline[metric]:.4f}"
                if isinstance(baseline.get(metric), float)
                else "-"
            )
            values = f"{before} | {best[metric]:.4f} | {best['iter']} | {finite[-1][metric]:.4f}"
            lines.append(f"| {markdown_text(dataset)} | {markdown_text(metric)} | {values} |")
    return lines if len(lines) > 2 else []


def _metrics_of(opt: Mapping[str, Any], dataset: str) -> Mapping[str, Any]:
    """The metrics of a validation set: its own, else those of ``val``."""
    sets = opt.get("datasets", {}).values()
    own = next((each.get("metrics") for each in sets if each.get("name") == dataset and each.get("metrics")), None)
    return own or opt["val"].get("metrics") or {}


def _baseline(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The unrestored input's values of a data set, as they were measured last."""
    return next((record["baseline"] for record in reversed(records) if "baseline" in record), {})


@dataclass
class Panel:
    """One plot: curves of (iteration, value), and level lines of unrestored inputs."""

    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    levels: dict[str, float] = field(default_factory=dict)


def panels_of(records: Sequence[Mapping[str, Any]]) -> dict[str, Panel]:
    """What is drawn: the losses, the learning rate, and a panel for each metric, by their titles."""
    panels = {"loss": Panel(), "learning rate": Panel()}
    for record in records:
        dataset = record.get("validation")
        for key, value in record.items():
            if isinstance(value, float) and (key == "lr" or key not in BESIDE_LOSSES):
                name = {"lr": "learning rate"}.get(key, "loss" if dataset is None else key)
                panel = panels.setdefault(name, Panel())
                panel.curves.setdefault(dataset or key, []).append((record["iter"], value))
                baseline = record.get("baseline", {})
                if isinstance(baseline.get(key), float):
                    panel.levels[f"{dataset}, {baseline['name']}"] = baseline[key]
    return {title: panel for title, panel in panels.items() if panel.curves}


def _plain(text: str) -> str:
    """Text that matplotlib takes for no formula."""
    return printable(text).replace("$", r"\$")


def draw_curves(records: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Draw losses, learning rate and each metric over the iterations; False where matplotlib is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        logger.info("matplotlib is not installed: the report has no curves (pip install matplotlib)")
        return False
    from matplotlib import style

    panels = dict(itertools.islice(panels_of(records).items(), MOST_PANELS))
    if not panels:
        return False
    with style.context("default"):  # not what a matplotlibrc in the working folder says
        _draw_panels(panels, path)
    return True


def _draw_panels(panels: Mapping[str, Panel], path: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(5 * len(panels), 3.5), layout="constrained")
    for axis, (title, panel) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for label, points in itertools.islice(panel.curves.items(), MOST_CURVES):
            marker = "." if len(points) < 30 else None
            axis.plot(*zip(*points, strict=True), label=_plain(label), marker=marker)
        for label, level in itertools.islice(panel.levels.items(), MOST_CURVES):
            axis.axhline(level, label=_plain(label), linestyle="--", color="grey")
        axis.set_title(_plain(title))
        axis.set_xlabel("iteration")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
