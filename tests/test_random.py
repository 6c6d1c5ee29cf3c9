from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from minirnn.random import generator, manual_seed


def test_a_generator_is_shared_and_not_copied(rng):
    assert generator(rng) is rng


@pytest.mark.parametrize("seed", [0, 7, 2**63, np.int64(7)])
def test_a_seed_gives_numpys_own_stream(seed):
    np.testing.assert_array_equal(generator(seed).random(5), np.random.default_rng(seed).random(5))


def test_none_is_one_stream_that_moves_on():
    manual_seed(3)
    drawn = [generator(None).random(), generator(None).random()]
    np.testing.assert_array_equal(drawn, np.random.default_rng(3).random(2))


def test_reseeding_reaches_whoever_holds_the_default_generator():
    held = generator()
    manual_seed(11)
    assert held.random() == np.random.default_rng(11).random()


def test_a_fresh_interpreter_starts_from_seed_zero():
    command = "import minirnn.random; print(minirnn.random.generator().random())"
    drawn = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout
    assert float(drawn) == np.random.default_rng(0).random()


@pytest.mark.parametrize("wrong", ["0", 1.0, True, np.random.RandomState(0)])
def test_anything_else_is_refused_by_name(wrong):
    with pytest.raises(TypeError, match=r"rng: expected a numpy.random.Generator, an integer seed or None, got .* of type"):
        generator(wrong)
    if wrong is not None:
        with pytest.raises(TypeError, match="integer seed"):
            manual_seed(wrong)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="a seed is 0 or more, got -1"):
        generator(-1)
