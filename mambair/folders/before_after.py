"""Pictures that show an image before and after: one beside the other as PNG, and a page with a slider."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mambair.folders.names import file_name, full_stem
from mambair.folders.output_format import fitted
from mambair.folders.plan import COMPARISON, Job, Plan, real
from mambair.images.decoded_image import DecodedImage
from mambair.images.encode import encode
from mambair.images.files import ImageSpec
from mambair.system.atomic_file import atomic_stream
from mambair.system.console import printable
from mambair.system.errors import RequestError

LARGEST = 2048  # pixels a side that are shown; of larger results the middle
_GAP = 8  # white columns between the two
_QUALITY = 92  # of the JPEGs in a page

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: before and after</title>
<style>
 body {{ margin: 1em; font: 16px sans-serif; background: #222; color: #eee }}
 #pair {{ position: relative; width: {width}px; max-width: 100%; line-height: 0; touch-action: none;
  cursor: ew-resize }}
 #pair.large {{ max-width: none }}
 #pair img {{ width: 100%; user-select: none; -webkit-user-drag: none }}
 #after {{ position: absolute; left: 0; top: 0; clip-path: inset(0 0 0 var(--cut)) }}
 #line {{ position: absolute; top: 0; bottom: 0; left: var(--cut); width: 2px; background: #fff }}
 #cut {{ width: {width}px; max-width: 100% }}
</style></head><body>
<h1>{name}</h1>
<p>Left of the line: before, {before}. Right: after, {after}.{part}</p>
<p><label><input type="checkbox" id="large"> each pixel as one of the screen</label></p>
<div id="pair" style="--cut: 50%"><img id="before" alt="before" src="{first}"><img
 id="after" alt="after" src="{second}">
<div id="line"></div></div>
<p><input type="range" id="cut" min="0" max="100" step="0.1" value="50" aria-label="share of the picture before"></p>
<script>
 const pair = document.getElementById("pair"), cut = document.getElementById("cut");
 const place = (share) => {{ cut.value = share; pair.style.setProperty("--cut", cut.value + "%"); }};
 cut.addEventListener("input", () => place(cut.value));
 const follow = (event) => {{
   const box = pair.getBoundingClientRect();
   place(100 * (event.clientX - box.left) / box.width);
 }};
 pair.addEventListener("pointerdown", (event) => {{ pair.setPointerCapture(event.pointerId); follow(event); }});
 pair.addEventListener("pointermove", (event) => {{ if (event.buttons) follow(event); }});
 document.getElementById("large").addEventListener("change", (event) =>
   pair.classList.toggle("large", event.target.checked));
</script></body></html>
"""


def comparisons_of(plan: Plan) -> dict[Job, Path]:
    """The name of each job's comparison without its ending, beside the result.

    Raises:
        RequestError: a comparison would have the name of an input or of another result.
    """
    count = Counter(job.target.with_suffix("") for job in plan.jobs)
    taken = {real(path) for job in plan.jobs for path in (job.source, job.target)}
    names = {}
    for job in plan.jobs:
        target = job.target
        stem = target.stem if count[target.with_suffix("")] == 1 else full_stem(target)
        picture = target.with_name(file_name(stem, COMPARISON, ".png"))
        if real(picture) in taken:
            raise RequestError(
                f"compare: the comparison of {printable(target)} would be written to {printable(picture)}, which is an "
                "input or another result; rename that file, or give a --suffix"
            )
        names[job] = picture.with_suffix("")
    return names


class BeforeAfter:
    """The part of an image that is shown, gathered while its rows pass.

    Args:
        spec: of the result.
        size: (height, width) of the input.
    """

    def __init__(self, spec: ImageSpec, size: tuple[int, int]) -> None:
        self._spec, self._size = replace(spec, dtype="uint8", exif=None, xmp=None), size
        self._rows, self._columns = _middle(spec.height), _middle(spec.width)
        self._passed, self._after = 0, []

    def take(self, rows: NDArray[Any]) -> None:
        """The next rows [N, W, C] of the result."""
        self._after.append(self._part(rows, self._passed))
        self._passed += len(rows)

    def write(self, path: Path, before: Iterable[NDArray[Any]], within: Path, *, name: str) -> None:
        """Write ``path`` with the endings .png and .html.

        Args:
            path: without an ending.
            before: rows of the input, from top to bottom, enlarged to the size of the result.
            within: see ``atomic_stream``.
            name: what the page is called.
        """
        passed, parts = 0, []
        for rows in before:
            parts.append(self._part(rows, passed))
            passed += len(rows)
            if passed >= self._rows.stop:
                break
        first, second = np.concatenate(parts), np.concatenate(self._after)
        gap = np.full((len(first), _GAP, first.shape[2]), 255, dtype=np.uint8)
        contents: Mapping[str, bytes] = {
            ".png": encode(self._picture(np.concatenate([first, gap, second], axis=1)), "PNG", None),
            ".html": self._page(name, first, second).encode(),
        }
        for ending, content in contents.items():
            with atomic_stream(path.with_name(path.name + ending), within=within) as stream:
                stream.write(content)

    def _part(self, rows: NDArray[Any], passed: int) -> NDArray[np.uint8]:
        """What is shown of the rows that follow the first ``passed``, as 8 bits."""
        shown = rows[max(self._rows.start - passed, 0) : max(self._rows.stop - passed, 0), self._columns]
        return np.array(fitted(shown, self._spec))

    def _picture(self, values: NDArray[np.uint8]) -> DecodedImage:
        has_alpha = values.shape[2] in (2, 4)
        colour, alpha = (values[:, :, :-1], values[:, :, -1]) if has_alpha else (values, None)
        return DecodedImage(colour, alpha, icc_profile=self._spec.icc_profile)

    def _page(self, name: str, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> str:
        spec, (height, width) = self._spec, self._size
        shown = second.shape[:2]
        resampled = ", resampled" if (height, width) != (spec.height, spec.width) else ""
        part = ""
        if shown != (spec.height, spec.width):
            part = f" Shown is the middle, {shown[1]} x {shown[0]} pixels."
        return _PAGE.format(
            name=html.escape(printable(name)),
            width=shown[1],
            before=f"{width} x {height} pixels{resampled}",
            after=f"{spec.width} x {spec.height} pixels",
            part=part,
            first=self._address(first),
            second=self._address(second),
        )

    def _address(self, values: NDArray[np.uint8]) -> str:
        """A picture as an address that holds it."""
        format = "PNG" if values.shape[2] in (2, 4) else "JPEG"
        content = encode(self._picture(values), format, None if format == "PNG" else _QUALITY)
        return f"data:image/{format.lower()};base64,{base64.b64encode(content).decode('ascii')}"


def _middle(side: int) -> slice:
    shown = min(side, LARGEST)
    return slice((side - shown) // 2, (side - shown) // 2 + shown)
