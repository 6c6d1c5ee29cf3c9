from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minirnn.errors import MinirnnError
from minirnn.serialization import load, load_metadata, save

DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]


def by_the_format(path) -> dict[str, np.ndarray]:
    """An independent reader: 8 bytes of header length, a JSON header, then the arrays at their offsets."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    names = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "?"}
    names |= {f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)}
    body = content[8 + length :]
    return {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], names[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def written(path, dtype: str, shape: list[int], raw: bytes) -> bytes:
    header = json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(raw)]}}).encode()
    content = struct.pack("<Q", len(header)) + header + raw
    path.write_bytes(content)
    return content


shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
arrays = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, shapes))
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda name: name != "__metadata__")


@given(named=st.dictionaries(names, arrays, max_size=4))
def test_every_array_comes_back_bit_for_bit(tmp_path_factory, named):
    path = tmp_path_factory.mktemp("weights") / "x.safetensors"
    save(named, path)
    for came in (load(path), by_the_format(path)):
        assert came.keys() == named.keys()
        for name, array in named.items():
            assert (came[name].dtype, came[name].shape) == (array.dtype, array.shape)
            assert came[name].tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a[::2, ::-1],
        lambda a: np.broadcast_to(a[0], (3, 4)),
        lambda a: np.asfortranarray(a),
        lambda a: a.astype(">f4"),
        lambda a: a[1, 2:3].reshape(()),
    ],
    ids=["transposed", "strided", "broadcast", "fortran", "big-endian", "scalar"],
)
def test_an_array_is_saved_by_its_values_and_not_by_its_memory(tmp_path, view):
    array = view(np.arange(12, dtype=np.float32).reshape(3, 4))
    save({"w": array}, tmp_path / "x")
    np.testing.assert_array_equal(by_the_format(tmp_path / "x")["w"], array)
    np.testing.assert_array_equal(load(tmp_path / "x")["w"], array)


def test_what_is_loaded_may_be_written_to_and_leaves_the_file_alone(tmp_path):
    save({"w": np.zeros(3)}, tmp_path / "x")
    before = (tmp_path / "x").read_bytes()
    load(tmp_path / "x")["w"][:] = 1
    assert (tmp_path / "x").read_bytes() == before


def test_a_module_is_saved_by_its_state_dict(tmp_path):
    class Module:
        def state_dict(self):
            return {"a.weight": np.ones((2, 3))}

    save(Module(), tmp_path / "x")
    np.testing.assert_array_equal(load(tmp_path / "x")["a.weight"], np.ones((2, 3)))


def test_pytorchs_own_reader_and_writer_agree(tmp_path, rng):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("safetensors.torch")
    array = rng.standard_normal((3, 4)).astype(np.float32)
    save({"w": array}, tmp_path / "ours")
    np.testing.assert_array_equal(theirs.load_file(tmp_path / "ours")["w"].numpy(), array)
    theirs.save_file({"w": torch.from_numpy(array), "half": torch.from_numpy(array).bfloat16()}, tmp_path / "theirs")
    came = load(tmp_path / "theirs")
    np.testing.assert_array_equal(came["w"], array)
    np.testing.assert_array_equal(came["half"], torch.from_numpy(array).bfloat16().float().numpy())


def test_bfloat16_becomes_float32(tmp_path):
    written(tmp_path / "x", "BF16", [2, 2], struct.pack("<4H", 0x3F80, 0xC000, 0x3EAB, 0x7F80))
    came = load(tmp_path / "x")["w"]
    assert came.dtype == np.float32
    np.testing.assert_array_equal(came, [[1.0, -2.0], [0.333984375, np.inf]])


def test_metadata_travels_in_the_header(tmp_path):
    save({"w": np.zeros(1)}, tmp_path / "x", metadata={"config": json.dumps({"naïve": 1})})
    assert load_metadata(tmp_path / "x") == {"config": json.dumps({"naïve": 1})}
    save({"w": np.zeros(1)}, tmp_path / "y")
    assert load_metadata(tmp_path / "y") == {}
    with pytest.raises(MinirnnError, match=r"metadata 'epoch' must be text, got int"):
        save({"w": np.zeros(1)}, tmp_path / "z", metadata={"epoch": 3})
    assert not (tmp_path / "z").exists()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1.0, 2.0], r"'layer\.w' is a list, expected a NumPy array"),
        (3.0, r"'layer\.w' is a float, expected a NumPy array"),
        (np.zeros(2, complex), r"'layer\.w' has dtype complex128, a safetensors file holds float64, float32"),
        (np.array([None]), r"'layer\.w' has dtype object"),
        (np.array(["a"]), r"'layer\.w' has dtype <U1"),
    ],
)
def test_a_value_that_is_no_array_is_named_with_its_type(tmp_path, value, words):
    (tmp_path / "x").write_bytes(b"old")
    with pytest.raises(MinirnnError, match=words):
        save({"layer.w": value}, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"old"


def test_a_file_cut_short_anywhere_is_refused_and_named(tmp_path):
    whole = written(tmp_path / "whole", "F32", [2, 2], bytes(16))
    path = tmp_path / "cut.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        for read in (load, load_metadata):
            with pytest.raises(MinirnnError, match=rf"cut\.safetensors is cut short or damaged \({length} bytes; "):
                read(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04" + bytes(100), "is a zip archive, as torch.save and numpy.savez write"),
        (b"a text about something else", "is not a safetensors file"),
        (struct.pack("<Q", 3) + b"{]}", "is cut short or damaged"),
    ],
)
def test_a_file_of_another_kind_is_refused_and_named(tmp_path, content, words):
    (tmp_path / "other").write_bytes(content)
    for read in (load, load_metadata):
        with pytest.raises(MinirnnError, match=f"other {words}"):
            read(tmp_path / "other")


def test_a_missing_file_a_folder_and_a_strange_dtype(tmp_path):
    written(tmp_path / "f8", "F8_E4M3", [2], bytes(2))
    with pytest.raises(MinirnnError, match="'w' has dtype F8_E4M3, which NumPy does not know"):
        load(tmp_path / "f8")
    for read in (load, load_metadata):
        with pytest.raises(MinirnnError, match="none: no such file"):
            read(tmp_path / "none")
        with pytest.raises(MinirnnError, match=r"cannot read .*: Is a directory"):
            read(tmp_path)
