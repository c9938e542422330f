"""Knobs that bring languages together or keep them apart: effects on batch, loss, weights."""

import json

import numpy as np
import pytest
import torch
from conftest import REPO, refused, script

from data import DOCUMENT_END, LanguageMix, alone, build_languages, entry_pairs, own_entries
from evaluate import perplexity, window_losses
from lib.checkpoint import checkpoint_paths, read_checkpoint
from model import GPT, GPTConfig

TINY = dict(size='', n_layer=2, n_head=2, head_dim=8, n_embd=16, mlp_dim=32, block_size=32)
TINY |= dict(batch_size=8, warmup_steps=0, compile=False, corpora=['en', 'en'], max_steps=20)
TINY |= dict(languages=['en1', 'en2'], device='cpu', dtype='float32', eval_interval=0)
TINY |= dict(final_windows=20)


def train(*arguments, cwd, **settings):
    given = [f'--{name}={value}' for name, value in (TINY | settings).items()]
    return script('train', *given, *arguments, cwd=cwd)


def trained(cwd, out, **settings):
    """Trains a run: (its results, its last checkpoint, what it printed)."""
    done = train(cwd=cwd, out_dir=f'out/{out}', **settings)
    assert done.returncode == 0, done.stderr
    state = read_checkpoint(list(checkpoint_paths(cwd / 'out' / out).values())[-1])
    results = json.loads((cwd / 'out' / out / 'results.json').read_text())
    return results, state, done.stdout


@pytest.fixture
def training_of(monkeypatch, workplace):
    """training_of(setting=value, ...): a Training of train.py in this process."""
    from device import Processes

    import train as script_of_train

    monkeypatch.chdir(workplace)

    def call(**settings):
        given = dict(TINY, loss_weights=[], start_entries='', trainable='all', orders=[], only='')
        given |= dict(init_from='') | settings
        for name, value in given.items():
            monkeypatch.setattr(script_of_train, name, value)
        script_of_train.check_settings()
        return script_of_train.Training({}, workplace / 'out/none', Processes('cpu'))

    return call


# --- loss_weights ---------------------------------------------------------------------------------


def gradient(training, step=0):
    """{name: gradient} of a step's loss as the run computes it, and the losses of its sequences."""
    inputs, targets, drawn = training.mix.batch(step)
    batch = [torch.from_numpy(np.ascontiguousarray(part)) for part in (inputs, targets)]
    training.model.zero_grad()
    training.micro = 3
    losses = training.compute_gradients(batch, drawn, len(drawn))
    return {name: p.grad.clone() for name, p in training.model.named_parameters()}, losses


def test_a_weight_multiplies_the_gradient_of_a_language_and_no_logged_loss(training_of):
    weighted = training_of(stages=[[0.5, 0.5]], loss_weights=[0.9, 0.1])
    assert weighted.weights.tolist() == pytest.approx([1.8, 0.2])
    computed, losses = gradient(weighted)
    inputs, targets, drawn = (torch.from_numpy(part.copy()) for part in weighted.mix.batch(0))
    assert len(set(drawn.tolist())) == 2
    weighted.model.zero_grad()
    logits = weighted.model(inputs)
    each = torch.nn.functional.cross_entropy(logits.mT, targets, reduction='none').mean(1)
    assert torch.allclose(losses, each, atol=1e-5)
    (torch.tensor([1.8, 0.2])[drawn] * each).mean().backward()
    for name, parameter in weighted.model.named_parameters():
        assert torch.allclose(computed[name], parameter.grad, atol=1e-6), name


def test_equal_weights_give_the_gradient_of_none(training_of):
    computed = [gradient(training_of(loss_weights=w))[0] for w in ([], [3, 3])]
    for name, grad in computed[0].items():
        assert torch.allclose(grad, computed[1][name], atol=1e-7), name


@pytest.mark.parametrize(
    'stages, weights, expected',
    [([[0.9, 0.1]], [1, 9], [1 / 1.8, 9 / 1.8]), ([[1.0, 0.0], [0.5, 0.5]], [1, 0], [4 / 3, 0])],
)
def test_the_expected_weight_of_a_sequence_is_one(training_of, stages, weights, expected):
    training = training_of(stages=stages, loss_weights=weights)
    assert training.weights.tolist() == pytest.approx(expected)
    assert np.mean(stages, axis=0) @ training.weights == pytest.approx(1)


# --- start_entries --------------------------------------------------------------------------------


