"""The device programs on a policy that follows a table: stops, limits, caches, recompiles."""

import functools
import re

import jax
import numpy as np
import pytest

from mem1_jax import types
from mem1_jax.memory import state
from mem1_jax.model import build_policy, named_config
from mem1_jax.parallel import topology
from mem1_jax.parallel.mesh import MeshConfig, make_mesh
from mem1_jax.rollout.decode import DROPPED, Questions, Refill
from mem1_jax.rollout.engine import Engine, EngineConfig
from mem1_jax.rollout.sampling import sampling
from mem1_jax.types import Kind, Stop
from tests.model.small import small_config
from tests.rollout import fakes

ENGINE = fakes.engine()
GREEDY = dict(is_greedy=True, max_tokens=8)


def context(text, first=0):
  ids = tuple(fakes.ID[piece] for piece in text.split())
  positions = tuple(range(first, first + len(ids)))
  return types.Context(types.Segment(ids, positions, (Kind.STATE,) * len(ids)))


def read(params, store, questions, engine=ENGINE):
  """The store with texts at some of its rows, {row: text}."""
  num, capacity = engine.refill_rows, engine.config.question_capacity
  new = Questions(np.full(num, DROPPED, np.int32), *np.zeros((2, num, capacity), np.int32),
                  np.zeros(num, np.int32))
  for i, (row, text) in enumerate(questions.items()):
    segment = context(text).segment
    new.row[i], n = row, len(segment)
    new.tokens[i, :n], new.position[i, :n], new.length[i] = segment.ids, segment.positions, n
  return engine.read(params, store, new)


def refill(params, where, *contexts, keep=None, question=None, is_own=(), engine=ENGINE):
  """(store, slots) with the context of each slot in it, None for one that is left alone.

  Args:
    where: (store, slots).
    keep: tokens, of each slot; 0 by default.
    question: row of the store, of each slot; 0 by default.
    is_own: numbers of slots that keep what they hold.
  """
  num, zeros = engine.refill_rows, (0,) * len(contexts)
  for first in range(0, len(contexts), num):
    slot = np.arange(first, first + num, dtype=np.int32)
    some, keeps, row = (list(x[first:first + num]) for x in (
        contexts, keep or zeros, question or zeros))
    assert len(some) == num
    where = engine.refill(params, *where, Refill(
        np.where([c is None for c in some], DROPPED, slot).astype(np.int32),
        np.array(row, np.int32), np.isin(slot, is_own),
        state.batch(some, keeps, engine.config.context_capacity, fakes.PAD),
        slot[:, None].repeat(3, 1)), seed=0, iteration=0)
  return where


def finish(params, slots, engine=ENGINE, **options):
  """The slots once none is active, and the reports of all calls."""
  options, reports = sampling(**(GREEDY | options)), []
  while not reports or reports[-1].num_active:
    slots, report = engine.decode(params, slots, options)
    reports.append(jax.device_get(report))
  return slots, reports


def take(params, *contexts, keep=None, engine=ENGINE, **options):
  """(turn, cache) on the host after a turn of every slot, None for one that is left alone."""
  _, slots = refill(params, engine.init(), *contexts, keep=keep, engine=engine)
  slots, _ = finish(params, slots, engine, **options)
  return jax.device_get((slots.turn, slots.cache))


def held(cache, b):
  """What a slot has read and written."""
  return words(cache.k[0, b, :cache.length[b], 0].astype(int))


def words(ids):
  return b' '.join(fakes.VOCABULARY[i] for i in ids).decode()


def wrote(turn, b):
  return words(turn.tokens[b, :turn.length[b]])


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
  assert [held(cache, b) for b in range(2)] == ['c a <search> b </search>', 'x <answer> </answer>']
  assert cache.v[0, 0, :5, 0].tolist() == [0, 1, 2, 3, 4]
  assert cache.v[0, 1, :3, 0].tolist() == [7, 8, 9]


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
  params, is_stopped, (store, slots) = fakes.chain(chain), len(written.split()) < 8, engine.init()
  for _ in range(2):  # a slot's next turn counts its own repetitions only
    store, slots = refill(params, (store, slots), context(start), context('c'), engine=engine)
    slots, _ = finish(params, slots, engine)
    assert wrote(slots.turn, 0) == written
    assert slots.turn.stop[0] == (Stop.REPETITION if is_stopped else Stop.LENGTH)
    assert slots.cache.length[0] == 1 + len(written.split())


