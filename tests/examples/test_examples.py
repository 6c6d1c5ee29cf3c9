"""The chapters of `examples/`: each runs as a stranger would run it, says what it found, draws its picture, and fails when wrong."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minirnn.kernels.availability import emulator_lacks

FOLDER = Path(__file__).parents[2] / "examples"
CHAPTERS = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
PNG, MOST_BYTES, MOST_LINES = b"\x89PNG\r\n\x1a\n", 150_000, 119

# What a mistake looks like: in a chapter (the beginning of its name) one piece of its text is replaced, and it must notice.
PLANTED = {
    "01": ("c = f * c + i * g", "c = f * c + i * g + 1e-9"),
    "02": ("dc_t = dc[t] * f  # (2.9)", "dc_t = dc[t] * f * (1 + 1e-9)"),
    "03": ("(1 - h[t] ** 2)[:, None] * W @ product", "(1 - h[t])[:, None] * W @ product"),
    "04": ("tuple(part.detach() for part in state)", "tuple(part for part in state)"),
    "05": ("given[:, position] = predictions(", "given[:, position] = source[:, position]  # predictions("),
    "06": ('sync();", ""),', 'sync();", "if (t + 1 < T) cooperative_groups::this_grid().sync();"),'),
    "07": ("+ dfh * h)", "+ dfh)"),
    "08": ("kl.sum(), active", "kl.sum() / 2, active"),
    "09": ("from_matrices(**matrices,", 'from_matrices(**{**matrices, "D": 2 * matrices["D"]},'),
}


def run(chapter: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The chapter in a process of its own, started in another folder, where a warning from our code is an error."""
    environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    command = [sys.executable, str(chapter), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def needs(number: str) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip('the chapters draw with Matplotlib: pip install "minirnn[demo]"')
    if number == "06" and (reason := emulator_lacks("build")):
        pytest.skip(f"the chapter runs a kernel on the emulator, and {reason}")


def test_every_chapter_has_a_number_of_its_own() -> None:
    numbers = [chapter.name[:2] for chapter in CHAPTERS]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_runs_anywhere_and_draws_its_picture(chapter: Path, tmp_path: Path) -> None:
    needs(chapter.name[:2])
    ended = run(chapter, tmp_path, "picture.png")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert any(character.isdigit() for character in ended.stdout)
    assert (tmp_path / "picture.png").read_bytes().startswith(PNG)
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_is_short_and_has_its_picture_beside_it(chapter: Path) -> None:
    text = chapter.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    title, underline = text.split("\n")[1:3]
    assert underline == "=" * len(title)
    picture = chapter.with_suffix(".png").read_bytes()
    assert picture.startswith(PNG)
    assert len(picture) <= MOST_BYTES


def test_the_same_seed_prints_the_same(tmp_path: Path) -> None:
    """A chapter that trains, cut short: what it prints comes before it judges itself."""
    needs("05")
    (chapter,) = FOLDER.glob("05_*.py")
    text = chapter.read_text(encoding="utf-8")
    assert text.count("64, 300, 4") == 1
    short = tmp_path / chapter.name
    short.write_text(text.replace("64, 300, 4", "64, 20, 4"), encoding="utf-8")
    first, second = run(short, tmp_path, "a.png"), run(short, tmp_path, "b.png")
    assert "scheduled sampling" in first.stdout
    assert first.stdout == second.stdout


@pytest.mark.parametrize("number", PLANTED)
def test_a_chapter_notices_a_mistake(number: str, tmp_path: Path) -> None:
    needs(number)
    (chapter,) = FOLDER.glob(f"{number}_*.py")
    right, wrong = PLANTED[number]
    text = chapter.read_text(encoding="utf-8")
    assert text.count(right) == 1
    planted = tmp_path / chapter.name
    planted.write_text(text.replace(right, wrong), encoding="utf-8")
    ended = run(planted, tmp_path)
    assert ended.returncode == 1
    assert "AssertionError" in ended.stderr or "GradientError" in ended.stderr


def test_a_cell_its_kernel_its_check_and_its_benchmark_take_sixty_lines() -> None:
    (chapter,) = FOLDER.glob("07_*.py")
    begin, end = "# %%\n# Unrolled", "axes = "
    text = chapter.read_text(encoding="utf-8")
    code = [line for line in text[text.index(begin) : text.index(end)].splitlines() if line.strip() and not line.startswith("#")]
    assert len(code) <= 60