def test_a_clone_starts_as_the_language_that_it_is_a_clone_of_plus_noise(training_of):
    training = training_of(start_entries='clones', start_noise=0.3)
    tables = [torch.from_numpy(language.table[2:]).long() for language in training.trained]
    plain = training_of()
    for name, weight in training.model.named_parameters():
        other = plain.model.get_parameter(name)
        if name not in ('wte.weight', 'head.weight'):
            assert torch.equal(weight, other), name
            continue
        assert torch.equal(weight[tables[0]], other[tables[0]]), name
        difference = (weight[tables[1]] - weight[tables[0]]) / weight[tables[0]].std(0)
        assert difference.std().item() == pytest.approx(0.3, rel=0.03)
        assert abs(difference.mean().item()) < 0.02
    assert training.notes == ['498 entries start as others: clones']


def test_without_noise_clones_start_the_same(training_of):
    training = training_of(start_entries='clones', start_noise=0)
    first, second = (language.table[2:] for language in training.trained)
    for weight in (training.model.wte.weight, training.model.head.weight):
        assert torch.equal(weight[first], weight[second])


def test_pieces_spelled_alike_start_alike(made_once):
    languages, _ = build_languages(['en', 'fr'], ['en', 'fr'], root=made_once / 'data')
    pairs = entry_pairs(languages, 'spelling')
    spellings = {}
    for language in languages:
        pieces = language.corpus.load_tokenizer()
        spellings |= {
            e: pieces.id_to_piece(i) for i, e in enumerate(language.table.tolist()) if i > 1
        }
    shared = set(languages[0].table), set(languages[1].table)
    expected = {spellings[e] for e in shared[0] & set(spellings)} & {
        spellings[e] for e in shared[1] & set(spellings)
    }
    assert {spellings[a] for a, _ in pairs} == expected and 300 < len(pairs) < 499
    for entry, start in pairs:
        assert entry in shared[1] and start in shared[0]
        assert spellings[entry] == spellings[start]


def test_a_word_list_pairs_the_words_that_are_one_piece_in_both(made_once, tmp_path):
    languages, _ = build_languages(['en', 'fr'], ['en', 'fr'], root=made_once / 'data')
    tokenizers = [language.corpus.load_tokenizer() for language in languages]
    whole = [
        [p[1:] for p in map(pieces.id_to_piece, range(500)) if p[0] == '▁' and len(p) > 3]
        for pieces in tokenizers
    ]
    (a, b), (c, d) = (words[:2] for words in whole)
    words = tmp_path / 'words.txt'
    words.write_text(f'{a}\t{c}\nxqxqxq {d}\n\n▁{b} ▁{d}\n{b} {c}\n', encoding='utf-8')
    pairs = entry_pairs(languages, str(words))
    token = [pieces.piece_to_id for pieces in tokenizers]
    assert pairs.tolist() == [
        [languages[1].table[token[1]('▁' + y)], languages[0].table[token[0]('▁' + x)]]
        for x, y in ((a, c), (b, d))
    ]


# --- orders ---------------------------------------------------------------------------------------


def ordered(made_once, *orders, corpora=('en', 'en')):
    names = [f'language {number}' for number in range(len(corpora))]
    return build_languages(corpora, names, orders=orders, root=made_once / 'data')[0]


def test_the_order_of_a_window_is_fixed_and_changes_every_size_of_window(made_once):
    (language,) = ordered(made_once, 'shuffled_8', corpora=['en'])
    positions = language.positions(24)
    first = positions[:8]
    assert sorted(first) == list(range(8)) and (positions[8:] == [*first + 8, *first + 16]).all()
    cut = language.positions(21)
    assert cut.tolist() == [p for p in positions if p < 21]
    for size in range(2, 65):
        language.order = f'shuffled_{size}'
        assert (language.positions(size) != np.arange(size)).any()


@pytest.mark.parametrize('order', ['', 'reversed', 'shuffled_8'])
def test_a_sequence_is_one_of_the_whole_text_put_into_the_order(made_once, order):
    languages = ordered(made_once, '', order)
    mix = LanguageMix(languages, [[0.5, 0.5]], 10, 16, 32, 0)
    plain = LanguageMix(ordered(made_once, '', ''), [[0.5, 0.5]], 10, 16, 32, 0)
    text = np.asarray(languages[1].corpus.train)
    whole = languages[1].ids(text)
    for step in range(10):
        before, (inputs, targets, drawn) = plain.batch(step), mix.batch(step)
        assert (drawn == before[2]).all() and (inputs[:, 1:] == targets[:, :-1]).all()
        assert (inputs[drawn == 0] == before[0][drawn == 0]).all()
        for row in np.flatnonzero(drawn == 1):
            sequence = np.append(inputs[row], targets[row, -1])
            windows = np.lib.stride_tricks.sliding_window_view(whole, 33)
            (places,) = np.nonzero((windows == sequence).all(1))
            assert len(places)  # the stream that evaluation reads holds it ...
            if order != 'reversed':
                assert (places % 32 == 0).any()  # ... from the same place within a window
            assert order == '' or (inputs[row] != before[0][row]).any()


