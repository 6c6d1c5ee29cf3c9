"""The models of the lecture, one file each."""

from minirnn.models.seq2seq import Seq2Seq, Seq2SeqConfig
from minirnn.models.sequence_vae import SequenceVAE, SequenceVAEConfig
from minirnn.models.translator import Translation, Translator

__all__ = ["Seq2Seq", "Seq2SeqConfig", "SequenceVAE", "SequenceVAEConfig", "Translation", "Translator"]
