"""From a config to parts of model, rollout and learner; tasks and worlds are domains.py's."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from mem1_jax import initial
from mem1_jax.agents.agent import Agent
from mem1_jax.agents.amem import AMemAgent, Embed, hashed_words
from mem1_jax.agents.full_context import FullContextAgent
from mem1_jax.agents.mem1 import Mem1Agent
from mem1_jax.agents.threshold import ThresholdAgent
from mem1_jax.agents.truncation import TruncationAgent
from mem1_jax.arrays import Params
from mem1_jax.data import pipeline, sources
from mem1_jax.data.mixture import TaskSource
from mem1_jax.memory.positions import Gaps
from mem1_jax.model import ModelConfig, Policy, build_policy, lora, named_config, precision, quantize
from mem1_jax.optim import OptimConfig
from mem1_jax.parallel.mesh import MeshConfig, make_mesh
from mem1_jax.retrieval.dense import SentenceEncoder
from mem1_jax.rl.config import PPOConfig
from mem1_jax.rollout.engine import Engine, EngineConfig
from mem1_jax.text.prompts import check_tokenizer
from mem1_jax.text.tokenizer import HuggingFaceTokenizer, SentencePieceTokenizer, Tokenizer

AGENTS = {'mem1': Mem1Agent, 'full_context': FullContextAgent, 'truncation': TruncationAgent,
          'threshold': ThresholdAgent, 'amem': AMemAgent}
CRITICS, REFERENCES = ('separate', 'lora', 'head'), ('initial', 'none')
ROLLOUT_WEIGHTS = ('same', 'int8')
_CHECKED_TASKS = 256  # whose questions are measured before anything is compiled


def make_tokenizer(config: Any) -> Tokenizer:
  kind, path = config.tokenizer.kind, config.tokenizer.path
  if kind == 'sentencepiece':
    return SentencePieceTokenizer(sources.tokenizer_path() if path == 'atlas' else path)
  if kind == 'huggingface':
    return HuggingFaceTokenizer(initial.tokenizer(path))
  raise ValueError(f'tokenizer.kind {kind!r} is unknown; choose sentencepiece or huggingface.')


def agent_class(config: Any) -> type[Agent]:
  """What `config.agent` names, which tells whether it is append-only.

  Raises:
    ValueError: there is no such agent.
  """
  if config.agent not in AGENTS:
    raise ValueError(f'agent {config.agent!r} is unknown; choose one of {sorted(AGENTS)}.')
  return AGENTS[config.agent]


def make_agent(config: Any, tokenizer: Tokenizer) -> Agent:
  """The agent that `config.agent` names.

  Raises:
    ValueError: there is no such agent, or knobs that it does not take.
    FileNotFoundError: its encoder is not there.
  """
  make, m = agent_class(config), config.memory
  check_tokenizer(tokenizer, config.prompt_style)
  gaps = Gaps(config.gaps.prompt, config.gaps.turn, config.gaps.probability)
  own = {TruncationAgent: lambda: (m.budget,), ThresholdAgent: lambda: (m.budget,),
         AMemAgent: lambda: (m.budget, m.notes, make_embed(m.encoder))}
  return make(tokenizer, config.rollout.context_capacity, config.prompt_style, gaps,
              *own.get(make, tuple)())


@functools.cache
def make_embed(name: str) -> Embed:
  """What makes texts comparable: words alone for '', else the encoder of that name.

  Raises:
    FileNotFoundError: the encoder is not there.
    ValueError: what is there is none.
  """
  if not name:
    return hashed_words
  encoder = SentenceEncoder(initial.folder(name))
  encoder.warm_up()  # what compiles later would count as a recompile of the run

  @functools.lru_cache(maxsize=65536)
  def embed(text: str, is_query: bool) -> np.ndarray:
    tokenize = encoder.tokenize_queries if is_query else encoder.tokenize_passages
    with jax.transfer_guard('allow'):
      return encoder.encode_queries(tokenize([text]))[0]  # its program by row: notes come singly

  return embed


def check_room(config: Any, agent: Any, composer: Any):
  """That whatever the agent does can be packed; an episode that outgrows its row is ended, counted.

  Raises:
    ValueError: fewer rows than episodes, or a row that is too short for a question and a turn.
  """
  p, r = config.ppo, config.rollout
  num_episodes = p.tasks * p.samples
  if p.num_rows < num_episodes:
    raise ValueError(f'ppo.num_rows {p.num_rows} may not hold the {num_episodes} episodes of an '
                     'iteration (ppo.tasks * ppo.samples), which may need a row each; raise it to '
                     f'{num_episodes}, rows that stay empty cost nothing')
  num_tasks = min(_CHECKED_TASKS, p.iterations * p.tasks)
  starts = {0} | {start for start, *_ in config.data.curriculum}
  longest = max(len(agent.prompt(task, None)) for start in starts
                for task in composer.tasks(range(start, start + num_tasks)))
  for name, room, needed in (
      ('rollout.question_capacity', r.question_capacity, longest),
      ('rows.length', config.rows.length, longest + r.max_tokens)):
    if room < needed:
      raise ValueError(
          f'{name} {room} is too short: the longest question of the first {num_tasks} tasks has '
          f'{longest} tokens and a turn may write {r.max_tokens} (rollout.max_tokens); raise it to '
          f'{needed} or more')


def make_feed(config: Any, composer: TaskSource, batch: int, start: int):
  """Batches of tasks from number `start` on, by tf.data where it is wanted and there.

  Every process has all of them; the collector deals them.
  """
  feeds = {'auto': pipeline.feed, 'tf': pipeline.tfdata_feed, 'numpy': pipeline.numpy_feed}
  if config.data.feed not in feeds:
    raise ValueError(f'data.feed {config.data.feed!r} is unknown; choose one of {sorted(feeds)}.')
  return feeds[config.data.feed](composer, batch, start)


def model_config(config: Any) -> ModelConfig:
  """Sizes and arithmetic of the model that `config.model` names."""
  m = config.model
  speed = dict(remat=m.remat, dtype=m.dtype, param_dtype=m.param_dtype,
               lora_alpha=config.lora.alpha if has_adapters(config) else None)
  if m.name == 'checkpoint':
    return initial.sizes(config.init, **speed)
  return named_config(m.name, **speed)


def make_policy(config: Any, tokenizer: Tokenizer,
                devices: Sequence[jax.Device] | None = None) -> Policy:
  """The model that `config.model` names, on the mesh of `config.mesh` of `devices` (default: all).

  Raises:
    ValueError: its vocabulary is smaller than the tokenizer's, or the mesh does not fit.
  """
  sizes = model_config(config)
  if tokenizer.vocab_size > sizes.vocab_size:
    raise ValueError(f'the tokenizer has {tokenizer.vocab_size} ids, model {config.model.name} only '
                     f'{sizes.vocab_size} rows; choose a tokenizer that belongs to the model.')
  mesh = make_mesh(MeshConfig(config.mesh.data, config.mesh.fsdp, config.mesh.tensor), devices)
  return build_policy(sizes, config.model.attention, mesh)


def initial_params(config: Any, policy: Policy) -> Params:
  """Parameters from `config.init`, or random ones, where the policy has them."""
  if config.init:
    return initial.params(config.init, policy.config, policy.shardings())
  return policy.init(jax.random.key(config.seed))


def acting_params(config: Any, policy: Policy) -> Params:
  """Those parameters to act with, not to train: in the dtype of computation, if that is narrower."""
  return precision.narrowed(initial_params(config, policy), config.model.dtype)


def trainable(config: Any, params: Params, network: str) -> tuple[Params, Params | None]:
  """(what is trained, what stays frozen beside it): all of `params` and None, without adapters.

  Else fresh adapters of the network, 'policy' or 'value', and `params`. A critic that is a head
  on the actor has no trunk of its own: nothing, and None. Value heads are not made here.

  Raises:
    ValueError: an unknown critic, a negative rank, a target that the model lacks, or weights
      in float16 that would be trained whole.
  """
  if config.critic not in CRITICS:
    raise ValueError(f'critic {config.critic!r} is unknown; choose one of {CRITICS}.')
  if network == 'value' and config.critic == 'head':
    return {}, None
  if not (config.critic == 'lora' if network == 'value' else config.lora.rank):
    if config.model.param_dtype == 'float16':
      raise ValueError('model.param_dtype float16 cannot be trained: small updates round to '
                       'nothing; use float32, or bfloat16, which is rounded stochastically.')
    return params, None
  ranks = {'policy': config.lora.rank, 'value': config.lora.value_rank}
  key = jax.random.fold_in(jax.random.key(config.seed), list(ranks).index(network))
  return lora.init(key, params, ranks[network], config.lora.targets), params


def has_adapters(config: Any) -> bool:
  """Whether adapters stand beside the initial parameters, which must then be kept as they are."""
  return config.lora.rank > 0 or config.critic == 'lora'


def frozen(config: Any, params: Params) -> Params | None:
  """What PPO keeps of the initial parameters: the base of adapters, the KL's reference, both, none.

  A reference alone is kept in the dtype of computation, if that is narrower: every use of a
  parameter begins with that cast, so its log-probs are the same to the bit.

  Raises:
    ValueError: an unknown reference, or none for a KL term that needs one.
  """
  if config.reference not in REFERENCES:
    raise ValueError(f'reference {config.reference!r} is unknown; choose one of {REFERENCES}.')
  if config.reference == 'none' and config.ppo.kl_coef != 0.0:
    raise ValueError(f'ppo.kl_coef {config.ppo.kl_coef} needs a reference to take the KL to; set '
                     'reference=initial, or ppo.kl_coef=0.0')
  if has_adapters(config):
    return params
  return precision.narrowed(params, config.model.dtype) if config.reference == 'initial' else None


def origin(config: Any) -> dict[str, Any]:
  """What a run's checkpoints mean nothing without, for `checkpoint.check_origin`."""
  base = {'init': config.init, 'lora.alpha': config.lora.alpha} if has_adapters(config) else {}
  return {'seed': config.seed} | base


