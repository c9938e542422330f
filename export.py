"""Exports a run for the tools that open models and tokenisers of Hugging Face.

    pip install safetensors tokenizers
    python export.py --out_dir=out/RUN

out/RUN/hf holds the model as a GPT-2, out/RUN/hf-LANGUAGE a tokeniser for each language, whose ids
are embedding rows of the model. Both are exact: logits are equal up to rounding, tokens are those
of SentencePiece. A language in another order than its text's (reversed, shuffled) has no tokeniser.
"""

import json
import math
from dataclasses import MISSING, fields
from pathlib import Path

from lib.configurator import ConfigError, require, run

import jinja2
import torch
import torch.nn.functional as F

from evaluate import load_run
from lib.files import read_json, write_file
from lib.tokenizer import DOCUMENT_END, PAD, UNKNOWN

try:
    import safetensors.torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
except ImportError:
    Tokenizer = None

out_dir = ''  # folder of a run of train.py
data_dir = 'data'  # folder of the corpora; where it lacks them, that of the run

SPACE = '\u2581'  # what SentencePiece writes for one


def gpt2_config(config):
    """config.json of the GPT-2. Its heads are n_embd / n_head wide, so it may need more heads and
    wider ones than the run. Raises ConfigError where no number of heads will do, and for settings
    of GPTConfig that a GPT-2 does not know."""
    width, least = config.n_embd, config.head_dim
    extra = [f for f in fields(config) if f.default is not MISSING]  # beyond the model's shape
    new = [f'{f.name}={value}' for f in extra if (value := getattr(config, f.name)) != f.default]
    require(not new, f'a GPT-2 cannot have {", ".join(new)}; there is no export')
    heads = [h for h in range(config.n_head, width + 1) if width % h == 0 and width // h >= least]
    ours = f'{config.n_head} heads of head_dim {least}'
    require(heads, f'a GPT-2 of width n_embd={width} cannot have {ours}; there is no export')
    about = dict(architectures=['GPT2LMHeadModel'], model_type='gpt2', vocab_size=config.vocab_size)
    about |= dict(n_layer=config.n_layer, n_head=heads[0], n_embd=width, n_inner=config.mlp_dim)
    about |= dict(n_positions=config.block_size, tie_word_embeddings=False, layer_norm_epsilon=1e-5)
    about |= dict(activation_function='gelu_new', resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    return about


def gpt2_tensors(model, heads):
    """{name: tensor} of the GPT-2 with so many heads that has the logits of `model`.

    Zeros fill up narrower heads: the dot product of a query and a key stays, and queries are
    multiplied by what its divisor, the square root of the width of a head, grows by."""
    config, tensors = model.config, {}
    width = config.n_embd // heads

    def padded(weight):  # (n_head * head_dim, ...) -> (heads * width, ...)
        by_head = weight.view(config.n_head, config.head_dim, -1)
        missing = 0, 0, 0, width - config.head_dim, 0, heads - config.n_head
        return F.pad(by_head, missing).reshape(-1, *weight.shape[1:])

    def add(name, weight, bias):
        tensors.update({f'{name}.weight': weight, f'{name}.bias': bias})

    for number, block in enumerate(model.blocks):
        name, attn, mlp = f'transformer.h.{number}', block.attn, block.mlp
        qkv = (attn.q, math.sqrt(width / config.head_dim)), (attn.k, 1), (attn.v, 1)
        weight, bias = (
            torch.cat([padded(getattr(part, kind)) * factor for part, factor in qkv])
            for kind in ('weight', 'bias')
        )
        add(f'{name}.ln_1', block.ln1.weight, block.ln1.bias)
        add(f'{name}.attn.c_attn', weight.T, bias)  # a GPT-2 stores (input, output)
        add(f'{name}.attn.c_proj', padded(attn.o.weight.T), attn.o.bias)
        add(f'{name}.ln_2', block.ln2.weight, block.ln2.bias)
        add(f'{name}.mlp.c_fc', mlp.fc.weight.T, mlp.fc.bias)
        add(f'{name}.mlp.c_proj', mlp.proj.weight.T, mlp.proj.bias)
    add('transformer.ln_f', model.ln_f.weight, model.ln_f.bias)
    tensors['transformer.wte.weight'] = model.wte.weight * math.sqrt(config.n_embd)
    tensors |= {'transformer.wpe.weight': model.wpe.weight, 'lm_head.weight': model.head.weight}
    return {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}


def exported_tokenizer(language):
    """A tokenizers.Tokenizer of a language, whose ids are embedding rows: BPE on the whole text,
    with U+2581 in front and for each space. Merges are the pairs of pieces that make a piece.
    Raises ConfigError for an order and for a tokeniser that has no equal of this kind."""
    require(not language.order, f'its text is in the order {language.order}')
    own, merges = language.corpus.load_tokenizer(), []
    pieces = own.spellings()
    id_of = {text: token for token, text in enumerate(pieces) if not own.is_fallback(token)}
    for text, token in id_of.items():
        for left, right in ((text[:cut], text[cut:]) for cut in range(1, len(text))):
            if left in id_of and right in id_of:
                merges.append((-own.score(token), id_of[left], id_of[right]))
    merges = [(pieces[left], pieces[right]) for _, left, right in sorted(merges)]
    rows = dict(zip(pieces, language.table.tolist()))
    bpe = models.BPE(rows, merges, unk_token=pieces[UNKNOWN], byte_fallback=True)
    exported, spaces = Tokenizer(bpe), [normalizers.Prepend(SPACE), normalizers.Replace(' ', SPACE)]
    special = [pieces[token] for token in (PAD, UNKNOWN, DOCUMENT_END)]
    exported.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    exported.normalizer = normalizers.Sequence(spaces)
    steps = decoders.Replace(SPACE, ' '), decoders.ByteFallback(), decoders.Fuse()
    exported.decoder = decoders.Sequence([*steps, decoders.Strip(' ', 1, 0)])
    exported.encode_special_tokens = True  # <D> in a text is text
    probe = own.decode(language.corpus.test[:20000].tolist())
    probe += f' a  {SPACE}b\t\nc\u00a0\ufb01 \uff21e\u0301<D>\U0001f600'
    same = exported.encode(probe).ids == language.table[own.encode(probe)].tolist()
    require(same, 'its tokeniser is not a BPE with byte fallback that leaves the text unchanged')
    return exported


def main():
    require(out_dir, 'say which run to export: --out_dir=out/RUN')
    require(Tokenizer, 'export.py needs two more packages: pip install safetensors tokenizers')
    model, languages, state = load_run(out_dir, data_dir)
    out, config = Path(out_dir), gpt2_config(model.config)
    ends = [int(language.table[DOCUMENT_END]) for language in languages]
    special = dict(pad_token_id=PAD, bos_token_id=ends[0], eos_token_id=sorted(set(ends)))
    tensors = safetensors.torch.save(gpt2_tensors(model, config['n_head']), dict(format='pt'))
    path, card = out / 'results.json', Path(__file__).parent / 'lib/model_card.md'
    results = read_json(path)['languages'] if path.exists() else {}
    card = jinja2.Template(card.read_text(encoding='utf-8'), trim_blocks=True)
    card = card.render(out=out, languages=languages, state=state, results=results)
    files = {'hf/config.json': config | special, 'hf/generation_config.json': special}
    files |= {'hf/README.md': card.encode(), 'hf/model.safetensors': tensors}
    for language in languages:
        folder = f'hf-{language.name}'
        try:
            files[f'{folder}/tokenizer.json'] = exported_tokenizer(language).to_str().encode()
        except ConfigError as reason:
            print(f'{language.name} has no tokeniser folder: {reason}')
            continue
        pad, unknown, end = language.corpus.load_tokenizer().spellings()[:3]
        about = dict(tokenizer_class='PreTrainedTokenizerFast', pad_token=pad, unk_token=unknown)
        about |= dict(bos_token=end, eos_token=end, model_max_length=model.config.block_size)
        about |= dict(split_special_tokens=True, clean_up_tokenization_spaces=False)
        files[f'{folder}/tokenizer_config.json'] = about
    for name, content in files.items():
        (out / name).parent.mkdir(exist_ok=True)
        content = json.dumps(content, indent=2).encode() if type(content) is dict else content
        write_file(out / name, lambda file, content=content: file.write(content))
    print('\n'.join(f'wrote {out / name}' for name in files))


if __name__ == '__main__':
    run(globals(), main)
