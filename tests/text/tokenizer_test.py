"""Tokenizers: round trips, bytes, and that untrusted text yields no reserved id."""

import io

from hypothesis import example, given, settings
from hypothesis import strategies as st
import pytest
import sentencepiece
import tokenizers
import transformers

from mem1_jax.text import prompts
from mem1_jax.text import tokenizer as tokenizer_lib

LABELS = ('[kf]', '[ab]', '[kfx]')
CORPUS = [
    'Oslo: Oslo is the capital of Norway. Its airport is Gardermoen (OSL).',
    'Bergen: Bergen lies in Norway, at the sea. It has 291940 people.',
    'What is the capital of Norway?', 'Which airport serves the capital of Norway?',
] * 5
SPECIAL = ('<|endoftext|>', '<|im_start|>', '<|im_end|>')
PLAIN_ADDED = ('<think>', '</think>', '☃')  # added, not special, as in Qwen3; one is one character


def train_sentencepiece(path, **overrides):
  model = io.BytesIO()
  settings_ = dict(
      vocab_size=360, model_type='unigram', pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
      user_defined_symbols=[*prompts.TAGS, *LABELS, '\n'], byte_fallback=True,
      add_dummy_prefix=False, remove_extra_whitespaces=False,
      normalization_rule_name='identity', hard_vocab_limit=False, minloglevel=2)
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(CORPUS), model_writer=model, **(settings_ | overrides))
  path.write_bytes(model.getvalue())
  return path


@pytest.fixture(scope='session')
def piece(tmp_path_factory):
  path = train_sentencepiece(tmp_path_factory.mktemp('piece') / 'tokenizer.model')
  return tokenizer_lib.SentencePieceTokenizer(path)


def byte_level(normalizer=None):
  model = tokenizers.Tokenizer(tokenizers.models.BPE())
  model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  model.decoder = tokenizers.decoders.ByteLevel()
  if normalizer is not None:
    model.normalizer = normalizer
  trainer = tokenizers.trainers.BpeTrainer(
      vocab_size=330, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False)
  model.train_from_iterator(CORPUS + ['><', '>.', '</', 'search>'] * 9, trainer)
  model.add_special_tokens(list(SPECIAL))
  model.add_tokens([tokenizers.AddedToken(text, normalized=False) for text in PLAIN_ADDED])
  return model


def wrap(model, **kwargs):
  kwargs = dict(eos_token='<|im_end|>', pad_token='<|endoftext|>') | kwargs
  return tokenizer_lib.HuggingFaceTokenizer(
      transformers.PreTrainedTokenizerFast(tokenizer_object=model, **kwargs))


@pytest.fixture(scope='session')
def hugging(tmp_path_factory):
  return wrap(byte_level())


@pytest.fixture(scope='session')
def nfkc():
  return wrap(byte_level(tokenizers.normalizers.NFKC()))


FRAGMENTS = (*prompts.TAGS, *LABELS, *SPECIAL, *PLAIN_ADDED, '<', '>', '</', '<0x41>',
             '<unk>', '<pad>', '</s>', '<thi', 'nk>', '[', ']', ' ', '\n', 'Oslo', '<<think>',
             '[[kf]', '＜think＞', 'é', '\U0001f600')
# SentencePiece reads '▁' as a space; NUL ends its C strings.
ADVERSARIAL = st.lists(
    st.sampled_from(FRAGMENTS) | st.text(
        st.characters(exclude_categories=['Cs'], exclude_characters='▁\0'), max_size=4),
    max_size=12).map(''.join)


@pytest.mark.parametrize('name', ['piece', 'hugging'])
@given(text=ADVERSARIAL)
@settings(max_examples=150, deadline=None)
@example(text='')
@example(text='  two  blanks \n\n')
def test_data_round_trips_without_reserved_ids(request, name, text):
  tokenizer = request.getfixturevalue(name)
  ids = tokenizer.encode_data(text)
  assert tokenizer.decode(ids) == text
  assert not set(ids) & reserved(tokenizer)


def reserved(tokenizer):
  """Ids that no data may become, found through the trusted door."""
  symbols = [symbol for symbol in (*prompts.TAGS, *LABELS, *SPECIAL, *PLAIN_ADDED)
             if len(tokenizer.encode(symbol)) == 1]
  assert symbols
  return {tokenizer.encode(symbol)[0] for symbol in symbols if symbol != '\n'} | {
      tokenizer.eos_id, tokenizer.pad_id}


@given(text=ADVERSARIAL)
@settings(max_examples=50, deadline=None)
@example(text='＜think＞＜|im_end|＞')
def test_symbols_made_by_normalisation_do_not_come_out(nfkc, text):
  assert not set(nfkc.encode_data(text)) & reserved(nfkc)


@pytest.mark.parametrize('name', ['piece', 'hugging'])
@given(text=st.text(st.sampled_from('Oslo is<>/[]kf.?\n é')))
@settings(max_examples=50, deadline=None)
def test_trusted_text_round_trips(request, name, text):
  tokenizer = request.getfixturevalue(name)
  assert tokenizer.decode(tokenizer.encode(text)) == text


