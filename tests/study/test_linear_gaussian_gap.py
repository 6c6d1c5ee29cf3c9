"""The study of the gap, in short: the exact likelihood is that of the joint Gaussian, no bound exceeds it, and smoothing comes closer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minirnn.data.sources import lgssm
from minirnn.study import linear_gaussian_gap as study


def test_the_exact_likelihood_is_that_of_the_joint_gaussian() -> None:
    x = lgssm.simulate(3, 6, np.random.default_rng(0))
    A, B, C, D, _, covariance = lgssm.parameters().values()
    powers = [np.linalg.matrix_power(A, k) for k in range(6)]
    # z is stationary: Cov[z_s, z_t] = A^(s - t) P for s >= t
    state = np.block([[powers[s - t] @ covariance if s >= t else covariance @ powers[t - s].T for t in range(6)] for s in range(6)])
    np.testing.assert_allclose(A @ covariance @ A.T + B @ B.T, covariance, atol=1e-12)
    wide = np.kron(np.eye(6), C)
    joint = wide @ state @ wide.T + np.kron(np.eye(6), D @ D.T)
    flat = x.reshape(3, -1)
    _, logdet = np.linalg.slogdet(2 * np.pi * joint)
    expected = -0.5 * (logdet + np.einsum("ni,ij,nj->n", flat, np.linalg.inv(joint), flat))
    np.testing.assert_allclose(study.exact(x), expected, rtol=1e-10)


@pytest.fixture(scope="module")
def results() -> list[study.Result]:
    return [study.learn(posterior, 40, held_out=40, quiet=True, hidden=8, encoder_hidden=8, combiner=8) for posterior in study.POSTERIORS]


def test_no_bound_exceeds_the_likelihood(results: list[study.Result]) -> None:
    for result in results:
        for mean, error in result.gaps.values():
            assert mean > -3 * error
        (elbo, error), (iwae, _) = result.gaps["elbo"], result.gaps["iwae"]
        assert iwae < elbo + 3 * error


def test_the_table_and_the_plot_show_both_posteriors(results: list[study.Result], tmp_path: Path) -> None:
    lines = study.table(results).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["smoothing", "filtering"]
    assert f"{results[0].gaps['elbo'][0]:.4f}" in lines[2]
    pytest.importorskip("matplotlib", reason="draws")
    assert study.draw(results, tmp_path / "gap.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_smoothing_closes_the_gap_and_filtering_does_not() -> None:
    smoothing, filtering = (study.learn(posterior, 1500, quiet=True) for posterior in study.POSTERIORS)
    assert smoothing.gaps["elbo"][0] < 0.03
    assert filtering.gaps["elbo"][0] > 0.08


def test_mistakes_on_the_command_line_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        study.main(["--updates", "0"])
    assert error.value.code == 2
    assert "--updates must be at least 1" in capsys.readouterr().err
