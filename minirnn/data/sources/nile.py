"""The annual flow of the Nile at Aswan, 1871 to 1970: the series on which Durbin and Koopman explain the local level model.

    J. Durbin and S. J. Koopman, Time Series Analysis by State Space Methods, 2nd ed., Oxford 2012, chapter 2
    G. W. Cobb, The problem of the Nile: conditional solution to a changepoint problem, Biometrika 65 (1978) 243-251

A hundred public numbers, which stand below, so that nothing has to be downloaded. `FILE` is statsmodels' copy of them, for whoever
wants to compare.
"""

from __future__ import annotations

import numpy as np

from minirnn.data.fetch import DataFile
from minirnn.data.kinds import Series
from minirnn.data.sources.source import Source

FIRST_YEAR = 1871
FLOW = """
    1120 1160  963 1210 1160 1160  813 1230 1370 1140   995  935 1110  994 1020  960 1180  799  958 1140
    1100 1210 1150 1250 1260 1220 1030 1100  774  840   874  694  940  833  701  916  692 1020 1050  969
     831  726  456  824  702 1120 1100  832  764  821   768  845  864  862  698  845  744  796 1040  759
     781  865  845  944  984  897  822 1010  771  676   649  846  812  742  801 1040  860  874  848  890
     744  749  838 1050  918  986  797  923  975  815  1020  906  901 1170  912  746  919  718  714  740
"""  # in 10^8 cubic metres, twenty years a line

FILE = DataFile(
    "lgssm/nile.csv",
    "88e97bea7249e5832a85e41aec6ce4b8f7b1b14aae930c8363da7f193286b598",
    942,
    ("https://raw.githubusercontent.com/statsmodels/statsmodels/main/statsmodels/datasets/nile/nile.csv",),
)

# Maximum likelihood of the local level model with a diffuse start (Durbin and Koopman 2012, section 2.10.3).
PUBLISHED = {"observation variance": 15099.0, "level variance": 1469.1}


def load(data_dir: str | None = None, seed: int = 0) -> Series:
    """One series (100, 1), which is training, validation and test at once; neither argument is used."""
    flow = np.array(FLOW.split(), dtype=np.float64)[:, None]  # (T, 1)
    return Series(
        name="nile",
        train=[flow],
        valid=[flow],
        test=[flow],
        observation="real",
        columns=("annual flow (10^8 m^3)",),
        attribution="annual flow of the Nile at Aswan, 1871 to 1970 (Cobb 1978; Durbin and Koopman 2012), public domain",
        note="one series alone: what is scored is the series that was learnt from, predicted one step ahead",
        start=FIRST_YEAR,
    )


SOURCE = Source(
    name="nile",
    what="annual flow of the Nile, 1871 to 1970",
    size="1 series of 100 numbers",
    licence="public domain",
    origin="in minirnn; Cobb (1978), Durbin and Koopman (2012)",
    files=(),
    loaders={Series: load},
)
