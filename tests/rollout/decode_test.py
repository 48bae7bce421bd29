"""The two device programs on a policy that follows a table: stops, limits, caches, recompiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax import types
from mem1_jax.memory import state
from mem1_jax.rollout.decode import EngineConfig
from mem1_jax.rollout.sampling import sampling, slot_keys
from mem1_jax.types import Kind, Stop
from tests.rollout import fakes

ENGINE = fakes.engine()
GREEDY = dict(is_greedy=True, max_tokens=8)
KEYS = slot_keys(jnp.int32(0), jnp.int32(0), *(jnp.arange(2, dtype=jnp.int32),) * 3)


def context(text, first=0):
  ids = tuple(fakes.ID[piece] for piece in text.split())
  positions = tuple(range(first, first + len(ids)))
  return types.Context(types.Segment(ids, positions, (Kind.STATE,) * len(ids)))


def take(params, *contexts, keep=(0, 0), cache=None, engine=ENGINE, **options):
  memory = state.batch(contexts, keep, 16, fakes.PAD)
  cache = engine.init_cache() if cache is None else cache
  turn, cache = engine.take_turn(params, cache, memory, KEYS, sampling(**(GREEDY | options)))
  return jax.device_get(turn), jax.device_get(cache)


def wrote(turn, b):
  return b' '.join(fakes.VOCABULARY[i] for i in turn.tokens[b, :turn.length[b]]).decode()


def test_a_turn_ends_with_its_closing_tag():
  turn, cache = take(fakes.chain('a <search> b </search> c', 'x <answer> </answer>'),
                     context('c a'), context('x', 7))
  assert [wrote(turn, b) for b in range(2)] == ['<search> b </search>', '<answer> </answer>']
  assert turn.stop.tolist() == [Stop.TAG, Stop.TAG]
  assert turn.length.tolist() == [3, 2]
  assert turn.tokens[0, 3:].tolist() == [fakes.PAD] * 5
  assert turn.logprob[0, 3:].tolist() == [0.0] * 5
  # All that was read and written is in the cache, at its position, and nothing else counts.
  assert cache.length.tolist() == [5, 3]
  ids = [fakes.ID[piece] for piece in 'c a <search> b </search>'.split()]
  assert cache.k[0, 0, :5, 0, 0].tolist() == ids
  assert cache.v[0, 0, :5, 0, 0].tolist() == [0, 1, 2, 3, 4]
  assert cache.v[0, 1, :3, 0, 0].tolist() == [7, 8, 9]


def test_a_closing_tag_inside_an_open_thought_ends_a_turn():
  turn, _ = take(fakes.chain('a <think> </search> b </think> c </answer>'), context('a'), None)
  assert wrote(turn, 0) == '<think> </search>'
  assert turn.stop[0] == Stop.TAG


def test_end_of_sequence():
  params = fakes.chain([fakes.ID['a'], fakes.ID['b'], fakes.EOS, fakes.ID['c']])
  turn, _ = take(params, context('a'), None)
  assert turn.tokens[0, :2].tolist() == [fakes.ID['b'], fakes.EOS]
  assert (turn.stop[0], turn.length[0]) == (Stop.EOS, 2)


@pytest.mark.parametrize('max_tokens, length', [(1, 1), (5, 5), (8, 8), (1000, 8)])
def test_the_token_limit(max_tokens, length):
  turn, cache = take(fakes.chain('a b c a'), context('a'), None, max_tokens=max_tokens)
  assert wrote(turn, 0) == ' '.join('bcabcabc'[:length])
  assert (turn.stop[0], turn.length[0], cache.length[0]) == (Stop.LENGTH, length, 1 + length)


@pytest.mark.parametrize('chain, start, num_repeated, written', [
    ('z', 'z', 3, 'z z z z'), ('z', 'z', 0, 'z z z z z z z z'),
    ('a b c a', 'a', 3, 'b c a b c a'), ('a b c a', 'a', 9, 'b c a b c a b c'),
    ('a b c x y a', 'a', 2, 'b c x y a b c')])
def test_a_turn_that_only_repeats_itself_ends(chain, start, num_repeated, written):
  engine = fakes.engine(max_repetition=num_repeated)
  turn, cache = take(fakes.chain(chain), context(start), context('c'), engine=engine)
  assert wrote(turn, 0) == written
  is_stopped = len(written.split()) < 8
  assert turn.stop[0] == (Stop.REPETITION if is_stopped else Stop.LENGTH)
  assert cache.length[0] == 1 + len(written.split())


def test_slots_end_each_at_its_time():
  params = fakes.chain('a </answer>', 'b c x y </search>')
  turn, cache = take(params, context('b'), context('a'))
  assert [wrote(turn, b) for b in range(2)] == ['c x y </search>', '</answer>']
  assert cache.length.tolist() == [5, 2]


def test_the_last_slots_go_on_by_themselves():
  engine, num = fakes.engine(num_slots=16), 16  # then 8 of them, then 4
  starts = ['x'] * num
  starts[2], starts[5], starts[9], starts[14] = 'c', 'a', 'b', 'z'
  memory = state.batch([context(start) for start in starts], [0] * num, 16, fakes.PAD)
  keys = slot_keys(jnp.int32(0), jnp.int32(0), *(jnp.arange(num, dtype=jnp.int32),) * 3)
  turn, cache = jax.device_get(engine.take_turn(
      fakes.chain('a b c x </search>'), engine.init_cache(), memory, keys, sampling(**GREEDY)))
  words = {'a': 'b c x </search>', 'b': 'c x </search>', 'c': 'x </search>', 'x': '</search>',
           'z': 'z z z z z z z z'}
  for b, start in enumerate(starts):
    assert wrote(turn, b) == words[start]
    ids = [fakes.ID[piece] for piece in [start, *words[start].split()]]
    assert cache.k[0, b, :cache.length[b], 0, 0].tolist() == ids
    assert turn.stop[b] == (Stop.LENGTH if start == 'z' else Stop.TAG)


def test_an_empty_slot_writes_nothing():
  turn, cache = take(fakes.chain('a </answer>'), None, context('a'), keep=(5, 0))
  assert turn.length.tolist() == [0, 1]
  assert turn.tokens[0].tolist() == [fakes.PAD] * 8
  assert cache.length.tolist() == [0, 2]


def test_long_contexts_are_read_in_chunks():
  text = ' '.join('abc'[i % 3] for i in range(14))  # 14 tokens, 4 at a time
  turn, cache = take(fakes.chain('b </search>', 'a </answer>'), context(text), context('a'))
  assert [wrote(turn, b) for b in range(2)] == ['</search>', '</answer>']
  assert cache.length.tolist() == [15, 2]
  assert cache.v[0, 0, :15, 0, 0].tolist() == list(range(15))


def test_keep_cuts_the_cache_and_reading_starts_new_slots_only():
  params = fakes.chain('a </answer>')
  tokens = np.array([[2, 3, 4, 13, 14, 0, 0, 0]] * 2, np.int32)
  position = np.arange(8, dtype=np.int32)[None].repeat(2, 0)
  cache = ENGINE.read(params, ENGINE.init_cache(), tokens, position, np.array([5, 2], np.int32))
  assert cache.length.tolist() == [5, 2]
  _, cache = take(params, context('c a', 3), context('a', 2), keep=(3, 2), cache=cache)
  assert cache.length.tolist() == [6, 4]
  ids = [fakes.ID[piece] for piece in 'a b c c a </answer>'.split()]
  assert cache.k[0, 0, :6, 0, 0].tolist() == ids
  # Slot 1 starts another question; slot 0 stays as it is.
  cache = ENGINE.read(params, jax.tree.map(jnp.asarray, cache), tokens[:, ::-1], position,
                      np.array([0, 8], np.int32))
  assert cache.length.tolist() == [6, 8]
  assert cache.k[0, 0, :6, 0, 0].tolist() == ids
  assert cache.k[0, 1, :8, 0, 0].tolist() == tokens[1, ::-1].tolist()


def test_log_probs_are_of_the_sampling_distribution():
  soft = fakes.engine(fakes.Chain(scale=2.0), num_valid=14)
  for temperature in (1.0, 0.5):
    turn, _ = take(fakes.chain('a b </search>'), context('a'), None, engine=soft,
                   temperature=temperature)
    # One logit of 2 / T among 14 valid ids, the others 0.
    expected = 2 / temperature - np.log(np.exp(2 / temperature) + 13)
    np.testing.assert_allclose(turn.logprob[0, :2], [expected] * 2, rtol=1e-5)


def test_options_are_run_time_values():
  soft = fakes.engine(fakes.Chain(scale=2.0), num_valid=14)
  params, turns = fakes.chain('a b c a'), []
  for options in (dict(top_k=1), dict(top_p=0.3), dict(is_greedy=True), dict(), dict(temperature=9),
                  dict(max_tokens=1)):
    turn, _ = take(params, context('a'), context('b c'), engine=soft,
                   **(dict(is_greedy=False) | options))
    turns.append(turn)
    assert (turn.tokens < 14).all()  # y and z are not valid
  # 'b' has probability 0.36: a nucleus of 0.3 holds it alone.
  assert [wrote(turn, 0) for turn in turns[:3]] == ['b c a b c a b c'] * 3
  assert wrote(turns[3], 0) != wrote(turns[0], 0)
  assert turns[3].logprob[0, 0] != turns[4].logprob[0, 0]
  assert turns[5].length.tolist() == [1, 1]
  assert soft._turn._cache_size() == 1


def test_capacities_that_do_not_fit():
  with pytest.raises(ValueError, match='cache_capacity 31 is below question .* = 32 tokens'):
    EngineConfig(2, 8, 16, 8, cache_capacity=31, prefill_chunk=4, num_valid=16)
