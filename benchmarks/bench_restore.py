"""Time of restoring a folder against the pure compute time of its tiles: what reading and writing cost beside them.

python benchmarks/bench_restore.py [--images 24] [--size 320x240] [--format png] [--output results.md]

The pure time is that of the network on the very tiles of the folder, in as many lanes and the same batches, with
nothing around it. Each folder is measured between two pure rounds, in one process, after the results were compared with
those of the restorer called directly; the share is the median of the folders', so that a machine whose speed drifts
does not decide it. Beside it stands the time of batch after batch on all cores, as a plain loop over the tiles would
have it.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mambair import Restorer
    from mambair.folders.plan import Job

BAR = 0.95
LIGHT: dict[str, Any] = {"upscale": 4, "embed_dim": 60, "d_state": 10, "depths": [6, 6, 6, 6], "mlp_ratio": 1.2}
LIGHT["upsampler"] = "pixelshuffledirect"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 1 below the bar, or where results differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("sr", "denoise"), default="sr", help="which packaged network (default sr)")
    parser.add_argument("--weights", help="another network")
    parser.add_argument("--light", action="store_true", help="the published MambaIR-light x4, with random weights")
    parser.add_argument("--images", type=int, default=24, help="files in the folder (default 24)")
    parser.add_argument("--size", default="320x240", help="width x height of each (default 320x240)")
    parser.add_argument("--format", default="png", help="of the results (default png)")
    parser.add_argument("--tile", type=int, help="default: that of the network")
    parser.add_argument("--rounds", type=int, default=7, help="folders that are measured (default 7)")
    parser.add_argument("--threads", type=int, help="of torch (default: as many as cores)")
    parser.add_argument("--device", help="default: CUDA if there is one")
    parser.add_argument("--output", type=Path, help="also append a row to this Markdown file")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

    import torch

    from mambair import Restorer
    from mambair.archs import build
    from mambair.system.process_memory import keep_freed_memory
    from mambair.weights.packaged import default_weights

    keep_freed_memory()  # as the command does
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.light:
        net = build("MambaIR", LIGHT)
        restorer = Restorer(net, device=options.device, tile=options.tile)
    else:
        weights = options.weights or default_weights(options.task, 4 if options.task == "sr" else 25)
        restorer = Restorer.from_checkpoint(weights, device=options.device, tile=options.tile)
    width, height = (int(side) for side in options.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder) / "in", options.images, width, height)
        row, share = measure(restorer, Path(folder), options)
    print(row)
    if options.output:
        append_row(options.output, row)
    return 0 if share >= BAR else 1


def make_images(folder: Path, count: int, width: int, height: int) -> None:
    """Pictures that look like photographs to an encoder: smooth shapes with a little noise."""
    import numpy as np

    from mambair.images.files import DecodedImage, write_image

    rows, columns = np.mgrid[:height, :width]
    for index in range(count):
        rng = np.random.default_rng(index)
        waves = [np.sin(rows / rng.uniform(5, 60) + columns / rng.uniform(5, 60) + rng.uniform(0, 6)) for _ in range(3)]
        values = 128 + 80 * np.stack(waves, axis=2) + rng.normal(0, 3, (height, width, 3))
        write_image(folder / f"{index}.png", DecodedImage(np.clip(values, 0, 255).astype(np.uint8)))


def measure(restorer: Restorer, folder: Path, options: argparse.Namespace) -> tuple[str, float]:
    """Row of the table, and pure time divided by the folder's."""
    import torch

    from mambair.folders.pipeline import restore_files
    from mambair.folders.plan import plan_jobs
    from mambair.folders.resume import Ledger
    from mambair.folders.workers import lanes_of
    from mambair.ops.backends import explain
    from mambair.system.machine import describe_machine

    def run(name: str) -> float:
        out = folder / name
        plan = plan_jobs(folder / "in", out, format=options.format)
        started = time.perf_counter()
        report = restore_files(restorer, plan, ledger=Ledger(out, {}), quiet=True)
        assert report.complete, report.failed
        return time.perf_counter() - started

    lanes = lanes_of(restorer)
    per_call = restorer.batch // lanes
    tiles = list(tiles_of(restorer, folder / "in", per_call))
    batches = list(tiles_of(restorer, folder / "in", restorer.batch))
    pure_time(restorer.net, tiles[:lanes], lanes)
    run("warm")
    if options.format == "png":
        compare(restorer, plan_jobs(folder / "in", folder / "warm", format="png").jobs, per_call)
    pure, plain, whole = [pure_time(restorer.net, tiles, lanes)], [], []
    for number in range(options.rounds):
        whole.append(run(f"round {number}"))
        pure.append(pure_time(restorer.net, tiles, lanes))
        plain.append(pure_time(restorer.net, batches, 1))
    shares = [(before + after) / 2 / taken for before, taken, after in zip(pure[:-1], whole, pure[1:], strict=True)]
    share = statistics.median(shares)
    weights = sum(each.numel() for each in restorer.net.parameters())
    network = f"{type(restorer.net).__name__} x{restorer.scale}, {weights // 1000}K"
    machine = f"{describe_machine('numpy', 'Pillow')}, {torch.get_num_threads()} threads"
    return (
        f"| {network} | {explain(restorer.device.type)[0]} | {options.images} of {options.size} | {options.format} | "
        f"{sum(map(len, tiles))} | {lanes} | {statistics.median(plain):.2f} | {statistics.median(pure):.2f} | "
        f"{statistics.median(whole):.2f} | {share:.1%} | {min(shares):.0%} to {max(shares):.0%} | {machine} |",
        share,
    )


