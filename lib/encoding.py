"""Text to token ids, on all cores."""

import numpy as np

from lib.tokenizer import DOCUMENT_END, Tokenizer
from lib.workers import in_order

BATCH_BYTES = 1 << 20  # text that a process encodes at once


def _bytes(ids):
    return np.array(ids, dtype=np.uint16).tobytes()


class WordEncoder(dict):
    """Encodes text word by word, each different word once; as a dict: word -> its tokens.

    That is several times faster than encoding whole texts, with the same result if no piece spans
    a space and the tokeniser keeps spaces. The pieces and a PROBE tell; with other tokenisers whole
    texts are encoded."""

    PROBE = '  two  spaces, a tab\t, line ends \n\n of \u00a0two\u2003kinds \ufb01 e\u0301 \n end  '
    WORDS, LETTERS = 1_000_000, 40  # at most so many words of so many characters are remembered

    def __init__(self, pieces):
        self.pieces = pieces
        spelled = pieces.spellings()
        self.by_words = not any(' ' in piece or '\u2581' in piece[1:] for piece in spelled)
        self.by_words = self.by_words and self(self.PROBE) == _bytes(pieces.encode(self.PROBE))

    def __missing__(self, word):
        # SentencePiece puts a space before a text, which serves as the word's own. An empty word is
        # a space alone.
        tokens = _bytes(self.pieces.encode(word) if word else self.pieces.encode(' ')[1:])
        if len(word) <= self.LETTERS:  # longer ones are text without spaces and do not come again
            self[word] = tokens
        return tokens

    def __call__(self, text):
        """The uint16 tokens of a text that is not empty, as bytes."""
        if not self.by_words:
            return _bytes(self.pieces.encode(text))
        if len(self) > self.WORDS:
            self.clear()
        return b''.join(map(self.__getitem__, text.split(' ')))


def _start(model):
    global _encoder
    _encoder = WordEncoder(Tokenizer(model))


def _encode(batch):
    result = {}
    for part in ('train', 'test'):
        texts = [text for chosen, text in batch if chosen == part]
        tokens = b''.join(_encoder(text) + _bytes([DOCUMENT_END]) for text in texts)
        ids, size = np.frombuffer(tokens, np.uint16), sum(len(text.encode()) for text in texts)
        foreign = _encoder.pieces.count_foreign(ids[ids != DOCUMENT_END])
        counts = dict(tokens=len(ids), documents=len(texts), bytes=size, byte_or_unknown=foreign)
        result[part] = tokens, counts
    return result


def _batches(texts):
    batch, size = [], 0
    for part, text in texts:
        batch.append((part, text))
        size += len(text)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def encoded(texts, model):
    """Generator of {part: (uint16 tokens as bytes, counts for corpus.json)}, to be closed.

    texts: (part, text), the part 'train' or 'test'; model: path of the tokeniser."""
    return in_order(_encode, _batches(texts), _start, model)
