"""The tokeniser of a corpus: text to token ids and back.

The other scripts know the members of the class Tokenizer alone. Another kind is another class with
these members, which `open_tokenizer` chooses and `train_tokenizer` trains.
"""

import functools
import hashlib
import io
import itertools
import os
import re
import sys

from lib.configurator import ConfigError, require

import numpy as np
import sentencepiece

from lib.workers import cores

PAD, UNKNOWN, DOCUMENT_END = 0, 1, 2  # token ids of every corpus; padding is id 0 of every model

PART = 4000  # characters that are encoded, or learnt from, at once
PROBE = '  two  spaces, a tab\t, line ends \n\n of \u00a0two\u2003kinds \ufb01 e\u0301 \n end  '


class Tokenizer:
    """A SentencePiece model with padding at id 0, unknown at 1 and end of document at 2; its `size`
    (number of token ids) and `hash` (SHA-256 of the file)."""

    def __init__(self, path):
        """Raises ConfigError for a missing or foreign file and for other special ids."""
        require(os.path.isfile(path), f'there is no tokeniser {path}')
        try:
            self.model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError):
            raise ConfigError(f'{path} is not a SentencePiece model') from None
        self.size, self.hash = len(self.model), sha256(path)
        require(3 <= self.size < 1 << 16, f'{path} has {self.size:,} pieces, not 3 to 65,535')
        special = all(  # or, in the paper's own tokenisers, a user-defined <D>
            self.model.is_control(token) or re.fullmatch('<.*>', self.spelling(token))
            for token in (PAD, DOCUMENT_END)
        )
        ids = 'pad_id=0 (padding), unk_id=1 (unknown) and eos_id=2 (end of document)'
        require(special and self.model.unk_id() == UNKNOWN, f'{path} was not trained with {ids}')

    def encode(self, text):
        """Token ids of a text (list of int), or of each text of a list, which all cores share.

        SentencePiece is slow with long texts and needs 100 bytes a character, so it gets parts of
        them: cut at spaces, if no piece spans a space and the tokeniser keeps all spaces."""
        if isinstance(text, str):
            return self.encode([text])[0]
        parts = [_parts(one, PART) if self._has_words else [one] for one in text]
        ids = iter(self.model.encode(list(itertools.chain(*parts)), num_threads=cores()))
        return [list(itertools.chain(*itertools.islice(ids, len(of_one)))) for of_one in parts]

    @functools.cached_property
    def _has_words(self):
        spans = any(' ' in spelled or '\u2581' in spelled[1:] for spelled in self.spellings())
        parts = itertools.chain(*self.model.encode(_parts(PROBE, 1)))
        return not spans and list(parts) == self.model.encode(PROBE)

    def decode(self, tokens):
        """Text of token ids, without a space in front."""
        return self.model.decode(tokens)

    def spelling(self, token):
        """How a token is written; U+2581 stands for a space."""
        return self.model.id_to_piece(token)

    def spellings(self):
        """The spelling of every token id, in order."""
        return list(map(self.spelling, range(self.size)))

    def score(self, token):
        """How early a token is merged: the highest first."""
        return self.model.get_score(token)

    def is_fallback(self, token):
        """Whether a token stands for no spelling of its own: a byte, unknown or a control token."""
        kinds = self.model.is_byte, self.model.is_control, self.model.is_unknown
        return any(kind(token) for kind in kinds)

    @functools.cached_property
    def _foreign(self):  # (size,) bool
        spaces = [f'<0x{byte:02X}>' for byte in b'\t\n\v\f\r']  # in any language
        foreign = [self.is_fallback(t) and s not in spaces for t, s in enumerate(self.spellings())]
        return np.array(foreign) & (np.arange(self.size) != DOCUMENT_END)

    def count_foreign(self, tokens):
        """How many tokens of a text (N,) are byte pieces or unknown, without white space."""
        return int(self._foreign[tokens].sum())


def open_tokenizer(path):
    """The tokeniser of a file. Raises ConfigError."""
    return Tokenizer(path)


def train_tokenizer(texts, size):
    """Bytes of a new BPE model of `size` pieces, as the paper trains its own.

    Nothing is normalised, and a character without a piece falls back to bytes, so decoding
    restores the text; only U+2581 comes back as a space. Raises ConfigError for too little text."""
    lines = (line for text in texts for line in text.splitlines())
    parts = (line[i : i + PART] for line in lines for i in range(0, len(line), PART))
    options = dict(model_type='bpe', vocab_size=size, byte_fallback=True, minloglevel=2)
    options |= dict(normalization_rule_name='identity', remove_extra_whitespaces=False)
    options |= dict(pad_id=PAD, unk_id=UNKNOWN, eos_id=DOCUMENT_END, bos_id=-1, eos_piece='<D>')
    # The model stores its number of threads: the same number on all machines, the same file.
    options |= dict(max_sentence_length=16000, num_threads=16)
    model, train = io.BytesIO(), sentencepiece.SentencePieceTrainer.train
    try:
        train(sentence_iterator=parts, model_writer=model, **options)
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[-1]
        if most := re.search(r'value <= (\d+)', str(error)):
            reason = f'this text supports at most --vocab_size={most[1]}'
        elif least := re.search(r'\d+ vs (\d+)', str(error)):
            reason = f'its characters and bytes need at least --vocab_size={least[1]}'
        raise ConfigError(f'no tokeniser of {size:,} pieces can be trained: {reason}') from None
    return model.getvalue()


def _parts(text, size):
    """A text cut at spaces after `size` characters, without these spaces; no part is empty."""
    parts, start = [], 0
    while (cut := text.find(' ', start + size, len(text) - 1)) > 0:
        parts.append(text[start:cut])
        start = cut + 1
    return [*parts, text[start:]]


def sha256(path):
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def warn_of_foreign(text, foreign, tokens):
    """Warns where more than a tenth of the `tokens` (int) of a text are `foreign` to its tokeniser.
    text: what it is."""
    if foreign > tokens / 10:
        text = f'{foreign / tokens:.0%} of the tokens of {text} are byte pieces or unknown'
        print(f'warning: {text}: are language, script and normal form right?', file=sys.stderr)
