"""The models of the lecture, one file each."""

from minirnn.models.autoregressive import AutoregressiveConfig, AutoregressiveLSTM
from minirnn.models.captioner import CaptionBatch, Captioner, CaptionerConfig
from minirnn.models.linear_gaussian_ssm import LinearGaussianConfig, LinearGaussianSSM
from minirnn.models.neural_ssm import NeuralSSM, NeuralSSMConfig
from minirnn.models.seq2seq import Seq2Seq, Seq2SeqConfig
from minirnn.models.sequence_vae import SequenceVAE, SequenceVAEConfig
from minirnn.models.srnn import SRNN, SRNNConfig
from minirnn.models.translator import Translation, Translator

__all__ = [
    "SRNN",
    "AutoregressiveConfig",
    "AutoregressiveLSTM",
    "CaptionBatch",
    "Captioner",
    "CaptionerConfig",
    "LinearGaussianConfig",
    "LinearGaussianSSM",
    "NeuralSSM",
    "NeuralSSMConfig",
    "SRNNConfig",
    "Seq2Seq",
    "Seq2SeqConfig",
    "SequenceVAE",
    "SequenceVAEConfig",
    "Translation",
    "Translator",
]
