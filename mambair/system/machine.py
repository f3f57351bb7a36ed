"""The line that stands beside every measured figure: machine, versions, date."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path


def processor_name() -> str:
    """The processor as the operating system names it, else the architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return " ".join(line.split(":", 1)[1].split())
    return platform.processor() or platform.machine()


def describe_machine(*packages: str) -> str:
    """Processor, cores, Python, torch and the versions of further installed ``packages``, and today's date (UTC)."""
    versions = [f"Python {platform.python_version()}"]
    for package in ("torch", *packages):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    today = datetime.datetime.now(datetime.timezone.utc).date()
    return f"{processor_name()}, {os.cpu_count()} cores, {', '.join(versions)}, {today.isoformat()}"
