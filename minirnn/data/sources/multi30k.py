"""Multi30k: descriptions of photographs, English and French (Elliott, Frank, Sima'an and Specia, 2016; Elliott et al., 2017)."""

from __future__ import annotations

from minirnn.data.fetch import DataFile, fetch
from minirnn.data.sources.parallel import Pair, ParallelText, numbered_lines, read_bytes
from minirnn.data.sources.source import Source
from minirnn.errors import MinirnnError

ADDRESS = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/"


def _file(name: str, size: int, sha256: str) -> DataFile:
    return DataFile(f"multi30k/{name}", sha256, size, (ADDRESS + name,))


FILES = {
    "train": (
        _file("train.en.gz", 568929, "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f"),
        _file("train.fr.gz", 604242, "622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c"),
    ),
    "valid": (
        _file("val.en.gz", 21650, "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28"),
        _file("val.fr.gz", 23001, "ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9"),
    ),
}


def load(data_dir: str | None = None, seed: int = 0) -> ParallelText:
    """29,000 pairs for training and 1,014 for validation, which serve as the test too. `seed` is not used: the split is the publisher's."""
    parts = {name: _read(*files, data_dir) for name, files in FILES.items()}
    return ParallelText(
        name="multi30k",
        languages=("English", "French"),
        train=parts["train"],
        valid=parts["valid"],
        test=parts["valid"],
        attribution="Multi30k (Elliott et al., 2016 and 2017), captions of Flickr30k photographs; for research and education",
        note="the test pairs are the validation pairs: a score on them is a validation score",
    )


def _read(english: DataFile, french: DataFile, data_dir: str | None) -> list[Pair]:
    sides = []
    for file in (english, french):
        path = fetch(file, data_dir)
        sides.append([line.strip() for _, line in numbered_lines(read_bytes(path), path)])
    if len(sides[0]) != len(sides[1]):
        raise MinirnnError(f"multi30k: {english.path} has {len(sides[0])} lines but {french.path} has {len(sides[1])}")
    return list(zip(*sides, strict=True))


SOURCE = Source(
    name="multi30k",
    what="English to French descriptions of photographs",
    size="30,014 pairs, 1.2 MB",
    licence="research and education",
    origin="github.com/multi30k/dataset",
    files=tuple(file for pair in FILES.values() for file in pair),
    loaders={ParallelText: load},
)
