"""Show a file or a folder with the program that the desktop has for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def show_file(path: Path) -> str | None:
    """Open a file as a double click does, without waiting; return why that cannot be done, None if it was begun."""
    name = str(path.resolve())
    if sys.platform == "win32":
        try:
            os.startfile(name)
        except OSError as error:
            return str(error)
        return None
    opener = "open" if sys.platform == "darwin" else "xdg-open"
    if sys.platform != "darwin" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    program = shutil.which(opener)
    if program is None:
        return f"the program {opener} is not installed"
    quiet = subprocess.DEVNULL
    try:
        subprocess.Popen([program, name], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    except OSError as error:
        return str(error)
    return None
