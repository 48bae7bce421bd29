"""A small random model on real atlas tasks, rolled out and learned from (shared by tests).

Wide initial weights: at the usual 0.02 every distribution is flat, and a context that leaks or
is lost would change nothing. No copying heads: attention scores of 40 round by 4e-6 in float32.
"""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from mem1_jax import types
from mem1_jax.agents.amem import AMemAgent, hashed_words
from mem1_jax.agents.full_context import FullContextAgent
from mem1_jax.agents.mem1 import Mem1Agent
from mem1_jax.agents.threshold import ThresholdAgent
from mem1_jax.agents.truncation import TruncationAgent
from mem1_jax.data import sources
from mem1_jax.data.atlas.labels import LABELS
from mem1_jax.data.compose import Composer
from mem1_jax.env import qa
from mem1_jax.env.environment import step_many as step_worlds
from mem1_jax.memory import layout, segments
from mem1_jax.memory.positions import Gaps
from mem1_jax.model import build_policy, named_config
from mem1_jax.ops.logprobs import token_logprobs
from mem1_jax.parallel import sharding
from mem1_jax.retrieval.bm25 import BM25Retriever
from mem1_jax.rollout import collect
from mem1_jax.rollout.collect import Collector
from mem1_jax.rollout.engine import Engine, EngineConfig
from mem1_jax.rollout.slots import Job
from mem1_jax.text.tokenizer import SentencePieceTokenizer

# Two of the longest episodes fit a row: 64 + 5 * 12 + 4 * 96 = 508 tokens.
ROW_LENGTH, MAX_TOKENS = 1024, 12
# (class, tokens that a turn may read, what else it takes). 96 tokens hold two turns, not three.
AGENTS = {'mem1': (Mem1Agent, 64), 'full_context': (FullContextAgent, 64),
          'truncation': (TruncationAgent, 96, 96), 'threshold': (ThresholdAgent, 96, 96),
          'amem': (AMemAgent, 96, 96, 1, hashed_words)}


@functools.cache
def tokenizer():
  return SentencePieceTokenizer(sources.tokenizer_path())


@functools.cache
def environment():
  retriever = BM25Retriever(sources.atlas_documents(), k1=1.2, b=0.75, title_weight=2)
  return qa.QAEnvironment(retriever, qa.QAConfig(
      top_k=1, max_passage_chars=50, slack=None, max_turns=5))


def jobs(num):
  composer = Composer(sources.load_atlas('train'), (1, 2), 0, LABELS)
  return [Job(composer.task(i), i) for i in range(num)]


def exact_arithmetic(dtype):
  """The context in which a dtype's numbers are as good as they can be."""
  stack = contextlib.ExitStack()
  stack.enter_context(jax.enable_x64(dtype == 'float64'))
  stack.enter_context(jax.default_matmul_precision('highest'))
  return stack


@functools.cache
def model(dtype):
  """Policy and parameters; call it under `exact_arithmetic`."""
  policy = build_policy(named_config(
      'atlas', dim=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, ffn_dim=64,
      init_std=0.2, tie_embeddings=False, copy_heads=None, dtype=dtype, param_dtype=dtype,
      lora_alpha=8.0), 'auto')
  return policy, policy.init(jax.random.key(1))


@functools.cache
def engine(dtype):
  """One engine for all agents, so that it compiles once; its parameters may have adapters."""
  policy, _ = model(dtype)
  config = EngineConfig(
      num_slots=3, question_capacity=64, context_capacity=96, turn_capacity=16,
      cache_capacity=384, prefill_chunk=32, num_valid=tokenizer().vocab_size)
  return Engine(policy, config, tokenizer().token_bytes, tokenizer().eos_id, tokenizer().pad_id,
                params=sharding.whole(policy.mesh))


def programs(dtype):
  """The jitted programs of `engine`."""
  made = engine(dtype)
  return made._read, made._refill, made._decode


def collector(dtype, agent, gap):
  """Episodes of `agent` with position gaps of up to `gap`, 0 for none."""
  make, capacity, *more = AGENTS[agent]
  agent = make(tokenizer(), capacity, 'atlas', Gaps(gap, gap, 0.7), *more)
  return Collector(engine(dtype), agent, environment().start, tokenizer().token_bytes, 0,
                   has_gaps=gap > 0)


def lead(monkeypatch):
  """Makes every turn the search that its task needs next, whatever the turn says.

  So a model that cannot act carries its turns on, and its contexts hold real information.
  """
  def parse_turn(ids, token_bytes):
    parsed = segments.parse_turn(ids, token_bytes)
    return dataclasses.replace(parsed, action=types.Action(types.ActionKind.SEARCH, ''))

  def step_many(episodes, actions):
    del actions
    titles = [[t for question in e.task.questions for t in question.chain] for e in episodes]
    return step_worlds(episodes, [
        types.Action(types.ActionKind.SEARCH, chain[e.turns % len(chain)])
        for e, chain in zip(episodes, titles)])

  monkeypatch.setattr(collect, 'parse_turn', parse_turn)
  monkeypatch.setattr(collect, 'step_many', step_many)


@functools.cache
def learner(dtype):
  """(params, tokens, position, key_end, temperature) → log-probs of a packed row's tokens."""
  policy, _ = model(dtype)

  def logprobs(params, tokens, position, key_end, temperature):
    hidden = policy.apply(params, tokens, position, key_end)
    return token_logprobs(hidden, policy.head(params), tokens, temperature,
                          tokenizer().vocab_size, 128)[0]

  return jax.jit(logprobs)


def compare(dtype, trajectories, name, temperature=1.0, params=None):
  """[(trajectory, turn, |sampler - learner| of its tokens)], all in shared packed rows.

  `params` are those that were rolled out, where not the model's.
  """
  columns = [layout.lay_out(t, name) for t in trajectories]
  for number, column in enumerate(columns):
    column['reward'][:] = number  # carries the number through the packing
  num_rows = len(columns) // 2 + 1
  rows, stats = layout.pack(columns, num_rows, ROW_LENGTH, tokenizer().pad_id)
  assert stats.num_rows < len(columns)  # several episodes in a row
  params = model(dtype)[1] if params is None else params
  logprob = np.asarray(learner(dtype)(params, rows.tokens, rows.tags.position, rows.tags.key_end,
                                      jnp.float32(temperature)))
  found = []
  for number, trajectory in enumerate(trajectories):
    is_here = (rows.reward == number) & (rows.tags.episode >= 0)
    for j, turn in enumerate(trajectory.turns):
      # Not the rows' own copy, which is float32.
      is_turn = is_here & rows.tags.is_generated & (rows.tags.turn == j)
      assert rows.tokens[is_turn].tolist() == list(turn.written.ids)
      found.append((number, j, np.abs(logprob[is_turn] - np.asarray(turn.logprobs))))
  return found
