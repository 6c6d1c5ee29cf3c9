"""The sdist, the wheel and the editable install, each looked at from outside the source tree.

The tree is copied and built there, with files planted in it that a careless list of packages would lose or a careless pattern would
ship. The environments hold nothing but minirnn, and see the libraries of the running one through a `.pth` file: its own editable
minirnn, if it has one, cannot stand in for a file that is missing.
"""

from __future__ import annotations

import email
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

can_build = find_spec("pip") is not None and int(version("setuptools").partition(".")[0]) >= 77
pytestmark = pytest.mark.skipif(not can_build, reason="needs pip, and setuptools 77 or newer, to build with")

ROOT = Path(__file__).resolve().parents[2]
PLANTED = {
    "kernels/planted/__init__.py": "",
    "kernels/planted/cell.cu": "// one thread per unit\n",
    "kernels/planted/tiles.h": "#define TILE 32\n",
    "kernels/planted/README.md": "# planted\n",
    "minirnn/planted/tables/words.tsv": "one\tun\n",
    "minirnn/planted/__init__.py": "",
}
STRAY = [
    "kernels/planted/__pycache__/cell.cpython-311.pyc",
    "kernels/planted/cell.step-1.py311.nbi",
    "minirnn/planted/old.pyc",
    "minirnn/tensor.py~",
]


def run(*command: object, cwd: Path, **options) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}
    result = subprocess.run([str(c) for c in command], cwd=cwd, env=clean, capture_output=True, text=True, check=False, **options)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def build(kind: str, tree: Path, out: Path) -> Path:
    """Call the build back end as pip and build do (PEP 517), with the setuptools that is installed here."""
    out.mkdir()
    name = run(sys.executable, "-c", f"import setuptools.build_meta as b; print(b.build_{kind}({str(out)!r}))", cwd=tree).splitlines()[-1]
    return out / name


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    tree = tmp_path_factory.mktemp("tree") / "minirnn"
    tree.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc", "*.pyc", "*~", ".*")
    for folder in ("minirnn", "kernels", "tests", "examples", "docs"):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, tree / folder, ignore=unwanted)
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, tree)
    for name, text in PLANTED.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    return tree


@pytest.fixture(scope="module")
def shipped(tree) -> set[str]:
    """What a wheel must hold, named as it is installed."""
    kernels = {f"minirnn/kernels/{name}" for name in files_below(tree / "kernels")}
    return kernels | {f"minirnn/{name}" for name in files_below(tree / "minirnn")}


@pytest.fixture(scope="module")
def littered(tree, shipped) -> Path:
    """The tree after somebody has worked in it; `shipped` was listed before."""
    for name in STRAY:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(b"stray")
    return tree


@pytest.fixture(scope="module")
def sdist(littered, tmp_path_factory) -> Path:
    return build("sdist", littered, tmp_path_factory.mktemp("build") / "sdist")


@pytest.fixture(scope="module")
def wheel(littered, sdist, tmp_path_factory) -> Path:
    return build("wheel", littered, tmp_path_factory.mktemp("build") / "wheel")


def environment(folder: Path, *install: object) -> Path:
    """The interpreter of a new environment in which pip has installed one thing, from no index."""
    venv.create(folder, with_pip=False)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / Path(sys.executable).with_stem("python").name
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n" + sysconfig.get_path("platlib") + "\n")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed", "--disable-pip-version-check"]
    run(python, "-m", "pip", "install", *options, *install, cwd=folder)
    return python


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    return environment(tmp_path_factory.mktemp("installed"), wheel)


@pytest.fixture(scope="module")
def editable(littered, wheel, sdist, tmp_path_factory) -> Path:
    return environment(tmp_path_factory.mktemp("editable"), "--editable", littered)


def test_the_wheel_holds_every_file_of_the_tree_and_no_other(wheel, shipped):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == shipped
    assert {"minirnn/py.typed", "minirnn/kernels/planted/cell.cu", "minirnn/planted/tables/words.tsv"} <= names


def test_nothing_but_minirnn_lies_at_the_top_of_the_wheel(wheel):
    top = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"minirnn"}


def test_the_sdist_holds_the_tree_as_it_lies(sdist, tree, shipped):
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    source = {name for name in names if name.split("/")[0] in {"minirnn", "kernels"}}
    expected = {name.replace("minirnn/kernels/", "kernels/") for name in shipped}
    assert source == expected
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "Makefile", "MANIFEST.in", "tests/conftest.py", "docs/conf.py"} <= names


