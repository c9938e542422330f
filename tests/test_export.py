"""export.py: Transformers opens a run and computes the same."""

import json
import math
import os
import random
import shutil
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import sentencepiece
import torch
import torch.nn.functional as F
from conftest import in_process, new_run, refused, works

if 'CI' not in os.environ:
    pytest.importorskip('transformers', reason='needs transformers, safetensors, tokenizers')
from lib.configurator import ConfigError

import transformers

import export
from data import Language
from evaluate import load_run, perplexity
from lib.tokenizer import DOCUMENT_END, Tokenizer
from model import GPTConfig

RUNS = {
    'clones': dict(),
    'narrow': dict(head_dim=5, n_head=3, n_embd=32),  # padded to four heads of width 8
    'shared': dict(cloned_fraction=0.5, orders=['', 'reversed']),
    'anchored': dict(corpora=['en', 'fr'], languages=['en', 'fr'], vocabulary='anchored'),
}


@pytest.fixture(scope='module')
def folder(made_once, tmp_path_factory):
    """A folder with the runs RUNS, exported."""
    folder = tmp_path_factory.mktemp('export')
    shutil.copytree(made_once / 'data', folder / 'data')
    for name, settings in RUNS.items():
        new_run(folder, name, **settings)
        done = works('export', f'--out_dir=out/{name}', cwd=folder)
        assert ('reversed' in done.stdout) == (name == 'shared')  # en2 has no tokeniser
    return folder


@pytest.fixture(params=RUNS)
def opened(request, folder, monkeypatch):
    """(our model, Transformers' model, [(a language, its tokeniser of Transformers)]) of a run."""
    monkeypatch.chdir(folder)
    out = f'out/{request.param}'
    ours, languages, _ = load_run(out)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(f'{out}/hf')
    load, texts = transformers.AutoTokenizer.from_pretrained, [x for x in languages if not x.order]
    return ours, theirs.eval(), [(x, load(f'{out}/hf-{x.name}')) for x in texts]


@torch.no_grad()
def test_logits_and_hidden_states_are_ours(opened):
    ours, theirs, _ = opened
    states = []
    for block in theirs.transformer.h:
        block.register_forward_hook(lambda module, inputs, output: states.append(output))
    idx = torch.randint(1, ours.config.vocab_size, (4, ours.config.block_size))
    logits = ours(idx)
    torch.testing.assert_close(theirs(idx).logits, logits, atol=1e-5, rtol=0)
    assert logits.std() > 0.1
    states = torch.stack([s[0] if isinstance(s, tuple) else s for s in states])
    torch.testing.assert_close(states, ours.hidden_states(idx), atol=1e-5, rtol=0)