def test_slots_end_each_at_its_time():
  params = fakes.chain('a </answer>', 'b c x y </search>')
  turn, cache = take(params, context('b'), context('a'))
  assert [wrote(turn, b) for b in range(2)] == ['c x y </search>', '</answer>']
  assert cache.length.tolist() == [5, 2]


def test_sixteen_slots_end_at_different_steps():
  engine, num = fakes.engine(num_slots=16), 16  # refilled four at a time
  starts = ['x'] * num
  starts[2], starts[5], starts[9], starts[14] = 'c', 'a', 'b', 'z'
  turn, cache = take(fakes.chain('a b c x </search>'), *map(context, starts), engine=engine)
  written = {'a': 'b c x </search>', 'b': 'c x </search>', 'c': 'x </search>', 'x': '</search>',
             'z': 'z z z z z z z z'}
  for b, start in enumerate(starts):
    assert wrote(turn, b) == written[start]
    assert held(cache, b) == f'{start} {written[start]}'
    assert cache.v[0, b, :cache.length[b], 0].tolist() == list(range(cache.length[b]))
    assert turn.stop[b] == (Stop.LENGTH if start == 'z' else Stop.TAG)
    assert (turn.tokens[b, turn.length[b]:] == fakes.PAD).all()


@pytest.mark.parametrize('decode_steps, num_steps', [(3, [3, 3, 2]), (8, [8]), (16, [8])])
def test_decode_leaves_after_some_steps(decode_steps, num_steps):
  engine, params = fakes.engine(decode_steps=decode_steps), fakes.chain('a b c a')
  _, slots = refill(params, engine.init(), context('a'), context('c'), engine=engine)
  slots, report = engine.decode(params, slots, sampling(**GREEDY))
  first = num_steps[0]
  is_over = first == 8
  assert (report.num_steps, report.num_sampled, report.num_active) == (
      first, 2 * first, 0 if is_over else 2)
  assert [wrote(slots.turn, b) for b in range(2)] == [
      ' '.join(text[:first]) for text in ('bcabcabc', 'abcabcab')]
  assert slots.is_active.tolist() == [not is_over] * 2
  if not is_over:  # the rest of the turns
    slots, reports = finish(params, slots, engine)
    assert [report.num_steps for report in reports] == num_steps[1:]
  assert [held(jax.device_get(slots.cache), b) for b in range(2)] == [
      'a b c a b c a b c', 'c a b c a b c a b']
  assert slots.turn.stop.tolist() == [Stop.LENGTH] * 2


def test_decode_leaves_once_enough_turns_have_stopped():
  engine, params = fakes.engine(num_slots=4, refill_rows=2), fakes.chain('a b c x </search>')
  _, slots = refill(params, engine.init(), *map(context, 'xazc'), engine=engine)
  slots, reports = finish(params, slots, engine)
  # One stops after 1 step and one after 2, then one after 4; fewer than two are left.
  assert [(r.num_steps, r.num_sampled, r.num_active) for r in reports] == [(2, 7, 2), (6, 8, 0)]
  assert [wrote(slots.turn, b) for b in range(4)] == [
      '</search>', 'b c x </search>', 'z z z z z z z z', 'x </search>']


def test_decode_of_free_slots_does_nothing():
  slots, (report,) = finish(fakes.chain('a'), ENGINE.init()[1])
  assert (report.num_steps, report.num_sampled, report.num_active) == (0, 0, 0)
  assert slots.turn.length.tolist() == [0, 0]


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
  assert cache.v[0, 0, :15, 0].tolist() == list(range(15))