@pytest.mark.parametrize('order', ['', 'reversed', 'shuffled_4'])
def test_every_token_is_scored_once_and_for_the_document_that_it_is_in(made_once, order):
    (language,) = ordered(made_once, order, corpora=['en'])
    torch.manual_seed(0)
    model = GPT(GPTConfig(2, 2, 8, 16, 32, 32, 500)).eval()
    for parameter in model.parameters():
        parameter.data.mul_(3)
    test = np.asarray(language.corpus.test)
    losses, starts = window_losses(model, language.ids(test), 8)
    place = language.positions(len(test))[starts[:, None] + 25 + np.arange(8)]
    assert len(np.unique(place)) == place.size > len(test) - 40
    total, count = {}, {}
    for position, loss in zip(place.ravel(), losses.ravel()):
        document = int((test[:position] == DOCUMENT_END).sum())
        total[document] = total.get(document, 0) + float(loss)
        count[document] = count.get(document, 0) + 1
    score = perplexity(model, language)
    assert score['document_tokens'] == [count[number] for number in sorted(count)]
    assert score['document_loss'] == pytest.approx([total[n] for n in sorted(total)], abs=1e-2)


def test_a_reversed_language_is_learnt_and_alone_keeps_its_order(workplace):
    settings = dict(orders=['', 'reversed'], stages=[[0.5, 0.5]], learning_rate=1e-2, max_steps=40)
    results, state, _ = trained(workplace, 'r', **settings)
    assert results['settings']['orders'] == ['', 'reversed']
    trained(workplace, 'c', **settings, only='en2', loss_weights=[1, 2])
    languages = ordered(workplace, '', 'reversed')
    assert alone(languages, 'language 1')[0][0].order == 'reversed'
    for out, names in (('r', ['en1', 'en2']), ('c', ['en2'])):
        done = script('evaluate', f'--out_dir=out/{out}', '--max_windows=20', cwd=workplace)
        assert done.returncode == 0, done.stderr
        evaluation = json.loads((workplace / f'out/{out}/evaluation.json').read_text())
        result = json.loads((workplace / f'out/{out}/results.json').read_text())['languages']
        assert list(evaluation) == names
        for name in names:
            assert evaluation[name]['ppl'] == pytest.approx(result[name]['ppl'], rel=0.02)
            assert result[name]['ppl'] < 400


# --- trainable ------------------------------------------------------------------------------------


def test_a_language_added_to_a_run_changes_its_own_entries_alone(workplace):
    _, old, _ = trained(workplace, 'old', corpora=['en'], languages=['en'], stages=[[1]])
    settings = dict(corpora=['en', 'fr'], languages=['en', 'fr'], stages=[[0, 1]])
    settings |= dict(trainable='fr', init_from='out/old', start_entries='spelling')
    _, new, printed = trained(workplace, 'new', **settings, learning_rate=1e-2)
    assert 'body and entries of en are those of out/old' in printed
    assert 'entries start as others: spelling' in printed
    (en, fr), entries = build_languages(['en', 'fr'], ['en', 'fr'], root=workplace / 'data')
    for name, weight in new['model'].items():
        if name in ('wte.weight', 'head.weight'):
            assert len(weight) == entries
            assert torch.equal(weight[en.table], old['model'][name])
        else:
            assert torch.equal(weight, old['model'][name]), name
    assert len(new['optimizer']['state']) == 2 and new['step'] == 20  # Adam of the two alone
    losses = [
        json.loads(line) for line in (workplace / 'out/new/log.jsonl').read_text().split('\n')[:-1]
    ]
    assert losses[-1]['loss'] < losses[0]['loss'] - 0.1
    _, resumed, _ = trained(workplace, 'half', **settings, learning_rate=1e-2)
    (workplace / 'out/half/results.json').unlink()
    for name, weight in resumed['model'].items():
        assert torch.equal(weight, new['model'][name])
    control = trained(workplace, 'control', **settings, only='fr')[1]
    assert control['step'] == 20 and len(control['optimizer']['state']) > 2


def test_shared_entries_and_padding_are_nobodys_own(made_once):
    root = made_once / 'data'
    languages, _ = build_languages(['en', 'en'], ['a', 'b'], cloned_fraction=0.4, root=root)
    own = own_entries(languages, 'b')
    assert len(own) in (199, 200) and 0 not in own
    assert not set(own) & set(languages[0].table)
    assert set(languages[1].table) - set(own) == set(languages[1].table) & set(languages[0].table)


