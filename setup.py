"""The packages of the distribution: `minirnn/` as it lies, and `kernels/` as `minirnn.kernels`, never as a top-level `kernels`.

Which files besides the modules go along is in `MANIFEST.in`; everything else that describes the distribution is in `pyproject.toml`.
"""

from __future__ import annotations

from setuptools import find_namespace_packages, setup


def packages_below(folder: str, name: str) -> list[str]:
    """The folder and every folder below it as a package, whether or not it has an `__init__.py`: some hold data files alone."""
    return [name, *(f"{name}.{below}" for below in find_namespace_packages(folder, exclude=["*__pycache__*"]))]


setup(
    packages=packages_below("minirnn", "minirnn") + packages_below("kernels", "minirnn.kernels"),
    package_dir={"minirnn": "minirnn", "minirnn.kernels": "kernels"},
)
