"""Measure weights on test sets and write their card into docs/model_zoo.md, between markers of the file's name.

    python scripts/make_model_card.py --weights mambair/weights/mambair_small_x4.safetensors --set Set5=datasets/Set5/HR
    python scripts/make_model_card.py --weights mambair/weights/mambair_small_dn25.safetensors --sigma 25 \
        --set McMaster=datasets/McMaster

A super-resolution network is compared with MATLAB's bicubic (Y channel, crop border = scale), a denoiser with its noisy
input (RGB, no border, noise of the published protocol: seed 0 before every image).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # works uninstalled, too

from mambair.system.exit_codes import ends_in_order  # noqa: E402

if TYPE_CHECKING:
    from torch import nn

ZOO = Path(__file__).resolve().parents[1] / "docs" / "model_zoo.md"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure weights on test sets and write their card.")
    parser.add_argument("--weights", required=True, help="a file, or the name or address of published weights")
    parser.add_argument("--set", dest="sets", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--sigma", type=float, default=25.0, help="noise of a denoiser's test, in grey levels of 255")
    parser.add_argument(
        "--damaged", action="store_true", help="measure networks that enlarge photographs on damaged images, too"
    )
    parser.add_argument("--output", type=Path, default=ZOO, help="the Markdown file that holds the cards")
    return parser.parse_args(argv)


def metrics_of(scale: int) -> dict[str, dict[str, Any]]:
    """The protocol of the field for the task: Y and a border for super-resolution, RGB without one for denoising."""
    options = {"crop_border": scale if scale > 1 else 0, "test_y_channel": scale > 1}
    return {"psnr": {"type": "calculate_psnr", **options}, "ssim": {"type": "calculate_ssim", **options}}


def build_set(name: str, folder: str, scale: int, sigma: float) -> Any:
    from mambair.data import build_dataset

    options: dict[str, Any] = {"name": name, "phase": "test", "scale": scale, "dataroot_gt": folder}
    if scale > 1:
        return build_dataset({**options, "type": "BicubicDataset"})
    return build_dataset({**options, "type": "GaussianDenoisingDataset", "sigma": sigma})


class DamagedSet:
    """A set whose inputs went through a fixed damage: blur 0.8, reduction, noise of sigma 3, JPEG of quality 60.

    Args:
        clean: gives ``gt`` [3, H, W] and its path; the noise of each image is drawn with its number as the seed.
    """

    def __init__(self, clean: Any, scale: int) -> None:
        self.clean, self.scale = clean, scale

    def __getattr__(self, name: str) -> Any:
        return getattr(self.clean, name)

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, index: int) -> dict[str, Any]:
        import numpy as np

        from mambair.data.degradations.compression import compressed
        from mambair.data.degradations.kernels import GaussianBlur, blur
        from mambair.data.restoration_dataset import to_tensor
        from mambair.images.resize import imresize

        item = dict(self.clean[index])
        blurred = blur(item["gt"][None].double(), [GaussianBlur("iso", 9, 0.8, 0.8)])[0]
        small = np.asarray(imresize(blurred.permute(1, 2, 0).numpy(), 1 / self.scale)) * 255
        noisy = small + np.random.default_rng(index).normal(0, 3, small.shape)
        saved = compressed(noisy.clip(0, 255).round().astype(np.uint8), 60, "4:2:0")
        return {**item, "lq": to_tensor(saved)}


def compare(net: nn.Module, scale: int, sets: list[tuple[str, str]], sigma: float, *, damaged: bool) -> list[str]:
    """Rows of the card's table: each test set, the baseline and the network.

    Raises:
        ValueError: an image could not be measured.
    """
    from mambair.evaluation.candidates import FunctionCandidate, input_of
    from mambair.evaluation.evaluate import measure
    from mambair.evaluation.results import SetResult

    baseline = input_of("GaussianDenoisingDataset", scale)
    rows = ["| test set | images | " + baseline.name + " | this network | gain |", "|---|---|---|---|---|"]
    chosen = [(name, build_set(name, folder, scale, sigma)) for name, folder in sets]
    if damaged:
        chosen = [
            each for name, clean in chosen for each in ((f"{name}, damaged", DamagedSet(clean, scale)), (name, clean))
        ]
    for name, dataset in chosen:
        result = SetResult(name, dataset, metrics_of(scale), scale)
        measure(result, [baseline, FunctionCandidate("network", net)], progress=name)
        if result.failed:
            raise ValueError("; ".join(result.failed))
        before, after = result.mean(baseline.name), result.mean("network")
        rows.append(
            f"| {name} | {len(result.dataset)} | {before['psnr']:.2f} dB / {before['ssim']:.4f} | "
            f"{after['psnr']:.2f} dB / {after['ssim']:.4f} | {after['psnr'] - before['psnr']:+.2f} dB |"
        )
    return rows


def card(weights: Path, sets: list[tuple[str, str]], sigma: float, *, damaged: bool) -> str:
    """The card of one file of weights, as Markdown."""

    import mambair
    from mambair.system.machine import describe_machine
    from mambair.weights.checkpoint import read_checkpoint
    from mambair.weights.model_card import describe

    net = mambair.load(weights)
    scale = int(net.upscale)  # type: ignore[arg-type]
    metadata = read_checkpoint(weights).metadata
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    task = f"{scale}x super-resolution" if scale > 1 else f"denoising, Gaussian noise of sigma {sigma:g}"
    if damaged:
        task += " of damaged photographs (damaged: blur 0.8, bicubic reduction, noise of sigma 3, JPEG of quality 60)"
    protocol = f"Y channel, crop border {scale}" if scale > 1 else f"RGB, sigma {sigma:g}, noise seed 0 for every image"
    lines = [
        f"### {weights.name}",
        "",
        *describe(net, metadata, task),
        f"- File: {weights.stat().st_size / 1e6:.2f} MB, sha256 `{digest}`",
        f"- Measured (PSNR / SSIM; {protocol}; whole images) with {describe_machine()}:",
        "",
        *compare(net, scale, sets, sigma, damaged=damaged),
    ]
    return "\n".join(lines)


def put_between_markers(text: str, name: str, content: str) -> str:
    """``text`` with ``content`` in place of what stood between the markers of ``name``, or at its end."""
    begin, end = f"<!-- card: {name} -->", f"<!-- end: {name} -->"
    block = f"{begin}\n{content}\n{end}"
    if begin in text:
        before, rest = text.split(begin, 1)
        return before + block + rest.split(end, 1)[1]
    return f"{text.rstrip()}\n\n{block}\n"


@ends_in_order()
def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from mambair.system.atomic_file import atomic_path
    from mambair.system.download import download_bar
    from mambair.weights.fetch import locate

    sets = [tuple(entry.split("=", 1)) for entry in arguments.sets]
    weights = locate(arguments.weights, progress=download_bar)
    content = card(weights, sets, arguments.sigma, damaged=arguments.damaged)
    print(content)
    text = arguments.output.read_text(encoding="utf-8") if arguments.output.is_file() else "# Model zoo\n"
    with atomic_path(arguments.output) as temporary:
        temporary.write_text(put_between_markers(text, weights.name, content), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
