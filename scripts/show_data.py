"""Draw a contact sheet of the data of an option file: inputs beside ground truth, and a text file with what was drawn.

python scripts/show_data.py options/train_SR_x4.yml -o sheet.png
python scripts/show_data.py options/train_SR_x4.yml -o sheet.png --dataset val --count 4
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # works uninstalled, too


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit code: 0 written, 2 a fault in the options, the images or the output.",
    )
    parser.add_argument("option_file", type=Path, metavar="OPT", help="option file of a training or a test")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="SHEET", help="picture to write")
    parser.add_argument("--dataset", default="train", metavar="NAME", help="train (default), val, test_1, ...")
    parser.add_argument("-n", "--count", type=int, default=16, help="samples (default: 16)")
    arguments = parser.parse_args(argv)
    from mambair.data_tools.show import show_data
    from mambair.options import load_options

    label = arguments.dataset
    try:
        opt = load_options(arguments.option_file, is_train=not label.startswith("test"))
        text = show_data(opt, arguments.output, label=label, count=arguments.count)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{arguments.output} and {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
