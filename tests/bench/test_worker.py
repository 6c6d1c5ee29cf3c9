"""A worker answers, says what went wrong, and does not outlive who asked. Its functions here are those of the standard library."""

from __future__ import annotations

import pytest

from minirnn.bench.worker import Worker, WorkerError
from minirnn.errors import MinirnnError


def test_calls_go_there_and_results_come_back() -> None:
    with Worker("statistics", threads=1) as worker:
        assert worker.call("median", data=[1, 5, 3]) == 3
        with pytest.raises(WorkerError, match=r"statistics\.median: StatisticsError: no median for empty data") as caught:
            worker.call("median", data=[])
        assert "Traceback" in caught.value.trace
        assert worker.call("mean", data=[1.0, 2.0]) == 1.5  # an error ends nothing
    assert worker.process.poll() is not None


def test_each_has_its_threads_and_its_environment() -> None:
    with Worker("os", threads=3, environment={"MINIRNN_TEST": "here"}) as worker:
        assert worker.call("getenv", key="OMP_NUM_THREADS") == "3"
        assert worker.call("getenv", key="MINIRNN_TEST") == "here"


def test_what_a_library_prints_disturbs_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    with Worker("this", threads=1) as worker, pytest.raises(WorkerError, match="no attribute 'missing'"):
        worker.call("missing")  # the module prints as it is imported
    out, err = capfd.readouterr()
    assert out == ""
    assert "The Zen of Python" in err


def test_an_unusable_argument_is_the_users_to_mend() -> None:
    with Worker("minirnn.bench.report", threads=1) as worker, pytest.raises(MinirnnError, match="there is no such folder") as caught:
        worker.call("check_can_write", path="no/such/folder/a.json")
    assert not isinstance(caught.value, WorkerError)


def test_a_process_that_ends_is_reported() -> None:
    with Worker("os", threads=1) as worker, pytest.raises(WorkerError, match="os: its process ended in abort, killed by SIGABRT"):
        worker.call("abort")
    with Worker("os", threads=1) as worker:
        with pytest.raises(WorkerError, match="ended in _exit, with exit code 7"):
            worker.call("_exit", status=7)
        with pytest.raises(WorkerError, match="ended in getpid, with exit code 7"):
            worker.call("getpid")
