"""Packaging: pure Python; the native kernel's sources travel as data and are compiled at first use, never here."""

from pathlib import Path

from setuptools import find_packages, setup

KERNEL_FOLDERS = [".", *(path.name for path in sorted(Path("kernels").iterdir()) if path.is_dir())]
# kernels/scan -> mambair._kernels.scan: setuptools wants every folder of data named as a package
KERNEL_PACKAGES = {
    ".".join(["mambair", "_kernels", *Path(folder).parts]): str(Path("kernels", folder)) for folder in KERNEL_FOLDERS
}

setup(
    packages=[*find_packages(include=["mambair", "mambair.*"]), *KERNEL_PACKAGES],
    package_dir=KERNEL_PACKAGES,
    package_data={
        "mambair": ["py.typed"],
        "mambair.weights": ["*.json", "*.safetensors"],
        "mambair.archs": ["*.json"],
        "mambair.metrics": ["*.safetensors"],
        "mambair.evaluation": ["*.json"],
        **{package: ["*.md", "*.h", "*.cpp"] for package in KERNEL_PACKAGES},
    },
)
