"""Packaging: pure Python; the native kernel's sources travel as data and are compiled at first use, never here."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["mambair", "mambair.*"]), "mambair._kernels"],
    package_dir={"mambair._kernels": "kernels"},
    package_data={
        "mambair": ["weights/*.safetensors", "py.typed"],
        "mambair._kernels": ["*.md", "*.h", "*.cpp", "*/*.h", "*/*.cpp"],
    },
)