def test_the_wheel_from_the_sdist_is_the_wheel_from_the_tree(sdist, wheel, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    again = build("wheel", unpacked, tmp_path / "again")
    first, second = ({i.filename: i.CRC for i in zipfile.ZipFile(path).infolist()} for path in (wheel, again))
    assert first == second


def test_the_metadata_names_the_version_the_python_the_extras_and_the_command(wheel, tree):
    archive = zipfile.ZipFile(wheel)
    (info,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
    assert metadata["Name"] == "minirnn"
    assert f'__version__ = "{metadata["Version"]}"' in (tree / "minirnn" / "_version.py").read_text()
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    extras = {"demo", "test", "compile", "cuda12", "cuda13", "emulator", "bench", "browser", "docs", "dev"}
    assert set(metadata.get_all("Provides-Extra")) == extras
    assert "minirnn = minirnn.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
    required = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert {line.split(">")[0] for line in required} == {"numpy", "numba", "safetensors", "rich"}
    assert not any("torch" in line for line in metadata.get_all("Requires-Dist"))


def test_the_installed_package_is_complete_from_anywhere(installed, tmp_path, shipped):
    program = """if True:
        import importlib.util, json, minirnn, minirnn.kernels.contract
        from importlib import resources
        from importlib.metadata import version
        print(json.dumps({
            "package": minirnn.__file__,
            "contract": minirnn.kernels.contract.__file__,
            "cell": resources.files("minirnn.kernels").joinpath("planted/cell.cu").read_text(),
            "top level kernels": importlib.util.find_spec("kernels") is not None,
            "versions": [minirnn.__version__, version("minirnn")],
        }))
    """
    found = json.loads(run(installed, "-c", program, cwd=tmp_path))
    home = Path(found["package"]).parent
    assert home.is_relative_to(installed.parents[1])
    assert Path(found["contract"]) == home / "kernels" / "contract.py"
    assert found["cell"] == PLANTED["kernels/planted/cell.cu"]
    assert not found["top level kernels"]
    assert found["versions"][0] == found["versions"][1]
    assert {f"minirnn/{name}" for name in files_below(home) if "__pycache__" not in name} == shipped


@pytest.mark.parametrize("command", [["minirnn"], ["python", "-m", "minirnn"]], ids=" ".join)
def test_the_command_answers(installed, tmp_path, command):
    program, *rest = command
    assert "usage" in run(installed.with_name(program), *rest, "--help", cwd=tmp_path).lower()


@pytest.mark.parametrize("place", ["elsewhere", "the tree", "a folder of the tree"])
def test_the_editable_install_finds_the_kernels_from(place, editable, littered, tmp_path):
    cwd = {"elsewhere": tmp_path, "the tree": littered, "a folder of the tree": littered / "kernels" / "planted"}[place]
    program = "import minirnn, minirnn.kernels.contract as c, minirnn.kernels.planted as p; print(minirnn.__file__, c.__file__, p.__file__)"
    expected = [littered / "minirnn/__init__.py", littered / "kernels/contract.py", littered / "kernels/planted/__init__.py"]
    assert run(editable, "-c", program, cwd=cwd).split() == [str(path) for path in expected]


def test_the_editable_install_follows_the_tree(editable, littered, tmp_path):
    for folder, module in [("kernels", "minirnn.kernels.later"), ("minirnn", "minirnn.later")]:
        (littered / folder / "later").mkdir()
        (littered / folder / "later" / "__init__.py").write_text("answer = 42\n")
        assert run(editable, "-c", f"import {module} as m; print(m.answer)", cwd=tmp_path) == "42\n"


def test_the_editable_install_brings_no_top_level_kernels(editable, tmp_path):
    program = "import importlib.util as u; print(u.find_spec('kernels'))"
    assert run(editable, "-c", program, cwd=tmp_path) == "None\n"


def test_importing_minirnn_is_silent_and_loads_numpy_and_the_standard_library_alone(installed, tmp_path):
    program = """if True:
        import contextlib, io, json, sys
        import numpy
        before = set(sys.modules)
        heard = io.StringIO()
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
            import minirnn
        print(json.dumps([heard.getvalue(), sorted(set(sys.modules) - before)]))
    """
    heard, loaded = json.loads(run(installed, "-W", "error", "-c", program, cwd=tmp_path))
    assert heard == ""
    foreign = {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names | {"minirnn", "numpy"}}
    assert foreign == set()
    assert "importlib.metadata" not in loaded