def test_keep_cuts_a_question_and_reading_touches_new_questions_only():
  params = fakes.chain('a </answer>')
  store, slots = ENGINE.init()
  store = read(params, store, {0: 'a b c x y', 2: 'b b'})
  assert store.questions.length.tolist() == [5, 0, 2]
  store, slots = refill(params, (store, slots), context('c a', 3), context('a', 2),
                        keep=(3, 9), question=(0, 2))
  slots, _ = finish(params, slots)
  cache = jax.device_get(slots.cache)
  assert [held(cache, b) for b in range(2)] == ['a b c c a </answer>', 'b b a </answer>']
  assert cache.v[0, 0, :6, 0].tolist() == [0, 1, 2, 3, 4, 5]
  # Row 2 becomes another question; row 0 stays as it is, and so do the slots.
  store = read(params, store, {2: 'z y x c b a z y'})
  questions, again = jax.device_get((store.questions, slots.cache))
  assert [held(questions, row) for row in range(3)] == ['a b c x y', '', 'z y x c b a z y']
  jax.tree.map(np.testing.assert_array_equal, again, cache)


@pytest.mark.parametrize('keeps_turns', [True, False])
def test_slots_share_a_question(keeps_turns):
  engine, params = fakes.engine(keeps_turns=keeps_turns), fakes.chain('a </answer>', 'b c a')
  store, slots = engine.init()
  store = read(params, store, {1: 'x y z', 0: 'y'}, engine)
  for _ in range(2):  # what slots write changes no question
    store, slots = refill(params, (store, slots), context('a', 3), context('c b', 2),
                          keep=(3, 2), question=(1, 1), engine=engine)
    slots, _ = finish(params, slots, engine)
    cache, questions = jax.device_get((slots.cache, store.questions))
    assert [held(cache, b) for b in range(2)] == ['x y z a </answer>', 'x y c b c a </answer>']
    assert cache.v[0, 0, :5, 0].tolist() == [0, 1, 2, 3, 4]
    assert cache.v[0, 1, :7, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert [held(questions, row) for row in range(3)] == ['y', 'x y z', '']


def test_a_slot_may_keep_its_own_cache():
  params = fakes.chain('a </answer>', 'b c x </search>')
  store, slots = ENGINE.init()
  store = read(params, store, {0: 'x y', 1: 'z z z'})
  store, slots = refill(params, (store, slots), context('b', 2), context('a', 2), keep=(2, 2))
  slots, _ = finish(params, slots)
  # Slot 0 goes on after all but the last token of its turn, slot 1 begins with another question.
  store, slots = refill(params, (store, slots), context('</search> a', 5), context('b', 3),
                        keep=(5, 3), question=(1, 1), is_own=[0])
  slots, _ = finish(params, slots)
  cache = jax.device_get(slots.cache)
  assert held(cache, 0) == 'x y b c x </search> a </answer>'
  assert cache.v[0, 0, :8, 0].tolist() == list(range(8))
  assert held(cache, 1) == 'z z z b c x </search>'
  assert [wrote(slots.turn, b) for b in range(2)] == ['</answer>', 'c x </search>']
  # It keeps no more than it holds, and may be cut, while the other slot is left alone.
  store, slots = refill(params, (store, slots), context('a', 2), None, keep=(2, 0), is_own=[0])
  slots, _ = finish(params, slots)
  assert [held(jax.device_get(slots.cache), b) for b in range(2)] == [
      'x y a </answer>', 'z z z b c x </search>']
  _, slots = refill(params, (store, slots), None, context('a', 7), keep=(0, 60), is_own=[1])
  slots, _ = finish(params, slots)
  assert held(jax.device_get(slots.cache), 1) == 'z z z b c x </search> a </answer>'


@functools.cache
def network():
  """(an engine over a small transformer, its parameters): four slots, two tokens at a time."""
  policy = build_policy(small_config(vocab_size=len(fakes.VOCABULARY), init_std=0.2), 'auto')
  engine = fakes.engine(policy, num_slots=4, decode_steps=2)
  return engine, policy.init(jax.random.key(3))  # none of its turns below is short


def rows(slots, b):
  """The turn of a slot, and the keys and values of all tokens that it holds."""
  turn, cache = jax.device_get((slots.turn, slots.cache))
  n = cache.length[b]
  return jax.tree.map(lambda x: x[b], turn), cache.k[:, b, :n], cache.v[:, b, :n]


def test_a_refill_changes_no_bit_of_turns_that_are_half_way():
  engine, params = network()
  go_on = functools.partial(finish, params, engine=engine, is_greedy=False)
  fill = functools.partial(refill, params, keep=(3, 2, 3, 1), engine=engine)
  contexts = [context('a b'), context('c x y z a b'), context('b'), context('x')]

  def begin(*some):
    store, slots = engine.init()
    return fill((read(params, store, {0: 'x y z'}, engine), slots), *some)

  alone = [rows(go_on(begin(*[c if i == b else None for i, c in enumerate(contexts)])[1])[0], b)
           for b in range(4)]
  store, slots = begin(contexts[0], contexts[1], None, None)
  slots, report = engine.decode(params, slots, sampling(max_tokens=8))
  # Both are half-way, when another begins, then one more.
  assert (report.num_steps, report.num_active) == (2, 2)
  store, slots = fill((store, slots), None, None, contexts[2], None)
  slots, report = engine.decode(params, slots, sampling(max_tokens=8))
  assert (report.num_steps, report.num_active) == (2, 3)
  store, slots = fill((store, slots), None, None, None, contexts[3])
  slots, _ = go_on(slots)
  for b in range(4):
    jax.tree.map(np.testing.assert_array_equal, rows(slots, b), alone[b])
  assert min(turn.length for turn, *_ in alone[:2]) > 4
  assert len({turn.tokens.tobytes() for turn, *_ in alone}) == 4
  # A slot that is used again does not remember its last turn.
  _, slots = fill((store, slots), contexts[0], None, None, None)
  slots, _ = go_on(slots)
  jax.tree.map(np.testing.assert_array_equal, rows(slots, 0), alone[0])


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
  assert [program._cache_size() for program in (soft._refill, soft._decode)] == [1, 1]


@pytest.mark.tpu_aot
def test_no_program_copies_a_cache_on_a_tpu():
  """Its compiler does so where a read or a write wants another layout: 1.3 GiB each time."""
  pytest.importorskip('libtpu')
  mesh = make_mesh(MeshConfig(-1, 1, 1), topology.devices('v5e:2x2'))
  config = named_config('qwen2.5-1.5b', dtype='bfloat16', param_dtype='bfloat16', copy_heads=None)
  policy = build_policy(config, mesh=mesh)
  engine = Engine(policy, EngineConfig(256, 512, 768, 256, 1536, 256, config.vocab_size,
                                       keeps_turns=False), [b''] * config.vocab_size, -1, 0)
  params = jax.eval_shape(policy.init, jax.random.key(0))
  for lower in (engine.lower_refill, engine.lower_decode):
    with topology.no_compilation_cache():
      compiled = lower(params).compile()
    cache = r'bf16\[28,\d+,(1536|512|1280),256\]'
    assert re.search(cache, compiled.as_text())
    assert not re.findall(rf'= {cache}\S* copy\(', compiled.as_text())
    assert compiled.memory_analysis().temp_size_in_bytes < 1.0 * 2**30


@pytest.mark.parametrize('knob, value', [
    ('num_questions', -1), ('refill_rows', -1), ('decode_steps', 0)])
def test_numbers_that_are_too_small(knob, value):
  with pytest.raises(ValueError, match=f'{knob} {value} is below .* raise it'):
    EngineConfig(2, 8, 16, 8, 32, prefill_chunk=4, num_valid=16, **{knob: value})


def test_capacities_that_do_not_fit():
  with pytest.raises(ValueError, match='cache_capacity 31 is below question .* = 32 tokens'):
    EngineConfig(2, 8, 16, 8, cache_capacity=31, prefill_chunk=4, num_valid=16)
