from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from minirnn.errors import MinirnnError
from minirnn.files import atomic_file, lock_folder, write_atomically

posix = pytest.mark.skipif(os.name != "posix", reason="asks the kernel for something that only POSIX has")


def python(program: str, *arguments: object, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("data", [b"", b"\x00\xff\r\n", "", "naïve\n", "x" * 100_000])
def test_what_is_written_is_what_is_read(tmp_path, data):
    path = tmp_path / "file"
    write_atomically(path, data)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert os.listdir(tmp_path) == ["file"]


def test_an_error_inside_the_block_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as file:
        file.write(b"new")
        file.flush()
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@posix
def test_a_process_killed_while_it_writes_harms_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    program = """if True:
        import sys
        from minirnn.files import atomic_file
        with atomic_file(sys.argv[1]) as file:
            file.write(b"half of the new")
            file.flush()
            print("writing", flush=True)
            sys.stdin.read()
    """
    with python(program, path) as writer:
        assert writer.stdout.readline() == "writing\n", writer.stderr.read()
        writer.kill()
    assert path.read_bytes() == b"old"


def test_readers_see_one_whole_version(tmp_path):
    path = tmp_path / "file"
    versions = {bytes([n]) * 200_000 for n in range(20)}
    path.write_bytes(bytes([0]) * 200_000)
    writer = threading.Thread(target=lambda: [write_atomically(path, version) for version in versions])
    writer.start()
    seen = set()
    while writer.is_alive():
        seen.add(path.read_bytes())
    writer.join()
    assert seen <= versions


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_what_is_free(tmp_path, monkeypatch, code):
    path = tmp_path / "weights"
    path.write_bytes(b"old")

    def full(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MinirnnError, match=rf"cannot write {re.escape(str(path))}: the disk is full \([\d,.]+ MiB free"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["weights"]


@posix
def test_a_disk_that_is_really_full(tmp_path):
    if not shutil.which("unshare"):
        pytest.skip("needs unshare to mount a small file system")
    program = """if True:
        import os, sys
        from minirnn.errors import MinirnnError
        from minirnn.files import write_atomically
        path = os.path.join(sys.argv[1], "weights")
        write_atomically(path, b"old")
        try:
            write_atomically(path, bytes(1_000_000))
        except MinirnnError as error:
            print(error)
        assert open(path, "rb").read() == b"old"
        assert os.listdir(sys.argv[1]) == ["weights"]
    """
    mount = 'mount -t tmpfs -o size=64k none "$1" || exit 77; shift; exec "$@"'
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        mount,
        "sh",
        tmp_path,
        sys.executable,
        "-c",
        program,
        tmp_path,
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode == 77 or "unshare" in run.stderr:
        pytest.skip(f"cannot mount a small file system here: {run.stderr.strip()}")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"cannot write {tmp_path}/weights: the disk is full (0.")


def test_a_folder_that_is_not_there_and_a_target_that_is_a_folder(tmp_path):
    with pytest.raises(MinirnnError, match=f"there is no folder {re.escape(str(tmp_path / 'none'))}"):
        write_atomically(tmp_path / "none" / "file", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MinirnnError, match=r"cannot write .*folder"):
        write_atomically(tmp_path / "folder", b"")
    assert os.listdir(tmp_path) == ["folder"]


def test_another_files_trouble_keeps_its_own_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic_file(tmp_path / "file"):
        (tmp_path / "elsewhere").read_bytes()
    assert os.listdir(tmp_path) == []


@posix
def test_a_link_is_followed_and_permissions_follow_the_umask(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "link", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


HOLDER = """if True:
    import sys
    from minirnn.files import lock_folder
    with lock_folder(sys.argv[1]):
        print("locked", flush=True)
        sys.stdin.read()
"""


def test_a_second_process_is_told_which_one_holds_the_folder(tmp_path):
    run = tmp_path / "runs" / "one"
    with python(HOLDER, run) as holder:
        assert holder.stdout.readline() == "locked\n", holder.stderr.read()
        with pytest.raises(MinirnnError, match=rf"{re.escape(str(run))} is being written by process {holder.pid}: wait"), lock_folder(run):
            pass
        holder.stdin.close()
        holder.wait()
        with lock_folder(run):
            pass


@posix
def test_a_crash_releases_the_folder(tmp_path):
    with python(HOLDER, tmp_path) as holder:
        assert holder.stdout.readline() == "locked\n", holder.stderr.read()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with lock_folder(tmp_path):
            pass


def test_the_folder_is_free_after_an_error_and_taken_within_one_process(tmp_path):
    with pytest.raises(ZeroDivisionError), lock_folder(tmp_path):
        raise ZeroDivisionError
    with lock_folder(tmp_path), pytest.raises(MinirnnError, match=f"written by process {os.getpid()}"), lock_folder(tmp_path):
        pass


def test_a_file_where_the_folder_should_be(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    with pytest.raises(MinirnnError, match=f"cannot write to the folder {re.escape(str(path))}"), lock_folder(path):
        pass