def make_engine(config: Any, policy: Policy, tokenizer: Tokenizer, is_append_only: bool,
                num_slots: int | None = None, params: Params | None = None) -> Engine:
  """The rollout programs, `rollout.num_slots` wide unless said; append-only needs more cache.

  `params`, the shardings of the parameters, is needed where there are adapters among them.
  """
  r = config.rollout
  if r.context_capacity <= r.turn_capacity:
    raise ValueError(f'rollout.context_capacity {r.context_capacity} must hold a turn of '
                     f'rollout.turn_capacity {r.turn_capacity} tokens and the reply to it; raise it.')
  fixed = r.question_capacity + r.context_capacity + r.turn_capacity
  capacity = max(fixed, r.append_capacity) if is_append_only else fixed
  return Engine(policy, EngineConfig(
      num_slots or r.num_slots, r.question_capacity, r.context_capacity, r.turn_capacity, capacity,
      r.prefill_chunk, tokenizer.vocab_size, r.max_repetition, r.num_questions, r.refill_rows,
      r.decode_steps, keeps_turns=is_append_only), tokenizer.token_bytes,
      tokenizer.eos_id, tokenizer.pad_id, params)


def rollout_weights(config: Any) -> Callable[[Params], Params]:
  """The policy's parameters → what rollouts read: in the dtype of computation, or in int8.

  Raises:
    ValueError: an unknown `rollout.weights`, or int8 with the sampler's log-probs as old ones.
  """
  weights, dtype = config.rollout.weights, config.model.dtype
  if weights not in ROLLOUT_WEIGHTS:
    raise ValueError(f'rollout.weights {weights!r} is unknown; choose one of {ROLLOUT_WEIGHTS}.')
  if weights == 'same':
    return lambda params: precision.narrowed(params, dtype)
  if not config.ppo.tis_cap:
    raise ValueError('rollout.weights int8 samples from another policy than the one that is '
                     'trained: set ppo.tis_cap=2.0, which weighs tokens by the difference.')
  return lambda params: precision.narrowed(quantize.quantized(params), dtype)


