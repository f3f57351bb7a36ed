"""A network's costs as a table for people and as JSON for programs, each figure with what it means."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from mambair.archs.published import networks
from mambair.profiling.counting import Count, count_macs, count_parameters
from mambair.profiling.forward_pass import ForwardPass, Settings
from mambair.profiling.target import Target
from mambair.system.machine import describe_machine
from mambair.system.tables import aligned, jsonable

GIGA = 10**9
OWN = "(its own)"
PUBLISHED_SIZE = (1280, 720)
DEFINITIONS = {
    "macs": "multiplications in convolutions, matrix products, attention and scans (R + 4 N + 2 a token, direction "
    "and channel); not norms, activations and products pixel by pixel",
    "as_published": "as the papers' tables count: 9 N + 1 for a scan, 5 a number for a layer norm, 1 for a mean, "
    "the prompts of MambaIRv2 by a product of matrices",
    "peak_memory": "beyond the weights and the input",
}


@dataclass(frozen=True)
class Row:
    """One line of the table of modules; the lines add up to the whole network."""

    module: str
    kind: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class Profile:
    """What was found about one network.

    Attributes:
        upscale: output pixels for one input pixel, along an axis.
        channels: of the input image.
        input_size, output_size: (width, height).
        forward: measured on ``settings``, which may be of another size; None where nothing was run.
    """

    target: Target
    upscale: int
    channels: int
    input_size: tuple[int, int]
    parameters: int
    count: Count
    rows: list[Row]
    settings: Settings | None = None
    forward: ForwardPass | None = None

    @property
    def output_size(self) -> tuple[int, int]:
        """(width, height) of the output."""
        return self.input_size[0] * self.upscale, self.input_size[1] * self.upscale

    @property
    def published_macs(self) -> float | None:
        """What the paper printed for this network and size, in 10^9."""
        if self.target.published is None or not _is_published_size(self.output_size, self.upscale):
            return None
        return networks()[self.target.published].giga_macs.get(self.upscale)


def profile(target: Target, size: tuple[int, int], *, of_output: bool = True, depth: int = 2) -> Profile:
    """Count parameters and multiplications; nothing is computed, so any size will do.

    Args:
        size: (width, height) of the output, as the papers give it, or of the input; an output size that is no multiple
            of the factor of enlargement is cut to one.
        of_output: which of the two ``size`` is.
        depth: how many names of a module its line in the table of modules has at most.

    Raises:
        RequestError: the network cannot be built, or cannot run on this size.
    """
    net = target.build(device="meta")
    upscale, channels = int(getattr(net, "upscale", 1)), int(getattr(net, "in_chans", 3))
    width, height = input_size(size, upscale) if of_output else size
    count = count_macs(net, (1, channels, height, width))
    rows = list(module_rows(net, count, depth))
    return Profile(target, upscale, channels, (width, height), count_parameters(net), count, rows)


def input_size(size: tuple[int, int], upscale: int) -> tuple[int, int]:
    """The largest (width, height) of an input whose output fits into ``size``, at least one pixel."""
    return max(1, size[0] // upscale), max(1, size[1] // upscale)


def module_rows(net: nn.Module, count: Count, depth: int) -> Iterator[Row]:
    """Lines for the modules ``depth`` names deep, and for those above that have parameters or work of their own."""
    yield from _rows_below(net, "", count, depth)


def _rows_below(module: nn.Module, name: str, count: Count, depth: int) -> Iterator[Row]:
    children = list(module.named_children())
    if depth == 0 or not children:
        yield Row(name or OWN, type(module).__name__, count_parameters(module), _macs(module, name, count))
        return
    below = [(child, f"{name}.{label}" if name else label) for label, child in children]
    own_parameters = sum(p.numel() for p in module.parameters(recurse=False))
    own_macs = _macs(module, name, count) - sum(_macs(child, path, count) for child, path in below)
    if own_parameters or own_macs:
        yield Row(f"{name} {OWN}".strip(), type(module).__name__, own_parameters, own_macs)
    for child, path in below:
        yield from _rows_below(child, path, count, depth - 1)


def _macs(module: nn.Module, name: str, count: Count) -> int:
    """What a module counts; one that is only a list is never called, and its entries are added up."""
    if not name:
        return count.total
    if name in count.by_module:
        return count.by_module[name]
    return sum(_macs(child, f"{name}.{label}", count) for label, child in module.named_children())


def as_text(found: Profile) -> str:
    """For a terminal."""
    total = found.count.total
    head = f"{found.target.label} ({found.target.arch}), {_sizes(found.input_size, found.output_size)}"
    modules = [["module", "class", "parameters", "MACs", "share"]]
    modules += [[r.module, r.kind, f"{r.parameters:,}", _giga(r.macs), _share(r.macs, total)] for r in found.rows]
    modules.append(["whole network", found.target.arch, f"{found.parameters:,}", _giga(total), _share(total, total)])
    kinds = [["kind", "MACs", "share"]]
    kinds += [[kind, _giga(macs), _share(macs, total)] for kind, macs in found.count.by_kind.items()]
    parts = [head, aligned(_summary(found), sides="lrl"), aligned(modules, sides="ll"), aligned(kinds), *_notes(found)]
    return "\n\n".join(parts) + "\n"


def as_json(found: Profile) -> str:
    """All figures without rounding, and what they mean."""
    content: dict[str, Any] = {
        "network": {"name": found.target.label, "arch": found.target.arch, "kwargs": dict(found.target.kwargs)},
        "published_network": found.target.published,
        "input_size": list(found.input_size),
        "output_size": list(found.output_size),
        "parameters": found.parameters,
        "macs": found.count.total,
        "macs_as_published": found.count.as_published,
        "published_macs": None if found.published_macs is None else round(found.published_macs * GIGA),
        "macs_by_kind": dict(found.count.by_kind),
        "modules": [vars(row) for row in found.rows],
        "forward_pass": None,
        "definitions": DEFINITIONS,
        "machine": describe_machine(),
    }
    if found.forward is not None and found.settings is not None:
        content["forward_pass"] = {
            **vars(found.forward),
            "input_size": list(found.settings.shape[:1:-1]),
            "dtype": found.settings.dtype,
            "device": found.settings.device,
            "repeats": found.settings.repeats,
        }
    return json.dumps(jsonable(content), indent=2, allow_nan=False) + "\n"


def _summary(found: Profile) -> list[list[str]]:
    rows = [["", "figure", "remark"]]
    rows.append(["parameters", f"{found.parameters:,}", "every one, bare parameters too"])
    rows.append(["MACs", f"{_giga(found.count.total)} G", ""])
    printed = found.published_macs
    remark = ""
    if printed is not None:
        difference = found.count.as_published / GIGA / printed - 1
        remark = f"printed: {printed} G, ours {difference:+.2%}"
    rows.append(["MACs as the papers count", f"{_giga(found.count.as_published)} G", remark])
    if found.forward is not None and found.settings is not None:
        measured, settings = found.forward, found.settings
        width, height = settings.shape[3], settings.shape[2]
        same = (width, height) == found.input_size
        where = f"{settings.device}, {settings.dtype}, {measured.threads} threads, scan: {measured.backend}"
        size = _sizes((width, height), (width * found.upscale, height * found.upscale))
        warning = "" if same else "NOT the size of the MACs: "
        rows.append(["latency", f"{measured.seconds:.3f} s", f"{warning}{size}; best of {settings.repeats}; {where}"])
        peak = "unknown" if measured.peak_bytes is None else f"{measured.peak_bytes / 2**20:,.0f} MiB"
        rows.append(["peak memory", peak, f"{warning}{DEFINITIONS['peak_memory']}"])
    return rows


def _notes(found: Profile) -> list[str]:
    lines = [f"MACs: {DEFINITIONS['macs']}.", f"As the papers count: {DEFINITIONS['as_published'].split(': ')[1]}."]
    return ["\n".join([*lines, describe_machine()])]


def _is_published_size(output: tuple[int, int], upscale: int) -> bool:
    return input_size(PUBLISHED_SIZE, upscale) == input_size(output, upscale)


def _sizes(given: tuple[int, int], output: tuple[int, int]) -> str:
    return f"input {given[0]}x{given[1]} -> output {output[0]}x{output[1]}"


def _giga(macs: int) -> str:
    return f"{macs / GIGA:,.2f}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
