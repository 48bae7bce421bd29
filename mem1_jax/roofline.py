"""What an iteration of PPO must do at least: arithmetic and memory traffic, from a config alone.

With N' the parameters without the input embedding, B slots, and L layers of N heads of width H
over K key/value heads:

    forward        2 N' tokens + 4 L N H visible pairs; the unembedding only where logits are wanted
    backward       twice that; once more forward where remat=full
    decoding step  reads the weights of each copy of the model, and 2 L K H numbers of every token
                   that a live slot has in its cache

Pairs are those that the exact layout leaves. Activations are not counted as traffic.
"""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp

from mem1_jax import domains
from mem1_jax.model import ModelConfig


@dataclasses.dataclass(frozen=True)
class Workload:
  """One iteration, as it is reckoned with: every turn of every episode has these lengths.

  Attributes:
    episodes: that are rolled out and trained on.
    turns: of an episode, as many as a row holds, up to the budget.
    question, read, written: tokens of the question, of what a later turn reads, of a turn.
    rows: packed rows of `row_length` that the update computes.
    slots: turns that decode side by side.
    refilled: slots whose turns begin together.
  """

  episodes: int
  turns: int
  question: int
  read: int
  written: int
  rows: int
  row_length: int
  slots: int
  refilled: int

  def refills(self) -> int:
    """Of slots with turns after an episode's first, which reads next to nothing."""
    return math.ceil(self.episodes * (self.turns - 1) / self.refilled)

  def tokens(self) -> int:
    """Of an episode, as it is trained on."""
    return self.question + self.turns * self.written + (self.turns - 1) * self.read

  def pairs(self) -> float:
    """Query-key pairs that an episode's mask leaves."""
    later = self.read + self.written
    blocks = [self.written] + [later] * (self.turns - 1)
    return self.question**2 / 2 + sum(b * b / 2 + b * self.question for b in blocks)


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a program must do at least in one iteration, over all chips.

  Attributes:
    flops: of its matrix products.
    hbm_bytes: weights, optimiser state, keys and values read or written by each chip, summed.
  """

  flops: float
  hbm_bytes: float


def workload(config: Any, refilled: int) -> Workload:
  """An iteration of `config` whose episodes take all turns, write all tokens and fill their rows.

  Args:
    refilled: slots whose turns begin together.

  Raises:
    ValueError: a row holds no episode of one turn.
  """
  r, p = config.rollout, config.ppo
  written, question = r.max_tokens, min(r.question_capacity, 512)  # capacities serve more questions
  free, budget = config.rows.length - question, domains.max_turns(config)
  if free < written:
    raise ValueError(f'rows.length {config.rows.length} holds no turn of {written} tokens behind a '
                     f'question of {question}; raise it')
  # A later turn reads at least what the one before wrote.
  turns = min(budget, (free + written) // (2 * written))
  read = min(r.context_capacity, (free - turns * written) // max(1, turns - 1))
  return Workload(p.tasks * p.samples, turns, question, read, written, p.num_rows,
                  config.rows.length, r.num_slots, refilled)


def forward_flops(model: ModelConfig, tokens: float, pairs: float, described: float) -> float:
  """Of the matrix products of one forward pass.

  Args:
    tokens: that go through the layers.
    pairs: of a query and a key that sees it, in each layer and head.
    described: positions whose logits are made.
  """
  head = model.vocab_size * model.dim
  body = model.num_params() - head * (1 if model.tie_embeddings else 2)
  heads = model.num_layers * model.num_heads * model.head_dim
  return 2 * body * tokens + 4 * heads * pairs + 2 * head * described


def costs(config: Any, model: ModelConfig, work: Workload, num_chips: int,
          state_bytes: float) -> dict[str, Cost]:
  """What the programs must do in an iteration: 'rollout', 'score', 'update'.

  Args:
    config: with the sizes of its mesh in numbers.
    state_bytes: of parameters and optimiser state that an update reads and writes.
  """
  E, p = work.episodes, config.ppo
  described = E * work.turns * work.written
  trunk = forward_flops(model, E * work.tokens(), E * work.pairs(), 0)
  unembed = forward_flops(model, 0, 0, described)
  # A copy of the model is spread over the tensor axis; each reads its weights once a step.
  width = jnp.dtype(model.dtype).itemsize
  copies = num_chips / config.mesh.tensor
  weights = model.num_params() * width * copies
  acting = model.num_params() * (1 if config.rollout.weights == 'int8' else width) * copies
  micro = work.rows / p.micro_rows * min(1.0, E * work.tokens() / (work.rows * work.row_length))
  has_critic, has_reference = config.critic != 'head', config.reference != 'none'
  # One pass gives old log-probs and the values of a head.
  scored = has_reference + (1 if not has_critic else 1 + bool(p.tis_cap))
  again = model.remat in ('full', 'attention')  # the forward pass, for the backward

  def passes(is_whole):  # frozen weights get no gradient: one product less
    return 1 + again + (2 if is_whole else 1)

  policy = passes(not config.lora.rank)
  critic = passes(config.critic == 'separate') if has_critic else 0
  return {
      'rollout': Cost(trunk + unembed, _rollout_bytes(config, model, work, acting, width)),
      'score': Cost(scored * trunk + (has_reference + bool(p.tis_cap)) * unembed,
                    scored * micro * weights),
      'update': Cost(p.epochs * ((policy + critic) * trunk + policy * unembed),
                     p.epochs * ((policy + critic) * micro * weights
                                 + p.minibatches * 2 * state_bytes))}


def _rollout_bytes(config, model, work, weights, width):
  waves = math.ceil(work.episodes / work.slots)
  steps, chunk = waves * work.turns * work.written, config.rollout.prefill_chunk
  questions = work.episodes / config.ppo.samples  # each is read once
  chunks = (math.ceil(questions / work.refilled) * math.ceil(work.question / chunk)
            + work.refills() * math.ceil(work.read / chunk))
  context = work.question + work.read + work.written / 2
  per_token = 2 * model.num_layers * model.num_kv_heads * model.head_dim * width
  return (steps + chunks) * weights + steps * min(work.episodes, work.slots) * context * per_token
