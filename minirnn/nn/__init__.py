"""Layers: modules with PyTorch's names, shapes, defaults and initial distributions."""

from minirnn.nn import init, utils
from minirnn.nn.activation import Flatten, ReLU, Sigmoid, Softplus, Tanh
from minirnn.nn.attention import Attention
from minirnn.nn.conv import Conv2d, MaxPool2d
from minirnn.nn.dropout import Dropout
from minirnn.nn.linear import Embedding, Linear
from minirnn.nn.module import Module, ModuleList, Parameter, Sequential
from minirnn.nn.norm import GroupNorm, LayerNorm
from minirnn.nn.packing import Packed, Packing, pack, pack_sequence
from minirnn.nn.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Attention",
    "Conv2d",
    "Dropout",
    "Embedding",
    "Flatten",
    "GRUCell",
    "GroupNorm",
    "LSTMCell",
    "LayerNorm",
    "Linear",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "Packed",
    "Packing",
    "Parameter",
    "RNNCell",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softplus",
    "Tanh",
    "init",
    "pack",
    "pack_sequence",
    "utils",
]
