"""Run folders: whole at every moment, complete, and refused with the reason where they are not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minirnn import serialization
from minirnn.errors import MinirnnError
from minirnn.random import generator, manual_seed
from minirnn.training import Run, Trainer, TrainingOptions
from minirnn.training.checkpoint import check_free, load_weights, new_folder

from .test_loop import DATA, make_run, resume, train, without_time
from .tiny import TinyConfig, TinyTask


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", TrainingOptions(epochs=1, schedule="cosine", lr=0.25), TinyConfig(hidden=5))
    train(run)
    again = Run.open(tmp_path / "run")
    assert again.config == TinyConfig(hidden=5, features=2)  # with what the data decided
    assert (again.training, again.data, again.seed, again.model) == (run.training, run.data, run.seed, "tiny")


@pytest.mark.parametrize("killed_at", ["save_best", "save_last", "write_metrics"])
def test_a_process_killed_between_two_files_can_go_on_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    """The power fails at the second call, before or after that file is replaced."""
    options = TrainingOptions(lr=1e-2, epochs=4, average=0.9)
    _, expected = train(make_run(tmp_path / "straight", options))
    for after in (False, True):
        folder = tmp_path / f"killed-{after}"
        original, calls = getattr(Run, killed_at), []

        def dies(self: Run, *arguments: object, after: bool = after, original: object = original, calls: list[int] = calls) -> None:
            calls.append(1)
            if len(calls) == 2 and not after:
                raise SystemExit
            original(self, *arguments)  # type: ignore[operator]
            if len(calls) == 2:
                raise SystemExit

        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(Run, killed_at, dies)
            train(make_run(folder, options))
        _, outcome = resume(folder)
        assert without_time(outcome.rows) == without_time(expected.rows)
        for file in ("model.safetensors", "last.safetensors"):
            first, second = (serialization.load(parent / file) for parent in (tmp_path / "straight", folder))
            assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_run_killed_at_once_can_be_opened(tmp_path: Path) -> None:
    """SIGKILL at some moment of a run that saves all the time: what is there is whole."""
    program = (
        "import sys; from pathlib import Path; from tests.training.test_loop import make_run, train; from minirnn.training import "
        "TrainingOptions; train(make_run(Path(sys.argv[1]), TrainingOptions(epochs=10**6, validate_every=1)))"
    )
    # Not by sys.path: other distributions install a package that is called tests, too.
    folder = str(Path(__file__).parents[1])
    here = f"import sys, types; sys.modules['tests'] = tests = types.ModuleType('tests'); tests.__path__ = [{folder!r}]"
    process = subprocess.Popen([sys.executable, "-c", f"{here}; {program}", str(tmp_path / "run")])
    try:
        while not (tmp_path / "run" / "last.safetensors").exists():
            assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    task, arrays, state = Run.open(tmp_path / "run").resume()
    assert state.step >= 1
    assert arrays["optimizer/m.output.bias"].shape == (1,)
    for name, array in task.model.state_dict().items():
        np.testing.assert_array_equal(array, arrays[f"model/{name}"])


def test_resuming_restores_the_default_generator(tmp_path: Path) -> None:
    train(make_run(tmp_path / "run", TrainingOptions(epochs=1)))
    expected = generator(None).bit_generator.state
    manual_seed(123)
    run = Run.open(tmp_path / "run")
    task, arrays, state = run.resume()
    Trainer(task, run.training, run.seed).load(arrays, state, [])
    assert generator(None).bit_generator.state == expected


def test_without_a_validation_there_are_no_best_weights(tmp_path: Path) -> None:
    train(make_run(tmp_path / "run", TrainingOptions(epochs=1)), lambda task: setattr(task, "during_step", 1))
    with pytest.raises(MinirnnError, match=r"training stopped before its first validation; go on: minirnn train --resume"):
        Run.open(tmp_path / "run").task()


def test_weights_of_another_shape_are_refused_by_name(tmp_path: Path) -> None:
    model = TinyTask.build(TinyConfig(hidden=4), DATA, 0).model
    other = TinyTask.build(TinyConfig(hidden=6), DATA, 0).model.state_dict()
    before = model.state_dict()
    with pytest.raises(MinirnnError, match=r"lstm.weight_ih_l0 is \(24, 2\), expected \(16, 2\); .* and \d more"):
        load_weights(model, other, Path("x"))
    missing = {name: array for name, array in before.items() if name != "output.bias"}
    with pytest.raises(MinirnnError, match=r"output.bias \(1,\) is missing; extra \(2,\) is not in the model"):
        load_weights(model, {**missing, "extra": np.zeros(2)}, Path("x"))
    assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())


def test_a_state_that_is_not_one(tmp_path: Path) -> None:
    train(make_run(tmp_path / "run", TrainingOptions(epochs=1)))
    last = tmp_path / "run" / "last.safetensors"
    arrays = serialization.load(last)
    for metadata in ({}, {"state": "{"}, {"state": json.dumps({"steps": 1})}):
        serialization.save(arrays, last, metadata=metadata)
        with pytest.raises(MinirnnError, match="not a training state"):
            Run.open(tmp_path / "run").resume()
    last.unlink()
    with pytest.raises(MinirnnError, match="nothing to resume"):
        Run.open(tmp_path / "run").resume()


def test_metrics_after_the_checkpoint_are_left_out_and_bad_ones_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path, TrainingOptions())
    assert run.read_metrics() == []
    run.write_metrics([{"step": step} for step in (5, 10, 15)])
    assert run.read_metrics(up_to=10) == [{"step": 5}, {"step": 10}]
    (tmp_path / "metrics.jsonl").write_text('{"step": 5}\n{"st')
    with pytest.raises(MinirnnError, match=r"metrics.jsonl, line 2: not a line of metrics"):
        run.read_metrics()


def test_new_folders_do_not_meet_old_ones(tmp_path: Path) -> None:
    for expected in ("a", "a-2", "a-3"):
        folder = new_folder("a", tmp_path)
        assert folder.name == expected
        folder.mkdir()
    (tmp_path / "a" / ".lock").touch()
    check_free(tmp_path / "a")  # a lock alone is nothing
    (tmp_path / "a" / "config.json").touch()
    with pytest.raises(MinirnnError, match="stopped before its first checkpoint: remove it"):
        check_free(tmp_path / "a")
    (tmp_path / "file").touch()
    with pytest.raises(MinirnnError, match="is a file"):
        check_free(tmp_path / "file")