def test_trainable_without_another_run_leaves_body_and_the_other_language_as_they_began(
    training_of, workplace
):
    begun = training_of().model.state_dict()
    _, state, _ = trained(workplace, 'r', trainable='en2', stages=[[0.5, 0.5]])
    (first, second), _ = build_languages(['en', 'en'], ['en1', 'en2'], root=workplace / 'data')
    for name, weight in state['model'].items():
        if name in ('wte.weight', 'head.weight'):
            assert torch.equal(weight[first.table], begun[name][first.table])
            moved = (weight[second.table[1:]] != begun[name][second.table[1:]]).any(1)
            assert moved.float().mean() > 0.3
        else:
            assert torch.equal(weight, begun[name]), name


def test_a_run_that_lacks_a_language_or_has_other_sizes_is_refused(workplace):
    trained(workplace, 'old', corpora=['en'], languages=['en'], stages=[[1]], max_steps=2)
    settings = dict(trainable='fr', init_from='out/old', out_dir='out/new', cwd=workplace)
    three = dict(corpora=['en', 'en', 'fr'], languages=['en', 'en2', 'fr'], stages=[[0, 0, 1]])
    refused(train(**settings, **three), 'has no language en2', 'only the trainable language fr')
    two = dict(corpora=['en', 'fr'], languages=['en', 'fr'], stages=[[0, 1]])
    refused(train(**settings, **two, n_embd=24), 'other sizes')
    refused(train(**settings | dict(init_from='out/nowhere'), **two), 'no run in out/nowhere')


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'settings, words',
    [
        (dict(loss_weights=[1]), 'number of at least 0 for each of the 2 languages'),
        (dict(loss_weights=[0, 0]), 'one above 0 for a language that is drawn'),
        (dict(loss_weights=[1, -1]), 'a number of at least 0'),
        (dict(start_entries='cousins'), "'clones', 'spelling' or a file; there is no cousins"),
        (dict(loss_weights=[1, 'a']), 'number of at least 0'),
        (dict(start_noise=-1), 'start_noise must be at least 0'),
        (dict(orders=['reversed']), 'orders must have'),
        (dict(orders=['', 'shuffled_1']), "not ['', 'shuffled_1']"),
        (dict(orders=['', 'shuffled_16']), 'a quarter is divisible by 16, not 32'),
        (dict(trainable='fr'), "trainable='fr' is none of the languages"),
        (dict(start_entries='clones', cloned_fraction=0), 'no entry that could start as another'),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_one_sentence(training_of, settings, words):
    from configurator import ConfigError

    with pytest.raises(ConfigError) as error:
        training_of(**settings)
    assert words in str(error.value)


@pytest.mark.parametrize(
    'config', ['loss_weights_90_10', 'aligned_start', 'add_language', 'reversed', 'shuffled_8']
)
def test_the_config_of_each_knob_stands_behind_another(workplace, config):
    (workplace / 'two.py').write_text('\n'.join(f'{k} = {v!r}' for k, v in TINY.items()))
    more = ['--max_steps=2']
    if config == 'add_language':
        trained(workplace, 'old', languages=['en1'], corpora=['en'], stages=[[1]], max_steps=2)
        more.append('--init_from=out/old')
    done = script('train', 'two.py', f'{REPO}/config/{config}.py', *more, cwd=workplace)
    assert done.returncode == 0, done.stderr


def test_a_run_of_a_time_without_the_knobs_goes_on_and_refuses_them(workplace):
    results, _, _ = trained(workplace, 'r')
    path = workplace / 'out/r/results.json'
    for knob in ('loss_weights', 'start_entries', 'start_noise', 'trainable', 'orders'):
        del results['settings'][knob]
    path.write_text(json.dumps(results))
    again = train(cwd=workplace, out_dir='out/r')
    assert again.returncode == 0 and 'is finished' in again.stdout
    refused(train(cwd=workplace, out_dir='out/r', loss_weights=[1, 2]), 'loss_weights is [] there')
    checkpoint = list(checkpoint_paths(workplace / 'out/r').values())[-1]
    state = read_checkpoint(checkpoint)
    state['settings'] = results['settings']
    torch.save(state, checkpoint)
    path.unlink()
    assert train(cwd=workplace, out_dir='out/r').returncode == 0


def test_what_later_settings_count_as_is_what_they_are_by_default():
    import runs

    import train

    assert {name: getattr(train, name) for name in runs.DEFAULTS} == runs.DEFAULTS
