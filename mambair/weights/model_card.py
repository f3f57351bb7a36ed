"""Model cards: what a network is, what it was trained on and how it is used, as Markdown."""

from __future__ import annotations

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from mambair.system.bounded_reader import parse_json
from mambair.system.path_gate import UnsafePathError, open_folder
from mambair.system.tables import markdown_text
from mambair.weights.checkpoint import ARCH_KEY, KWARGS_KEY, TASK_KEY

LICENCE_KEY, TRAINING_KEY = "license", "mambair.training"
PLAIN = re.compile(r"[a-z0-9][a-z0-9.+-]{0,99}")  # the identifier of a licence
REPORT_BYTES, PICTURE_BYTES = 2**20, 64 * 2**20
PICTURE = re.compile(r"!\[[^]]*\]\(([\w.-]+\.png)\)")


def describe(net: nn.Module, metadata: Mapping[str, str], task: str) -> list[str]:
    """List the task, the licence, the network and its training, one line of Markdown each.

    Args:
        net: the network that `metadata` belongs to.
        metadata: see `mambair.weights.checkpoint.network_metadata`, with ``license`` and ``mambair.training`` (as
            scripts/package_weights.py writes them) where they are known.
        task: in words.
    """
    parameters = sum(parameter.numel() for parameter in net.parameters())
    lines = [
        f"- Task: {markdown_text(task)}; licence {markdown_text(metadata.get(LICENCE_KEY, 'not stated'))}",
        f"- Network: {metadata[ARCH_KEY]} `{metadata[KWARGS_KEY]}`, {parameters:,} parameters",
    ]
    if TRAINING_KEY in metadata:
        known = parse_json(metadata[TRAINING_KEY])
        training = defaultdict(lambda: "?", {key: markdown_text(str(value)) for key, value in known.items()})
        cycles = f" in {training['cycles']} cycles" if "cycles" in training else ""
        lines.append(
            f"- Trained by `mambair/train.py` with `{training['option_file']}` on {training['data']}: "
            f"{training['iterations']} iterations{cycles}, {training['hours']} hours on {training['processor']}"
        )
    return lines


def task_in_words(net: nn.Module, metadata: Mapping[str, str]) -> str:
    """``4x super-resolution``, or the task that the metadata names."""
    scale = int(getattr(net, "upscale", 1))
    return f"{scale}x super-resolution" if scale > 1 else metadata[TASK_KEY]


def hub_card(net: nn.Module, metadata: Mapping[str, str], address: str, report: Path | None) -> str:
    """Return the README.md of a repository on the Hugging Face hub.

    Args:
        net, metadata: see `describe`.
        address: where the network will be, for the examples.
        report: ``report.md`` of a training, which becomes a chapter; its pictures are to lie beside the card.

    Raises:
        OSError: see `read_report`.
    """
    restores = hasattr(net, "upscale")
    licence = metadata.get(LICENCE_KEY, "").lower()
    lines = [
        "---",
        "library_name: mambair",
        *([f"license: {licence}"] if PLAIN.fullmatch(licence) else []),
        f"pipeline_tag: {'image-to-image' if restores else 'image-classification'}",
        f"tags: [mambair, {metadata[ARCH_KEY]}]",
        "---",
        "",
        f"# {metadata[ARCH_KEY]}: {markdown_text(task_in_words(net, metadata))}",
        "",
        *describe(net, metadata, task_in_words(net, metadata)),
        "",
        "```python",
        "import mambair",
        "",
        f'net = mambair.load("{address}")',
        "```",
    ]
    if restores:
        lines += ["", "```bash", f"mambair restore -i photos -o restored --weights {address}", "```"]
    if report is not None:
        title, _, rest = read_report(report).partition("\n")
        chapters = re.sub(r"^#", "##", rest, flags=re.M)
        lines += ["", f"## Training: {title.lstrip('# ')}", chapters.rstrip()]
    return "\n".join(lines) + "\n"


def read_report(report: Path) -> str:
    """Read a ``report.md``.

    Raises:
        OSError: it cannot be read, is too large or is not UTF-8 (UnsafePathError: it is a link or no regular file).
    """
    try:
        return _content(report, REPORT_BYTES).decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise OSError(f"{report}: expected UTF-8 text, got byte 0x{error.object[error.start]:02x}") from None


def pictures_of(report: Path) -> dict[str, bytes]:
    """The pictures of a ``report.md`` that lie beside it; links are left out, as they may lead to anything.

    Raises:
        OSError: see `read_report`; or a picture cannot be read or is too large.
    """
    pictures = {}
    for name in dict.fromkeys(PICTURE.findall(read_report(report))):
        with contextlib.suppress(UnsafePathError, FileNotFoundError):
            pictures[name] = _content(report.with_name(name), PICTURE_BYTES)
    return pictures


def _content(path: Path, limit: int) -> bytes:
    """Read a regular file whole that has no other name: what it holds is published."""
    with (
        open_folder(path.parent, make=False) as folder,
        os.fdopen(folder.open_file(path.name, os.O_RDONLY), "rb") as file,
    ):
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(f"{path} has more than {limit} bytes; shorten it")
    return content
