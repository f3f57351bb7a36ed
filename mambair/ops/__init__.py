"""The selective scan of state-space models, one-dimensional and over the pixels of an image, on any machine.

Importing this package builds and loads nothing native; a backend is looked for when a scan first runs.
"""

from __future__ import annotations

from mambair.ops.selective_scan import selective_scan, selective_scan_fn
from mambair.ops.ss2d_scan import ss2d_scan

__all__ = ["selective_scan", "selective_scan_fn", "ss2d_scan"]