def compare(restorer: Restorer, jobs: Sequence[Job], batch: int) -> None:
    """Stop unless the files are, pixel for pixel, what the restorer gives for each image by itself."""
    from mambair import Restorer
    from mambair.images.files import read_image

    # of another batch, the last bits of a network's output may be others
    alone = Restorer(restorer.net, device=restorer.device, tile=restorer.tile, overlap=restorer.overlap, batch=batch)
    for job in jobs:
        if not (read_image(job.target).pixels == alone(read_image(job.source).pixels)).all():
            raise SystemExit(f"{job.target.name} is not what the restorer gives: nothing is timed")


def tiles_of(restorer: Restorer, folder: Path, batch: int) -> Iterator[Tensor]:
    """The tiles of the folder as the network gets them: [B, 3, h, w] float32 on its device, B up to ``batch``."""
    import torch

    from mambair.images.files import list_images, read_image
    from mambair.inference.tiling import tile_spans

    grid = {"tile": restorer.tile, "overlap": restorer.overlap, "multiple": restorer.multiple}
    for path in list_images(folder):
        image = torch.from_numpy(read_image(path).pixels.copy()).permute(2, 0, 1)[None].float() / 255
        spans = itertools.product(tile_spans(image.shape[-2], **grid), tile_spans(image.shape[-1], **grid))
        tiles = [image[..., row.start : row.stop, column.start : column.stop] for row, column in spans]
        for first in range(0, len(tiles), batch):
            yield torch.cat(tiles[first : first + batch]).to(restorer.device)


def pure_time(net: nn.Module, tiles: Sequence[Tensor], count: int) -> float:
    """Seconds of the network alone, in so many lanes."""
    import torch

    from mambair.folders.workers import Lanes

    started = time.perf_counter()
    with Lanes(net, count) as lanes:

        @torch.inference_mode()
        def restore(tile: Tensor) -> None:
            lanes.take_share(count)
            net(tile)

        lanes.run(iter(tiles), restore)
        if tiles[0].is_cuda:
            torch.cuda.synchronize()
    return time.perf_counter() - started


def append_row(path: Path, row: str) -> None:
    """Add to the table in a Markdown file, which is made if it is missing."""
    from mambair.system.atomic_file import atomic_path

    head = "# Restoring a folder against the pure compute time of its tiles\n\n"
    head += "`python benchmarks/bench_restore.py`; medians of several rounds in turns; bar: at least 95 %\n\n"
    head += "| network | scan | images | results | tiles | lanes | batch after batch, s | pure, s | folder, s | "
    head += "pure / folder | rounds | machine |\n|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|---|\n"
    before = path.read_text(encoding="utf-8") if path.exists() else head
    with atomic_path(path) as temporary:
        temporary.write_text(before + row + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
