"""The tokeniser of a corpus: text to token ids and back.

All that the other scripts know of a tokeniser is this class; another kind is another class with
the same members.
"""

import functools
import hashlib
import io
import os
import re
import sys

from lib.configurator import ConfigError, require

import numpy as np
import sentencepiece

PAD, UNKNOWN, DOCUMENT_END = 0, 1, 2  # token ids of every corpus; padding is id 0 of every model


class Tokenizer:
    """A SentencePiece model with padding at id 0, unknown at 1 and end of document at 2.

    size: number of token ids. hash: SHA-256 of the file."""

    def __init__(self, path):
        """Raises ConfigError for a missing or foreign file and for other special ids."""
        require(os.path.isfile(path), f'there is no tokeniser {path}')
        try:
            self.model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError):
            raise ConfigError(f'{path} is not a SentencePiece model') from None
        self.size, self.hash = len(self.model), sha256(path)
        fits = self.size < 1 << 16
        require(fits, f'{path} has {self.size:,} pieces, and 16 bits hold at most 65,535')
        special = self.size > DOCUMENT_END and self.model.unk_id() == UNKNOWN
        special = special and all(
            self.model.is_control(token) or re.fullmatch('<.*>', self.spelling(token))
            for token in (PAD, DOCUMENT_END)
        )
        advice = 'train it with pad_id=0, unk_id=1, eos_id=2'
        ids = 'padding at id 0, unknown at 1 and end of document at 2'
        require(special, f'{path} does not have {ids}; {advice}')

    def encode(self, text):
        """Token ids of a text (list of int), or of each text of a list."""
        return self.model.encode(text)

    def decode(self, tokens):
        """Text of token ids, without a space in front."""
        return self.model.decode(tokens)

    def spelling(self, token):
        """How a token is written; U+2581 stands for a space."""
        return self.model.id_to_piece(token)

    def spellings(self):
        """The spelling of every token id, in order."""
        return [self.spelling(token) for token in range(self.size)]

    def is_fallback(self, token):
        """Whether a token stands for no spelling of its own: a byte, unknown or a control token."""
        kinds = self.model.is_byte, self.model.is_control, self.model.is_unknown
        return any(kind(token) for kind in kinds)

    @functools.cached_property
    def _foreign(self):  # (size,) bool
        white_space = [f'<0x{byte:02X}>' for byte in b'\t\n\v\f\r']  # bytes in any language
        return np.array(
            [self.is_fallback(t) and s not in white_space for t, s in enumerate(self.spellings())]
        )

    def count_foreign(self, tokens):
        """How many tokens of a text (N,) are byte pieces or unknown, without white space."""
        return int(self._foreign[tokens].sum())

    @staticmethod
    def train(texts, size):
        """Bytes of a new BPE model of `size` pieces, as the paper trains its own.

        Nothing is normalised, and a character without a piece falls back to bytes, so decoding
        restores the text; only U+2581 comes back as a space. Raises ConfigError when the text
        does not support that many pieces."""
        lines = (line for text in texts for line in text.splitlines())
        parts = (line[i : i + 4000] for line in lines for i in range(0, len(line), 4000))
        model, train = io.BytesIO(), sentencepiece.SentencePieceTrainer.train
        kind = dict(model_type='bpe', vocab_size=size, byte_fallback=True)
        kind |= dict(max_sentence_length=16000, normalization_rule_name='identity')
        special = dict(pad_id=PAD, unk_id=UNKNOWN, eos_id=DOCUMENT_END, bos_id=-1, eos_piece='<D>')
        special |= dict(remove_extra_whitespaces=False)
        # The model stores its number of threads: the same number on all machines, the same file.
        quiet = dict(num_threads=16, minloglevel=2)
        try:
            train(sentence_iterator=parts, model_writer=model, **kind, **special, **quiet)
        except (RuntimeError, OSError) as error:
            reason = str(error).strip().splitlines()[-1]
            if most := re.search(r'value <= (\d+)', str(error)):
                reason = f'this text supports at most --vocab_size={most[1]}'
            elif least := re.search(r'\d+ vs (\d+)', str(error)):
                reason = f'its characters and bytes need at least --vocab_size={least[1]}'
            raise ConfigError(f'no tokeniser of {size:,} pieces can be trained: {reason}') from None
        return model.getvalue()


def sha256(path):
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def warn_of_foreign(text, foreign, tokens):
    """Warns where more than a tenth of the tokens of a text are foreign to its tokeniser.

    text: what it is. foreign, tokens: numbers of tokens."""
    if foreign > tokens / 10:
        reason = f'{foreign / tokens:.0%} of the tokens of {text} are byte pieces or unknown'
        advice = 'is its language, script and normal form that of the tokeniser?'
        print(f'warning: {reason}; {advice}', file=sys.stderr)