def loss_scale(config: Any) -> float:
  """What the loss is multiplied by while gradients are in `model.dtype`.

  Raises:
    ValueError: not a power of two ≥ 1, or none for float16.
  """
  scale, dtype = config.optim.loss_scale, config.model.dtype
  if not (scale >= 1.0 and math.frexp(scale)[0] == 0.5):
    raise ValueError(f'optim.loss_scale {scale} must be a power of two ≥ 1, such as 2.0**14.')
  if dtype == 'float16' and scale == 1.0:
    raise ValueError('model.dtype float16 loses gradients below 6e-8; set optim.loss_scale to a '
                     'power of two such as 16384.0, or another dtype.')
  return scale


def make_ppo_config(config: Any, num_valid: int) -> PPOConfig:
  """What an update is told; `num_valid` vocabulary ids may be sampled."""
  p = config.ppo
  if p.trunk_value_coef and config.critic != 'head':
    raise ValueError(f'ppo.trunk_value_coef {p.trunk_value_coef} is of critic=head, this critic is '
                     f'{config.critic!r}; set one of them')
  return PPOConfig(
      gamma=p.gamma, lam=p.lam, whiten=p.whiten, clip=p.clip, tis_cap=p.tis_cap,
      value_clip=p.value_clip,
      epochs=p.epochs, num_minibatches=p.minibatches, micro_rows=p.micro_rows, kl_in=p.kl_in,
      kl_estimator=p.kl_estimator, kl_controller=p.kl_controller, kl_target=p.kl_target,
      kl_horizon=p.kl_horizon, entropy_coef=p.entropy_coef,
      temperature=config.rollout.temperature, num_valid=num_valid,
      logprob_chunk=p.logprob_chunk, has_reference=config.reference != 'none',
      trunk_value_coef=p.trunk_value_coef, loss_scale=loss_scale(config),
      max_skipped=p.max_skipped)


def make_optim_config(config: Any, total_steps: int) -> OptimConfig:
  o = config.optim
  return OptimConfig(
      name=o.name, policy_lr=o.policy_lr, value_lr=o.value_lr, warmup_steps=o.warmup,
      schedule=o.schedule, total_steps=total_steps, final_fraction=0.1, beta1=o.b1, beta2=o.b2,
      epsilon=o.eps, weight_decay=o.weight_decay, max_grad_norm=o.max_grad_norm,
      mu_dtype=o.mu_dtype, nu_dtype=o.nu_dtype)