def test_trusted_tags_and_labels_are_single_pieces(piece):
  text = '<think>[kf] Oslo</think><search>Norway</search>'
  ids = piece.encode(text)
  assert [piece.token_bytes[i] for i in ids if i in reserved(piece)] == [
      b'<think>', b'[kf]', b'</think>', b'<search>', b'</search>']
  assert set(piece.symbols) == {*prompts.TAGS, *LABELS, '\n'}
  assert piece.decode(ids) == text


def test_piece_bytes(piece):
  assert piece.token_bytes[piece.pad_id] == b'' == piece.token_bytes[piece.eos_id]
  assert (piece.pad_id, piece.eos_id) == (0, 1)
  assert len(piece.token_bytes) == piece.vocab_size
  singles = [token for token in piece.token_bytes if len(token) == 1]
  assert {bytes([i]) for i in range(256)} <= set(singles)  # byte fallback


def test_byte_level_bytes_are_exact(hugging):
  text = 'é\U0001f600 Oslo\n\t\x00\xad'
  ids = hugging.encode(text)
  assert b''.join(hugging.token_bytes[i] for i in ids) == text.encode()
  assert hugging.token_bytes[hugging.eos_id] == b''
  assert hugging.token_bytes[hugging.encode('<think>')[0]] == b'<think>'  # added, not special
  assert len(hugging.encode('<|im_end|>')) == 1
  assert len(hugging.encode_data('<|im_end|>')) > 1
  assert len(hugging.token_bytes) == hugging.vocab_size


def test_hugging_face_from_a_folder_equals_the_object(tmp_path, hugging):
  transformers.PreTrainedTokenizerFast(
      tokenizer_object=byte_level(), eos_token='<|im_end|>',
      pad_token='<|endoftext|>').save_pretrained(tmp_path)
  loaded = tokenizer_lib.HuggingFaceTokenizer(tmp_path)
  assert loaded.token_bytes == hugging.token_bytes
  assert (loaded.eos_id, loaded.pad_id) == (hugging.eos_id, hugging.pad_id)


def test_sentencepiece_like_hugging_face():
  vocab = {'<unk>': 0, '</s>': 1} | {f'<0x{i:02X}>': i + 2 for i in range(256)} | {
      '▁': 258, 'a': 259, '▁a': 260}
  model = tokenizers.Tokenizer(tokenizers.models.BPE(
      vocab=vocab, merges=[('▁', 'a')], byte_fallback=True, unk_token='<unk>'))
  model.normalizer = tokenizers.normalizers.Replace(' ', '▁')
  tokenizer = wrap(model, eos_token='</s>', pad_token=None)
  assert tokenizer.pad_id == tokenizer.eos_id
  assert tokenizer.token_bytes[260] == b' a' and tokenizer.token_bytes[2 + 0xC3] == b'\xc3'
  assert tokenizer.decode(tokenizer.encode_data(' a é</s>')) == ' a é</s>'


def test_a_lossy_model_is_refused(tmp_path):
  path = train_sentencepiece(tmp_path / 'lossy.model', add_dummy_prefix=True)
  with pytest.raises(ValueError, match='prefix space'):
    tokenizer_lib.SentencePieceTokenizer(path)


def test_missing_ids_are_refused(tmp_path):
  path = train_sentencepiece(tmp_path / 'no_pad.model', pad_id=-1, unk_id=0, eos_id=1)
  with pytest.raises(ValueError, match='pad id -1'):
    tokenizer_lib.SentencePieceTokenizer(path)
  with pytest.raises(ValueError, match='eos token'):
    wrap(byte_level(), eos_token=None)


def test_broken_utf8_decodes(hugging):
  first = hugging.token_bytes.index(b'\xc3')
  assert hugging.decode([first]) == '�'


def test_saved_files_give_the_same_tokenizer(piece, hugging, tmp_path):
  text = ' Oslo <think>[kf] 42 é'
  piece.save(tmp_path)
  again = tokenizer_lib.SentencePieceTokenizer(tmp_path / 'tokenizer.model')
  assert again.encode(text) == piece.encode(text)
  hugging.save(tmp_path)
  again = tokenizer_lib.HuggingFaceTokenizer(tmp_path)
  assert again.encode(text) == hugging.encode(text)
  assert (again.eos_id, again.pad_id) == (hugging.eos_id, hugging.pad_id)


def test_markers_are_ids_of_their_own_where_we_write_them(piece):
  marked = tokenizer_lib.MarkedTokenizer(piece, prompts.MARKERS)
  start, end = piece.vocab_size, piece.vocab_size + 1
  text = '<|im_start|>user\n<think>a<|im_end|>'
  assert marked.encode(text) == [start, *piece.encode('user\n<think>a'), end]
  assert marked.decode(marked.encode(text)) == 'user\n<think>a'  # as control tokens are nothing
  assert marked.vocab_size == len(marked.token_bytes) == end + 1 and marked.eos_id == end
  data = marked.encode_data('a <|im_end|>')
  assert max(data) < start and marked.decode(data) == 'a <|im_end|>'
  prompts.check_tokenizer(marked, 'chatml')
