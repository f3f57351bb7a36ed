"""Run the commands of docs/fine_tuning.md on a folder of photographs, and print what they changed.

    python scripts/fine_tuning_guide.py PHOTOS --work FOLDER --iterations 400

Every eighth photograph is held out. The commands are those of the document; ``--iterations`` shortens the training.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[0] = str(REPOSITORY)  # works uninstalled, too

from mambair.images.files import list_images  # noqa: E402
from mambair.system.bounded_reader import read_json  # noqa: E402
from mambair.system.console import say  # noqa: E402
from mambair.system.tables import markdown  # noqa: E402

DOCUMENT = REPOSITORY / "docs" / "fine_tuning.md"
HELD_OUT = 8  # one of so many


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Run the commands of docs/fine_tuning.md.")
    parser.add_argument("photos", type=Path, help="folder of photographs")
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="new folder to work in")
    parser.add_argument("--iterations", type=int, metavar="N", help="steps of the training, in place of the file's")
    options = parser.parse_args(arguments)
    split(options.photos, options.work / "photos")
    for command in commands(DOCUMENT.read_text(encoding="utf-8"), options.iterations):
        say("$ " + shlex.join(command))
        # the option files are those of this checkout, all else is relative to the folder
        called = [sys.executable, "-m", *(_in_checkout(word) for word in command)]
        subprocess.run(called, cwd=options.work, check=True)
    say(markdown(figures(options.work)))


def split(photos: Path, folder: Path) -> None:
    """Copy the photographs into ``train`` and ``val`` of a new folder."""
    for name in ("train", "val"):
        (folder / name).mkdir(parents=True)
    for index, path in enumerate(list_images(photos)):
        shutil.copy(path, folder / ("train" if index % HELD_OUT else "val") / path.name)


def commands(text: str, iterations: int | None) -> Iterator[list[str]]:
    """The words of each command in the document's blocks of bash."""
    for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line)
            if iterations is not None and words[1] == "train":
                warm_up = f"train:warmup_iter={min(100, iterations // 10) or -1}"
                words += ["--force_yml", f"train:total_iter={iterations}", f"val:val_freq={iterations}", warm_up]
            yield words


def figures(work: Path) -> list[list[str]]:
    """Means of the held-out photographs: bicubic, before and after."""
    rows = [["", "PSNR", "SSIM", "NIQE"]]
    for name in ("before", "after"):
        content = read_json(work / "results" / name / "metrics.json")
        methods = content["levels"][0]["sets"][0]["methods"]
        for method in ("bicubic", name) if name == "before" else (name,):
            mean = methods[method]["mean"]
            rows.append([method, f"{mean['psnr']:.2f}", f"{mean['ssim']:.4f}", f"{mean['niqe']:.2f}"])
    return rows


def _in_checkout(word: str) -> str:
    return str(REPOSITORY / word) if word.startswith("options/") else word


if __name__ == "__main__":
    main()
