"""Packaging: pure Python; recipes and the native kernel's sources travel as data; nothing is compiled here."""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup

KERNEL_FOLDERS = [".", *(path.name for path in sorted(Path("kernels").iterdir()) if path.is_dir())]
# kernels/scan -> mambair._kernels.scan: setuptools wants every folder of data named as a package
KERNEL_PACKAGES = {
    ".".join(["mambair", "_kernels", *Path(folder).parts]): str(Path("kernels", folder)) for folder in KERNEL_FOLDERS
}
RECIPE_PACKAGES = {
    "mambair._recipes": "options",
    "mambair._recipes.train": "options/train",
    "mambair._recipes.test": "options/test",
}
# the address of the published repository: links of the README on a package index are absolute, and lead there
REPOSITORY = os.environ.get("MAMBAIR_REPOSITORY", "").rstrip("/")


def readme() -> str:
    """The README, with absolute links where the repository's address is given."""
    text = Path("README.md").read_text(encoding="utf-8")
    if not REPOSITORY:
        return text
    text = re.sub(r"(!\[[^\]]*\]\()(?!https?:|#)", rf"\g<1>{REPOSITORY}/raw/main/", text)
    return re.sub(r"((?<!!)\[[^\]]*\]\()(?!https?:|#)", rf"\g<1>{REPOSITORY}/blob/main/", text)


def addresses() -> dict[str, str]:
    """The addresses that a package index shows, where the repository's is given."""
    if not REPOSITORY:
        return {}
    pages = {"Documentation": "tree/main/docs", "Changelog": "blob/main/CHANGELOG.md", "Issues": "issues"}
    return {"Repository": REPOSITORY, **{name: f"{REPOSITORY}/{page}" for name, page in pages.items()}}


setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    project_urls=addresses(),
    packages=[*find_packages(include=["mambair", "mambair.*"]), *KERNEL_PACKAGES, *RECIPE_PACKAGES],
    package_dir={**KERNEL_PACKAGES, **RECIPE_PACKAGES},
    package_data={
        "mambair": ["py.typed"],
        "mambair.weights": ["*.json", "*.safetensors"],
        "mambair.archs": ["*.json"],
        "mambair.metrics": ["*.safetensors"],
        "mambair.evaluation": ["*.json"],
        **{package: ["*.md", "*.h", "*.cpp"] for package in KERNEL_PACKAGES},
        **{package: ["*.yml", "schema.json"] for package in RECIPE_PACKAGES},
    },
)
