"""Layers: modules with PyTorch's names, shapes, defaults and initial distributions."""

from minirnn.nn import init, utils
from minirnn.nn.dropout import Dropout
from minirnn.nn.linear import Embedding, Linear
from minirnn.nn.module import Module, ModuleList, Parameter, Sequential
from minirnn.nn.packing import Packed, Packing, pack, pack_sequence
from minirnn.nn.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Dropout",
    "Embedding",
    "GRUCell",
    "LSTMCell",
    "Linear",
    "Module",
    "ModuleList",
    "Packed",
    "Packing",
    "Parameter",
    "RNNCell",
    "Sequential",
    "init",
    "pack",
    "pack_sequence",
    "utils",
]
