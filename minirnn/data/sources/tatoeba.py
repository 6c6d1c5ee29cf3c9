"""Tatoeba: English sentences with French translations by volunteers, short and everyday ones first."""

from __future__ import annotations

import io
import zipfile

from minirnn.data.fetch import DataFile, fetch
from minirnn.data.kinds import Sentences
from minirnn.data.sources.parallel import ParallelText, split_by_source
from minirnn.data.sources.source import Source
from minirnn.data.sources.tsv import parse
from minirnn.errors import MinirnnError

FILE = DataFile(
    path="tatoeba/fra-eng.zip",
    sha256="16c4f7d0df9e7c5e6c54cdb0447f3f4a18a55052ff5e2e0b27dd4a06c0e49d04",
    size=2951390,
    urls=("https://storage.googleapis.com/download.tensorflow.org/data/fra-eng.zip", "https://www.manythings.org/anki/fra-eng.zip"),
)


def load(data_dir: str | None = None, seed: int = 0) -> ParallelText:
    """142,787 pairs of 98,659 English sentences; all translations of one English sentence are on the same side of the split."""
    path = fetch(FILE, data_dir)
    try:
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            pairs = parse(archive.read("fra.txt"), f"{path}:fra.txt")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise MinirnnError(f"{path}: cannot read fra.txt in it ({error})") from None
    parts = split_by_source(pairs, seed)
    return ParallelText(
        name="tatoeba",
        languages=("English", "French"),
        train=parts.train,
        valid=parts.valid,
        test=parts.test,
        attribution="Tatoeba project (tatoeba.org) by way of manythings.org/anki, 2017-09-29; CC BY 2.0 FR",
    )


def load_english(data_dir: str | None = None, seed: int = 0) -> Sentences:
    """The English sentences, each once, split as the pairs are."""
    pairs = load(data_dir, seed)
    train, valid, test = (list(dict.fromkeys(english for english, _ in part)) for part in (pairs.train, pairs.valid, pairs.test))
    return Sentences("tatoeba", train, valid, test, pairs.attribution)


SOURCE = Source(
    name="tatoeba",
    what="English to French everyday sentences",
    size="142,787 pairs of 98,659 English sentences, 2.9 MB",
    licence="CC BY 2.0 FR",
    origin="tatoeba.org by way of manythings.org/anki",
    files=(FILE,),
    loaders={ParallelText: load, Sentences: load_english},
)
