"""Learning-rate schedules against their formulas and PyTorch's."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from minirnn import nn, optim


def optimizer_of(*rates: float) -> optim.SGD:
    return optim.SGD([{"params": [nn.Parameter(np.zeros(1))], "lr": lr} for lr in rates])


def rates(schedule: Any, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(schedule.optimizer.lr)
        schedule.step()
    return found


FORMULAS: list[tuple[Any, Any]] = [
    (lambda o: optim.LambdaLR(o, lambda k: 1 / (1 + k)), lambda k: 1 / (1 + k)),
    (lambda o: optim.StepLR(o, 3, 0.5), lambda k: 0.5 ** (k // 3)),
    (lambda o: optim.ExponentialLR(o, 0.8), lambda k: 0.8**k),
    (lambda o: optim.LinearWarmup(o, 4), lambda k: min(1, (k + 1) / 4)),
    (lambda o: optim.CosineLR(o, 10, minimum=0.1), lambda k: 0.1 + 0.45 * (1 + math.cos(math.pi * min(k, 10) / 10))),
    (lambda o: optim.CosineLR(o, 10, warmup=2), lambda k: (k + 1) / 2 if k < 2 else (1 + math.cos(math.pi * min(k - 2, 8) / 8)) / 2),
]


@pytest.mark.parametrize(("make", "formula"), FORMULAS)
def test_rates_follow_the_formula_in_every_group(make: Any, formula: Any) -> None:
    optimizer = optimizer_of(0.1, 2.0)
    schedule = make(optimizer)
    for k in range(15):
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1 * formula(k), 2.0 * formula(k)], abs=1e-15)
        schedule.step()


@pytest.mark.parametrize("make", [make for make, _ in FORMULAS])
def test_a_resumed_schedule_goes_on(make: Any) -> None:
    whole = make(optimizer_of(0.1))
    expected = rates(whole, 14)
    first = make(optimizer_of(0.1))
    rates(first, 5)
    second = make(optimizer_of(7.0))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert rates(second, 9) == expected[5:]
    with pytest.raises(ValueError, match="the state has 1 groups, the optimiser has 2"):
        make(optimizer_of(1.0, 2.0)).load_state_dict(first.state_dict())


def test_pytorchs_schedules_are_the_same() -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    kinds = torch.optim.lr_scheduler
    for ours, theirs in (
        (lambda o: optim.StepLR(o, 3, 0.5), lambda o: kinds.StepLR(o, 3, 0.5)),
        (lambda o: optim.ExponentialLR(o, 0.8), lambda o: kinds.ExponentialLR(o, 0.8)),
        (lambda o: optim.CosineLR(o, 10), lambda o: kinds.CosineAnnealingLR(o, 10)),
    ):
        their = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        schedule, expected = theirs(their), []
        for _ in range(11):
            expected.append(their.param_groups[0]["lr"])
            their.step()
            schedule.step()
        assert rates(ours(optimizer_of(0.1)), 11) == pytest.approx(expected, abs=1e-15)


def test_a_plateau_lowers_the_rate_after_its_patience() -> None:
    metrics = [5.0, 4.0, 4.0, 4.1, 4.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]
    for sign, mode in ((1, "min"), (-1, "max")):
        optimizer = optimizer_of(1.0)
        schedule = optim.ReduceOnPlateau(optimizer, gamma=0.5, patience=2, mode=mode, minimum=0.2)
        found = []
        for metric in metrics:
            schedule.step(sign * metric)
            found.append(optimizer.lr)
        assert found == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
        other = optim.ReduceOnPlateau(optimizer_of(1.0), gamma=0.5, patience=2, mode=mode, minimum=0.2)
        other.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
        other.step(sign * 3.0)
        assert other.optimizer.lr == 0.2
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    their = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(their, factor=0.5, patience=2, min_lr=0.2)
    expected = []
    for metric in metrics:
        plateau.step(metric)
        expected.append(their.param_groups[0]["lr"])
    assert expected == found


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_metric_that_is_not_finite_is_no_best(bad: float) -> None:
    schedule = optim.ReduceOnPlateau(optimizer_of(1.0), gamma=0.5, patience=1)
    found = []
    for metric in (bad, 5.0, 4.0, bad, 3.0, 2.0, bad, bad):
        schedule.step(metric)
        found.append(schedule.optimizer.param_groups[0]["lr"])
    assert found == [1] * 7 + [0.5]


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="StepLR: step_size must be at least 1, got 0"):
        optim.StepLR(optimizer_of(1.0), 0)
    with pytest.raises(ValueError, match="LinearWarmup: steps must be at least 1, got 0"):
        optim.LinearWarmup(optimizer_of(1.0), 0)
    with pytest.raises(TypeError, match="needs the metric to watch"):
        optim.ReduceOnPlateau(optimizer_of(1.0)).step()
    with pytest.raises(ValueError, match='mode must be "min" or "max", got \'low\''):
        optim.ReduceOnPlateau(optimizer_of(1.0), mode="low")
    with pytest.raises(ValueError, match=r"warmup must be in 0\.\.steps-1, got warmup=5, steps=5"):
        optim.CosineLR(optimizer_of(1.0), 5, warmup=5)
