"""`--set key=value`: what is understood, and what is said where it is not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.errors import MinirnnError
from minirnn.training import TrainingOptions, registry
from minirnn.training.settings import apply, convert, from_json, parse


@dataclass(frozen=True)
class Options:
    hidden: int = 8
    rate: float = 0.5
    deep: bool = False
    kind: Literal["dot", "general"] = "dot"
    width: int | None = None
    name: str = "x"
    orders: Literal[1, 2] = 1

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {self.hidden}")


@given(
    st.builds(
        Options,
        hidden=st.integers(1),
        rate=st.floats(allow_nan=False, allow_infinity=False),
        deep=st.booleans(),
        kind=st.sampled_from(["dot", "general"]),
        width=st.none() | st.integers(),
        name=st.text(),
        orders=st.sampled_from([1, 2]),
    )
)
def test_every_value_comes_back_from_text_and_from_json(options: Options) -> None:
    texts = {key: str(value) for key, value in asdict(options).items()}
    assert apply(texts, Options(), TrainingOptions()) == (options, TrainingOptions())
    assert from_json(Options, asdict(options), "file") == options


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("hidden", "8.5", "expected an integer, got '8.5'"),
        ("hidden", "", "expected an integer"),
        ("hidden", "0", "hidden must be at least 1, got 0"),
        ("rate", "nan", "expected a number"),
        ("rate", "inf", "expected a number"),
        ("deep", "maybe", "expected true or false"),
        ("kind", "Dot", "expected one of dot, general"),
        ("width", "wide", "expected an integer or none"),
        ("hiden", "8", "no such setting; did you mean hidden"),
        ("zzz", "8", "no such setting; there are average, bptt, clip, deep"),
    ],
)
def test_a_value_that_does_not_fit(key: str, value: str, expected: str) -> None:
    with pytest.raises(MinirnnError) as error:
        apply({key: value}, Options(), TrainingOptions())
    assert f"--set {key}" in str(error.value)
    assert expected in str(error.value)


def test_assignments() -> None:
    assert parse(["a=1", " b = c=d "]) == {"a": "1", "b": "c=d"}
    for wrong, said in ((["a"], "expected key=value"), (["=1"], "expected key=value"), (["a=1", "a=2"], "given twice")):
        with pytest.raises(MinirnnError, match=said):
            parse(wrong)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("Yes", True), ("1", True), ("off", False), ("False", False)])
def test_ways_to_say_yes_and_no(text: str, value: bool) -> None:
    assert convert("deep", text, bool) is value


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "expected an object"),
        ({"depth": 3}, "has no field depth"),
        ({"hidden": "many"}, "expected an integer"),
        ({"hidden": 0}, "at least 1"),
    ],
)
def test_a_description_that_does_not_fit(values: Any, said: str) -> None:
    with pytest.raises(MinirnnError, match=said) as error:
        from_json(Options, values, "config.json")
    assert str(error.value).startswith("config.json: ")


@pytest.mark.parametrize(("key", "value"), [("lr", 0), ("lr", -1), ("average", 1), ("epochs", -1), ("clip", -0.5), ("patience", -2)])
def test_training_options_out_of_range(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=key):
        TrainingOptions(**{key: value})


def test_every_setting_of_every_model_has_a_default_and_no_name_is_used_twice() -> None:
    for name in registry.names():
        task = registry.find(name)
        assert not asdict(task.config_type()).keys() & asdict(task.training).keys()
        assert apply(task.demo.settings, task.config_type(), task.training)
