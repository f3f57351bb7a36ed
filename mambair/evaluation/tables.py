"""A run's results as text, Markdown, LaTeX, CSV and JSON, with the protocol and the printed figures beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mambair.evaluation.comparison import Comparison, compare, parameters_of, printed_at, why_not_printed
from mambair.evaluation.published import Score
from mambair.evaluation.results import Metrics, Run, SetResult
from mambair.metrics import NIQE_FIT, SSIM_WINDOW
from mambair.system.atomic_file import atomic_path
from mambair.system.console import printable
from mambair.system.tables import aligned, comma_separated, jsonable, latex, markdown, markdown_text

MEASURED, PRINTED = "measured", "printed"
MEAN = "mean"
DIGITS = 4  # of single images, as BasicSR prints them; CSV and JSON keep every digit
DIGITS_OF_PSNR = 2  # of means, as papers print them
IMPLIED = {"crop_border", "test_y_channel", "convert_to", "input_order", "type", "better"}
PRINTED_METRICS = ("psnr", "ssim")
NOTES = {"calculate_ssim": SSIM_WINDOW, "basicsr/calculate_ssim": SSIM_WINDOW, "calculate_niqe": NIQE_FIT}


def title(run: Run, level: int) -> str:
    """``Super-resolution x4``."""
    return f"{run.title} {run.degree(level)}".rstrip()


def describe_metric(options: Mapping[str, Any]) -> str:
    """What a metric of an option file measures, in words: ``Y channel, crop border 4``."""
    channels = "Y channel" if options.get("test_y_channel", False) else "all channels (RGB)"
    if options["type"].endswith("calculate_niqe"):
        channels = {"y": "Y channel", "gray": "grey"}.get(options.get("convert_to", "y"), channels)
    words = [channels, f"crop border {options.get('crop_border', 0)}"]
    if options["type"] in NOTES:
        words.append(NOTES[options["type"]])
    words += [f"{key} {value}" for key, value in options.items() if key not in IMPLIED]
    return ", ".join(words)


def protocol(run: Run, level: int) -> str:
    """What the figures of a level mean, in the order they stand in: ``psnr: Y channel, ... / ssim: ...``.

    Where sets have other metrics than others, their names stand before each.
    """
    sets: dict[str, list[str]] = {}
    for result in run.sets_at(level):
        sets.setdefault(protocol_of(result), []).append(result.name)
    if len(sets) == 1:
        return next(iter(sets))
    return " | ".join(f"{', '.join(names)}: {words}" for words, names in sets.items())


def protocol_of(result: SetResult) -> str:
    """`protocol` of one set."""
    if not result.metrics:
        return "no metrics"
    words = " / ".join(f"{name}: {describe_metric(options)}" for name, options in result.metrics.items())
    return f"{words}; on 8 bits, mean of the images' values"


def conditions(run: Run) -> str:
    """What holds for all results, in one line."""
    return "; ".join(f"{what}: {value}" for what, value in run.conditions.items())


def level_rows(run: Run, level: int, *, decorate: bool = False) -> list[list[str]]:
    """Header, a row for each candidate, a row for each printed network; a set is one column ``psnr / ssim``.

    Args:
        decorate: put the best measured result of each set, by the first metric, between ``**``.
    """
    sets, printed = run.sets_at(level), printed_at(run, level)
    rows = [["method", "parameters", *(f"{each.name} ({len(each.dataset)})" for each in sets)]]
    best = [_best(run, each) if decorate else None for each in sets]
    for candidate in run.candidates_at(level):
        texts = [_scores(each.metrics, each.mean(candidate.name)) for each in sets]
        texts = [f"**{text}**" if best[i] == candidate.name else text for i, text in enumerate(texts)]
        rows.append([candidate.name, _count(candidate.parameters), *texts])
    for name in dict.fromkeys(row.name for own in printed.values() for row in own):
        by_set = {each.name: next((row for row in printed[each.name] if row.name == name), None) for each in sets}
        first = next(row for row in by_set.values() if row is not None)
        texts = ["-" if row is None else _score(row.scores[of]) for of, row in by_set.items()]
        rows.append([f"{name} ({PRINTED})", _count(parameters_of(first, _upscale(run, level))), *texts])
    return rows


def difference_rows(run: Run, level: int) -> list[list[str]]:
    """Header, and for each network and set: ours, the printed one, the difference; only the header if there is none."""
    rows = [["network", "set", "PSNR", PRINTED, "difference", "SSIM", PRINTED, "difference", "compared with"]]
    for candidate in run.candidates_at(level):
        for result in run.sets_at(level):
            found = compare(run, result, candidate)
            if found is None:
                continue
            mean, ssim = result.mean(candidate.name), found.printed.ssim
            ours = [f"{mean['psnr']:.2f}", f"{found.printed.psnr:.2f}", f"{found.psnr:+.2f}", f"{mean['ssim']:.4f}"]
            ours += ["-" if ssim is None else f"{ssim:.4f}", "-" if found.ssim is None else f"{found.ssim:+.4f}"]
            rows.append([candidate.name, result.name, *ours, f"{found.reference}, {found.relation}"])
    return rows


def time_rows(run: Run, level: int) -> list[list[str]]:
    """Header, and the mean seconds an image takes, by network and set."""
    sets = run.sets_at(level)
    rows = [["network", *(f"{each.name}: s an image" for each in sets)]]
    for candidate in run.candidates_at(level):
        if candidate.parameters is not None:
            times = [f"{each.seconds(candidate.name):.3f}" if each.of(candidate.name) else "-" for each in sets]
            rows.append([candidate.name, *times])
    return rows


def image_rows(run: Run, result: SetResult) -> list[list[str]]:
    """Header, a row for each image and the mean; a candidate is one column."""
    names = [candidate.name for candidate in run.candidates_at(result.level)]
    rows = [["image", *names]]
    for index, image in sorted(result.names.items()):
        found = [result.images.get(name, {}).get(index) for name in names]
        texts = [_scores(result.metrics, each.scores if each else {}, digits=DIGITS) for each in found]
        rows.append([printable(image), *texts])
    return [*rows, [MEAN, *(_scores(result.metrics, result.mean(name), digits=DIGITS) for name in names)]]


def remarks(run: Run) -> list[str]:
    """The conditions, where inputs come from, what is missing, failed or not comparable, the machine."""
    lines = [f"{what}: {value}" for what, value in run.conditions.items()]
    for result in run.sets:
        name = f"{result.name} {run.degree(result.level)}".rstrip()
        lines.append(f"{name}: {len(result.dataset)} images, {result.inputs}")
        reason = why_not_printed(run, result)
        if reason:
            lines.append(f"{name}: no printed figures beside it: {reason}")
    lines += [f"missing: {reason}" for reason in run.missing.values()]
    lines += [f"failed: {printable(reason)}" for reason in run.failed()]
    return [*lines, *(f"measured on {machine}" for machine in run.machines())]


def as_text(run: Run, *, images: bool = False) -> str:
    """For a terminal: the tables of means with their protocol, the single images where asked for, the remarks."""
    parts = []
    for level in run.levels():
        if images:
            parts += [f"{each.name}\n{aligned(image_rows(run, each))}" for each in run.sets_at(level)]
        parts += [f"{title(run, level)}\n{protocol(run, level)}", aligned(level_rows(run, level))]
        differences = difference_rows(run, level)
        if len(differences) > 1:
            parts.append(aligned(differences, sides="llrrrrrrl"))
    return "\n\n".join([*parts, "\n".join(remarks(run))]) + "\n"


def as_markdown(run: Run) -> str:
    """Everything: means, differences, times, single images."""
    parts = [f"# {markdown_text(run.title)}: measured results"]
    for level in run.levels():
        heading = markdown_text(title(run, level))
        parts += [
            f"## {heading}",
            markdown_text(protocol(run, level)) + ".",
            markdown(level_rows(run, level, decorate=True)),
        ]
        for rows, head in ((difference_rows(run, level), "printed figures"), (time_rows(run, level), "time")):
            if len(rows) > 1:
                parts += [f"### {heading}: {head}", markdown(rows)]
        for result in run.sets_at(level):
            parts += [f"### {markdown_text(result.name)}, {heading}: images", markdown(image_rows(run, result))]
    parts += ["## Remarks", "\n".join(f"- {markdown_text(remark)}" for remark in remarks(run))]
    return "\n\n".join(parts) + "\n"


def as_latex(run: Run) -> str:
    """One table of means for each level, the best of each set in bold."""
    tables = []
    for level in run.levels():
        caption = ". ".join(filter(None, (title(run, level), protocol(run, level), conditions(run))))
        caption = f"{caption}. {'; '.join(run.machines())}."
        tables.append(latex(level_rows(run, level, decorate=True), caption=caption))
    return "\n\n".join(tables) + "\n"


def sets_as_csv(run: Run) -> str:
    """A row for each level, set and candidate or printed network, with the protocol."""
    metrics = _all_metrics(run)
    level_name = run.suite.level if run.suite else "scale"
    head = ["run", level_name, "set", "method", "source", "images", "parameters", *metrics, "seconds_per_image"]
    rows: list[list[object]] = [[*head, "compared_with", "psnr_difference", "ssim_difference", "protocol"]]
    for result in run.sets:
        begin = [run.title, result.level, result.name]
        for candidate in run.candidates_at(result.level):
            images, mean = result.of(candidate.name), result.mean(candidate.name)
            if not images:
                continue
            found = compare(run, result, candidate)
            compared = ["", "", ""] if found is None else [found.reference, found.psnr, _known(found.ssim)]
            figures = [len(images), _known(candidate.parameters), *(_known(mean.get(metric)) for metric in metrics)]
            line = [candidate.name, MEASURED, *figures, result.seconds(candidate.name), *compared]
            rows.append([*begin, *line, _full_protocol(run, result)])
        for row in printed_at(run, result.level).get(result.name, []):
            score = row.scores[result.name]
            figures = [_known(getattr(score, metric, None)) for metric in metrics]
            parameters = _known(parameters_of(row, _upscale(run, result.level)))
            rows.append([*begin, row.name, PRINTED, "", parameters, *figures, "", "", "", "", row.about])
    return comma_separated(rows)


def images_as_csv(run: Run) -> str:
    """A row for each image and candidate."""
    metrics = _all_metrics(run)
    level_name = run.suite.level if run.suite else "scale"
    rows: list[list[object]] = [
        ["run", level_name, "set", "image", "method", *metrics, "seconds", "protocol", "machine"]
    ]
    for result in run.sets:
        for name in result.images:
            for image in result.of(name):
                figures = [*(_known(image.scores.get(metric)) for metric in metrics), image.seconds]
                begin = [run.title, result.level, result.name, printable(image.image), name]
                rows.append([*begin, *figures, _full_protocol(run, result), image.machine])
    return comma_separated(rows)


def as_json(run: Run) -> str:
    """All digits; numbers JSON lacks are the texts "inf" and "nan"."""
    content = {
        "name": run.title,
        "suite": run.suite.name if run.suite else None,
        "conditions": dict(run.conditions),
        "levels": [_level_content(run, level) for level in run.levels()],
        "missing": run.missing,
        "failed": run.failed(),
        "machines": run.machines(),
    }
    return json.dumps(jsonable(content), indent=2, allow_nan=False) + "\n"


WRITERS: dict[str, Callable[[Run], str]] = {
    "{}.md": as_markdown,
    "{}.json": as_json,
    "{}.tex": as_latex,
    "{}_per_set.csv": sets_as_csv,
    "{}_per_image.csv": images_as_csv,
}


def write_tables(run: Run, stem: str) -> list[Path]:
    """Write every table of ``WRITERS`` into the run's folder, each at once or not at all; returns their paths.

    Args:
        stem: their names begin with.
    """
    written = []
    for name, render in WRITERS.items():
        path = run.folder / name.format(stem)
        with atomic_path(path) as temporary:
            temporary.write_text(render(run), encoding="utf-8", newline="\n")
        written.append(path)
    return written


def _level_content(run: Run, level: int) -> dict[str, Any]:
    rows = {row.name: row for own in printed_at(run, level).values() for row in own}
    printed = {
        name: {"about": row.about, "scores": {each: vars(score) for each, score in row.scores.items()}}
        for name, row in rows.items()
    }
    metrics = {
        name: {**options, "means": describe_metric(options)}
        for result in reversed(run.sets_at(level))
        for name, options in result.metrics.items()
    }
    sets = [_set_content(run, result) for result in run.sets_at(level)]
    return {run.suite.level if run.suite else "scale": level, "metrics": metrics, "printed": printed, "sets": sets}


def _set_content(run: Run, result: SetResult) -> dict[str, Any]:
    methods = {}
    for candidate in run.candidates_at(result.level):
        images = result.of(candidate.name)
        if images:
            methods[candidate.name] = {
                "parameters": candidate.parameters,
                "mean": result.mean(candidate.name),
                "seconds_per_image": result.seconds(candidate.name),
                "comparison": _comparison_content(compare(run, result, candidate)),
                "images": [{**vars(image), "scores": dict(image.scores)} for image in images],
            }
    return {
        "name": result.name,
        "images": len(result.dataset),
        "published_images": result.published_images,
        "inputs": result.inputs,
        "methods": methods,
    }


def _comparison_content(found: Comparison | None) -> dict[str, Any] | None:
    return None if found is None else {**vars(found), "printed": vars(found.printed)}


def _full_protocol(run: Run, result: SetResult) -> str:
    return "; ".join(filter(None, (protocol_of(result), result.inputs, conditions(run))))


def _all_metrics(run: Run) -> list[str]:
    return list(dict.fromkeys(metric for result in run.sets for metric in result.metrics)) or list(PRINTED_METRICS)


def _upscale(run: Run, level: int) -> int:
    return run.suite.upscale(level) if run.suite else 1


def _best(run: Run, result: SetResult) -> str | None:
    """The candidate with the best mean of the first metric, of those that were measured on every image."""
    first = next(iter(result.metrics), "")
    means = {each.name: result.whole_mean(each.name).get(first, math.nan) for each in run.candidates}
    finite = {name: value for name, value in means.items() if not math.isnan(value)}
    choose = min if result.metrics.get(first, {}).get("better") == "lower" else max
    return choose(finite, key=finite.__getitem__) if finite else None


def _scores(metrics: Metrics, scores: Mapping[str, float], *, digits: int | None = None) -> str:
    """``28.43 / 0.8111``, in the order of ``metrics``; "-" for what is missing."""
    if not scores:
        return "-"
    texts = []
    for name, options in metrics.items():
        places = digits or (DIGITS_OF_PSNR if options["type"].endswith("calculate_psnr") else DIGITS)
        texts.append(f"{scores[name]:.{places}f}" if name in scores else "-")
    return " / ".join(texts)


def _score(score: Score) -> str:
    return f"{score.psnr:.2f}" if score.ssim is None else f"{score.psnr:.2f} / {score.ssim:.4f}"


def _count(parameters: int | None) -> str:
    return "-" if parameters is None else f"{parameters:,}"


def _known(value: float | None) -> float | str:
    return "" if value is None else value
