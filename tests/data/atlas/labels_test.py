"""Labels: distinct, never words, one token each."""

from mem1_jax.data import sources
from mem1_jax.data.atlas.labels import LABELS, NUM_LABELS
from mem1_jax.text.tokenizer import SentencePieceTokenizer


def test_labels_are_distinct_pairs_of_consonants():
  assert len(set(LABELS)) == len(LABELS) == NUM_LABELS == 192
  assert all(len(label) == 4 and not set(label) & set('aeiou') for label in LABELS)


def test_each_label_is_one_token_and_untrusted_text_cannot_spell_it():
  tokenizer = SentencePieceTokenizer(sources.tokenizer_path())
  ids = [tokenizer.encode(label) for label in LABELS]
  assert all(len(i) == 1 for i in ids)
  reserved = {i for (i,) in ids}
  assert not reserved & set(tokenizer.encode_data(' '.join(LABELS)))
