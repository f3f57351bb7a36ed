"""Take noise out of images: `python inference/inference_denoise.py -i FOLDER_OR_IMAGE -o OUT [--sigma 25]`."""

import sys
from pathlib import Path

# Python puts this folder on the path; the root of the checkout takes its place, so that nothing need be installed
HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent), *(entry for entry in sys.path if Path(entry).resolve() != HERE)]

from mambair.commands.restore import main  # noqa: E402
from mambair.system.exit_codes import leave  # noqa: E402

if __name__ == "__main__":
    leave(main(task="denoise"))
