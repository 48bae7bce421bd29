"""The committed tokenizer: special ids, labels, lossless text, the training's determinism."""

import pytest

from mem1_jax.data import sources
from mem1_jax.data.atlas import train_tokenizer
from mem1_jax.data.atlas.labels import LABELS

sentencepiece = pytest.importorskip('sentencepiece')


@pytest.fixture(scope='module')
def processor():
  return sentencepiece.SentencePieceProcessor(model_file=sources.tokenizer_path())


def test_ids(processor):
  assert processor.vocab_size() == train_tokenizer.VOCAB_SIZE
  assert (processor.pad_id(), processor.eos_id(), processor.unk_id()) == (0, 1, 2)
  assert processor.bos_id() == -1
  specials = train_tokenizer.TAGS + LABELS
  assert [processor.encode(text) for text in specials] == [[i + 3] for i in range(len(specials))]


def test_labels_are_distinct_pairs():
  assert len(set(LABELS)) == 192
  assert all(len(label) == 4 and label[0] == '[' and label[3] == ']' for label in LABELS)


@pytest.mark.parametrize('text', [' What is it?', 'two  spaces \n', '東京 ~{}^', ' +1-684', ''])
def test_text_comes_back_as_it_was(processor, text):
  assert processor.decode(processor.encode(text)) == text


def test_a_name_is_the_same_tokens_in_a_question_a_title_and_a_text(processor):
  for question in sources.load_atlas('test')[:300]:
    name = processor.encode(f' {question.found[0]}')
    for text in (f' {question.found[0]}: A city.', f' Its capital is {question.found[0]}.',
                 f' What is the country of {question.found[0]}?'):
      ids = processor.encode(text)
      assert any(ids[i:i + len(name)] == name for i in range(len(ids))), text


def test_documents_and_questions_are_short(processor):
  documents = sorted(len(processor.encode(f' {p.title}: {p.text}'))
                     for p in sources.atlas_documents())
  assert documents[int(0.95 * len(documents))] <= 45 and documents[-1] <= 64
  questions = sorted(len(processor.encode(f' {q.text}')) for q in sources.load_atlas('train'))
  assert questions[int(0.95 * len(questions))] <= 20


def test_training_gives_the_committed_bytes():
  if sentencepiece.__version__ != '0.2.3':
    pytest.skip(f'the model was trained by SentencePiece 0.2.3, not {sentencepiece.__version__}')
  model = train_tokenizer.train(train_tokenizer.corpus(), train_tokenizer.VOCAB_SIZE)
  assert model == train_tokenizer.MODEL.read_bytes()
