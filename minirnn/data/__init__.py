"""Data sets of sentence pairs, sentences, pictures and series; text as numbers: vocabularies, and batches of similar length."""

from minirnn.data.batches import TranslationBatch, bucketed
from minirnn.data.fetch import DataFile, cache_folder, fetch
from minirnn.data.kinds import CaptionedPictures, Pictures, Sentences, Series
from minirnn.data.sources.parallel import ParallelText
from minirnn.data.sources.registry import all_sources, get, source
from minirnn.data.sources.source import Source
from minirnn.data.summary import Summary, Words, show, summarise, table
from minirnn.data.text import join, normalise, words
from minirnn.data.vocabulary import SubwordVocabulary, Vocabulary, WordVocabulary, load_vocabulary

__all__ = [
    "CaptionedPictures",
    "DataFile",
    "ParallelText",
    "Pictures",
    "Sentences",
    "Series",
    "Source",
    "SubwordVocabulary",
    "Summary",
    "TranslationBatch",
    "Vocabulary",
    "WordVocabulary",
    "Words",
    "all_sources",
    "bucketed",
    "cache_folder",
    "fetch",
    "get",
    "join",
    "load_vocabulary",
    "normalise",
    "show",
    "source",
    "summarise",
    "table",
    "words",
]