@torch.no_grad()
def test_perplexity_from_raw_text_is_that_of_evaluate(opened, made_once):
    ours, theirs, languages = opened
    for language, tokenizer in languages:
        raw = {path.read_text() for path in (made_once / f'text_{language.corpus.name}').iterdir()}
        own, test = language.corpus.load_tokenizer(), np.asarray(language.corpus.test)
        documents = np.split(test, np.flatnonzero(test == DOCUMENT_END) + 1)[:-1]
        documents = [own.decode(document[:-1].tolist()) for document in documents]
        assert raw >= set(documents)
        ids = [[*tokenizer(text).input_ids, tokenizer.eos_token_id] for text in documents]
        T = ours.config.block_size
        windows = torch.tensor(sum(ids, [])).unfold(0, T + 1, T // 4)
        logits = [theirs(part[:, :-1]).logits[:, -T // 4 :] for part in windows.split(64)]
        loss = F.cross_entropy(torch.cat(logits).flatten(0, 1), windows[:, -T // 4 :].flatten())
        assert math.exp(loss) == pytest.approx(perplexity(ours, language)['ppl'], rel=1e-4)


def awkward_texts(pieces):
    """Texts of spaces, special tokens, bytes and characters that no piece has, and random ones."""
    texts = [*'| |  | a|a |\u2581|\n|\r\n|a\x00b|\u2028|\ufeffa|<D>|a<D>|<pad> <unk>'.split('|')]
    texts += ['<0x41>', 'a' * 3000, 'nana' * 500, ' ' * 50, '\U0010ffff']
    letters = [*'abdefgino  \u2581\n\t<>D0x\u00a0\ufb01\U0001f600Ж漢e\u0301\u200d']
    rng, kinds = random.Random(0), (letters, pieces)
    random_texts = (rng.choices(kinds[i % 2], k=rng.randint(1, 40)) for i in range(2000))
    return texts + [''.join(parts) for parts in random_texts]


def test_tokens_are_those_of_sentencepiece_and_ids_are_rows(opened):
    for language, tokenizer in opened[2]:
        own = language.corpus.load_tokenizer()
        for text in awkward_texts(own.spellings()):
            tokens, found = own.encode(text), tokenizer(text).input_ids
            assert found == language.table[tokens].tolist(), text
            assert tokenizer.decode(found) == own.decode(tokens), text
        special = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id]
        assert special == language.table[:3].tolist()
        assert tokenizer.decode(special, skip_special_tokens=True) == ''


def test_the_model_knows_all_ends_of_a_document_and_its_card_what_it_has_read(folder):
    results = dict(en1=dict(tokens_seen=12345, ppl=67.891, ppl_se=2.345))
    results['en2'] = dict(tokens_seen=0, ppl=99.9, ppl_se=None)
    (folder / 'out/clones/results.json').write_text(json.dumps(dict(languages=results)))
    in_process('export', '--out_dir=out/clones', cwd=folder)
    card = (folder / 'out/clones/hf/README.md').read_text()
    assert '12,345 | 67.89 ± 2.35' in card and '0 | 99.90 |' in card and 'cloned_fraction' in card
    about = json.loads((folder / 'out/clones/hf/generation_config.json').read_text())
    assert about['eos_token_id'] == [2, 502] and about['pad_token_id'] == 0


def test_what_cannot_be_exported_is_refused(folder, monkeypatch):
    new_run(folder, 'wide', head_dim=16)
    for name, out in (('head_dim', 'out/wide'), ('out_dir', ''), ('out/none', 'out/none')):
        refused(in_process('export', f'--out_dir={out}', cwd=folder), name)
    monkeypatch.setattr(export, 'Tokenizer', None)
    refused(in_process('export', '--out_dir=out/clones', cwd=folder), 'pip install')


@dataclass
class EditedConfig(GPTConfig):
    rotary: bool = False


def test_a_model_with_a_setting_that_a_gpt2_lacks_is_refused_unless_it_is_off():
    shape = dict(n_layer=2, n_head=2, head_dim=8, n_embd=16, mlp_dim=32, block_size=32)
    config = EditedConfig(**shape, vocab_size=99)
    assert export.gpt2_config(config) == export.gpt2_config(GPTConfig(**shape, vocab_size=99))
    config.rotary = True
    with pytest.raises(ConfigError, match='rotary'):
        export.gpt2_config(config)


@pytest.mark.parametrize('kind', [dict(model_type='unigram'), dict(normalization_rule_name='nfkc')])
def test_a_tokeniser_of_another_kind_is_refused(made_once, tmp_path, kind):
    texts = [path.read_text() for path in sorted((made_once / 'text_en').iterdir())]
    about = dict(vocab_size=400, byte_fallback=True, pad_id=0, unk_id=1, eos_id=2, bos_id=-1)
    about |= dict(model_type='bpe', normalization_rule_name='identity', minloglevel=2) | kind
    with open(tmp_path / 'model', 'wb') as file:
        texts_and = dict(sentence_iterator=iter(texts), model_writer=file)
        sentencepiece.SentencePieceTrainer.train(**texts_and, **about)
    own = Tokenizer(tmp_path / 'model')
    corpus = SimpleNamespace(load_tokenizer=lambda: own, test=np.array(own.encode(texts[0])))
    with pytest.raises(ConfigError):
        export.exported_tokenizer(Language('en', corpus, np.arange(own.size)))
