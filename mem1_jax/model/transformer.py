"""The decoder, and the pure functions that the rest of the package calls.

Parameters (layers stacked on a leading L):

    embed/embedding [V, D] · final_norm/scale [D] · head/kernel [D, V] if untied
    layers/attention_norm, layers/mlp_norm   scale [L, D]
    layers/attention   q/kernel [L, D, N, H]  k, v [L, D, K, H]  o [L, N, H, D]
                       q, k, v bias if qkv_bias, o bias if o_bias
                       q_norm, k_norm scale [L, H] if qk_norm
    layers/mlp         gate, up/kernel [L, D, F]  down [L, F, D]
"""

from collections.abc import Callable
import dataclasses
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from mem1_jax.arrays import Array, KVCache, Params
from mem1_jax.model import cache as cache_lib
from mem1_jax.model import layers
from mem1_jax.model.attention import Attention, Cached, Packed, RowAttention
from mem1_jax.model.config import ModelConfig
from mem1_jax.model.copy_heads import add_copy_heads
from mem1_jax.parallel import sharding
from mem1_jax.parallel.mesh import one_device

_HIDDEN_AXES = ('batch', 'length', 'hidden')  # logical axes of activations


class Block(nn.Module):
  """One pre-norm decoder layer, in the form that nn.scan wants."""

  config: ModelConfig
  row_attention: RowAttention

  @nn.compact
  def __call__(self, x_BSD: Array, layer: Array, inputs: Packed | Cached):
    normed_BSD = layers.RMSNorm(self.config, name='attention_norm')(x_BSD)
    out_BSD, new_kv = Attention(self.config, self.row_attention, name='attention')(
        normed_BSD, layer, inputs)
    x_BSD = x_BSD + out_BSD
    normed_BSD = layers.RMSNorm(self.config, name='mlp_norm')(x_BSD)
    x_BSD = x_BSD + layers.SwiGLU(self.config, name='mlp')(normed_BSD)
    return nn.with_logical_constraint(x_BSD, _HIDDEN_AXES), new_kv


class Embed(nn.Module):
  """Rows of the embedding table; ids outside it give nan, so that they are noticed."""

  config: ModelConfig

  @nn.compact
  def __call__(self, tokens_BS: Array) -> Array:
    config = self.config
    embedding_VD = self.param(
        'embedding',
        nn.with_logical_partitioning(nn.initializers.normal(config.init_std), ('vocab', 'embed')),
        (config.vocab_size, config.dim), jnp.dtype(config.param_dtype))
    # Ids go to the table's columns, not the table to the ids; then columns change for rows. Said
    # in one step, XLA would copy the table or the result to every device.
    tokens_BS = nn.with_logical_constraint(tokens_BS, ('lookup', 'length'))
    x_BSD = jnp.take(embedding_VD, tokens_BS, axis=0, mode='fill').astype(config.dtype)
    if self.has_variable('params', 'embedding_scale'):  # model/quantize.py
      scale_V = self.get_variable('params', 'embedding_scale')
      scale_BS = jnp.take(scale_V, tokens_BS, axis=0, mode='fill').astype(config.dtype)
      x_BSD = x_BSD * scale_BS[..., None]
    if config.dtype == 'float16':
      # The residual stream of large models passes 65,504, and small updates of it are lost.
      x_BSD = x_BSD.astype(jnp.float32)
    x_BSD = nn.with_logical_constraint(x_BSD, ('lookup', 'length', 'embed'))
    return nn.with_logical_constraint(x_BSD, _HIDDEN_AXES)


class Transformer(nn.Module):
  """Token ids to hidden states after the final norm; the unembedding is the caller's.

  Also returns keys and values of the tokens, [L, B, T, K, H] each, where they extend a cache.
  """

  config: ModelConfig
  row_attention: RowAttention

  @nn.compact
  def __call__(
      self, tokens_BS: Array, inputs: Packed | Cached,
  ) -> tuple[Array, tuple[Array, Array] | None]:
    config = self.config
    x_BSD = Embed(config, name='embed')(tokens_BS)
    scan = nn.scan(
        _remat(Block, config.remat), variable_axes={'params': 0}, split_rngs={'params': True},
        in_axes=(0, nn.broadcast), length=config.num_layers, unroll=config.scan_unroll,
        metadata_params={nn.PARTITION_NAME: 'layers'})
    x_BSD, new_kv = scan(config, self.row_attention, name='layers')(
        x_BSD, jnp.arange(config.num_layers, dtype=jnp.int32), inputs)
    if not config.tie_embeddings:
      self.param(  # declared here, read through Policy.head
          'head', nn.with_logical_partitioning(
              nn.initializers.normal(config.init_std), ('embed', 'vocab')),
          (config.dim, config.vocab_size), jnp.dtype(config.param_dtype))
    return layers.RMSNorm(config, name='final_norm')(x_BSD), new_kv


def _remat(block: type[nn.Module], remat: str) -> type[nn.Module]:
  """The layer with the recomputation policy that ModelConfig.remat names."""
  if remat == 'none':
    return block
  policies = jax.checkpoint_policies
  attention = policies.save_only_these_names('attention_out', 'attention_lse')
  policy = {'full': policies.nothing_saveable, 'attention': attention,
            'dots': policies.save_from_both_policies(
                policies.dots_with_no_batch_dims_saveable, attention)}[remat]
  return nn.remat(block, prevent_cse=False, policy=policy)  # the scan prevents it


@dataclasses.dataclass(frozen=True)
class Policy:
  """A language model as pure functions of its parameters.

  Attributes:
    config: its sizes.
    init: (key) → params, plain arrays; consumes the key.
    logical_axes: () → the tree of params with a PartitionSpec of logical axis names each.
    shardings: () → the tree of params with the NamedSharding of each; `init` makes them there.
    mesh: of the devices that compute it (parallel/mesh.py). Inside a program, activations, the
      cache and the head are placed on it.
    apply: (params, tokens_BS, position_BS, key_end_BS) → hidden_BSD after the final norm.
    init_cache: (batch, capacity) → KVCache of length 0.
    cache_shardings: (cache, or its shapes) → KVCache of the NamedSharding of each array.
    extend: (params, tokens_BT, position_BT, num_tokens_B, cache) → (hidden_BTD, cache). Row b's
      T tokens are written at cache indices length[b]…; token t sees the indices ≤ its own;
      length grows by num_tokens. The rest of the T are padding: their hidden states mean nothing
      and later writes overwrite them. What passes the capacity is dropped.
    head: (params) → the unembedding [D, V].
  """

  config: ModelConfig
  init: Callable[[Array], Params]
  logical_axes: Callable[[], Params]
  shardings: Callable[[], Params]
  mesh: jax.sharding.Mesh
  apply: Callable[[Params, Array, Array, Array], Array]
  init_cache: Callable[[int, int], KVCache]
  cache_shardings: Callable[[KVCache], KVCache]
  extend: Callable[[Params, Array, Array, Array, KVCache], tuple[Array, KVCache]]
  head: Callable[[Params], Array]


@dataclasses.dataclass(frozen=True)
class Critic:
  """A value function as pure functions of its parameters: a trunk and params['value'] [D, 1].

  Attributes:
    config: its sizes.
    init: (key) → params; the value head is zero.
    logical_axes: as Policy.logical_axes.
    apply: (params, tokens_BS, position_BS, key_end_BS) → value_BS, at least float32, read from
      each token's own hidden state: shifting by one is the caller's.
    read: (params, hidden_BSD) → value_BS of hidden states after the final norm, whoever made
      them; needs the value head alone.
    from_policy: (policy_params, key) → params: the policy's trunk copied, the value head zero.
  """

  config: ModelConfig
  init: Callable[[Array], Params]
  logical_axes: Callable[[], Params]
  apply: Callable[[Params, Array, Array, Array], Array]
  read: Callable[[Params, Array], Array]
  from_policy: Callable[[Params, Array], Params]


def build_policy(config: ModelConfig, implementation: str = 'auto',
                 mesh: jax.sharding.Mesh | None = None) -> Policy:
  """The policy of `config` on `mesh`, or one device; `implementation` as in ops/attention.py."""
  mesh = mesh or one_device()
  model = Transformer(config, RowAttention(implementation, mesh))
  placed = functools.partial(_placed, config, mesh)

  def extend(params, tokens_BT, position_BT, num_tokens_B, cache):
    cos, sin = layers.rotary_angles(position_BT, config)
    hidden_BTD, (k_LBTKH, v_LBTKH) = model.apply(
        {'params': params}, tokens_BT, Cached(cos, sin, cache))
    cache = cache_lib.write(cache, k_LBTKH, v_LBTKH, num_tokens_B)
    return hidden_BTD, nn.with_logical_constraint(cache, cache_lib.LOGICAL_AXES)

  def head(params):
    parts, name = (params['embed'], 'embedding') if config.tie_embeddings else (params, 'head')
    head_DV = parts[name].T if config.tie_embeddings else parts[name]
    if f'{name}_scale' in parts:
      head_DV = head_DV.astype(config.dtype) * parts[f'{name}_scale'].astype(config.dtype)[None]
    # Whole rows, the vocabulary split: so are all logits, and no device has all of one.
    return nn.with_logical_constraint(head_DV, ('hidden', 'vocab'))

  def logical_axes():
    return nn.get_partition_spec(jax.eval_shape(lambda: _init(model, jax.random.key(0))))

  def shardings():
    shapes = jax.eval_shape(lambda: _fresh(model, jax.random.key(0)))
    return sharding.tree(mesh, logical_axes(), shapes)

  return Policy(
      config=config,
      init=jax.jit(
          lambda key: jax.lax.with_sharding_constraint(_fresh(model, key), shardings())),
      logical_axes=logical_axes,
      shardings=shardings,
      mesh=mesh,
      apply=placed(_build_apply(model)),
      init_cache=lambda batch, capacity: cache_lib.init_cache(config, batch, capacity),
      cache_shardings=lambda cache: cache_lib.shardings(mesh, cache, config.num_kv_heads),
      extend=placed(extend),
      head=placed(head))


def build_critic(config: ModelConfig, implementation: str = 'auto',
                 mesh: jax.sharding.Mesh | None = None) -> Critic:
  """The critic of `config`: the policy's trunk and a linear value head."""
  config = dataclasses.replace(config, tie_embeddings=True)  # a critic has no unembedding
  policy = build_policy(config, implementation, mesh)
  # f32 at least: it is trained on a frozen bfloat16 trunk, too.
  value_D1 = jnp.zeros((config.dim, 1), jnp.promote_types(jnp.float32, config.param_dtype))

  def apply(params, tokens_BS, position_BS, key_end_BS):
    trunk = {name: leaf for name, leaf in params.items() if name != 'value'}
    return read(params, policy.apply(trunk, tokens_BS, position_BS, key_end_BS))

  def read(params, hidden_BSD):
    dtype = jnp.promote_types(jnp.float32, hidden_BSD.dtype)
    return hidden_BSD.astype(dtype) @ params['value'][:, 0].astype(dtype)

  def from_policy(policy_params, key):
    del key  # the value head starts at zero; kept for heads that do not
    trunk = {name: leaf for name, leaf in policy_params.items() if name != 'head'}
    # Copies: the two models are donated separately.
    return jax.tree.map(jnp.copy, trunk) | {'value': jnp.copy(value_D1)}

  return Critic(
      config=config,
      init=lambda key: policy.init(key) | {'value': jnp.copy(value_D1)},
      logical_axes=lambda: policy.logical_axes() | {
          'value': jax.sharding.PartitionSpec('embed', None)},
      apply=apply,
      read=read,
      from_policy=from_policy)


def _placed(config, mesh, function):
  """`function(params, [tokens_BS, …])` under the table of parallel/sharding.py."""
  if mesh.size == 1:
    return function  # nothing to place: the program is what it is without a mesh

  @functools.wraps(function)
  def placed(params, *inputs):
    sizes = dict(embed=config.dim, vocab=config.vocab_size, kv_heads=config.num_kv_heads)
    if inputs:
      sizes |= dict.fromkeys(('batch', 'lookup'), inputs[0].shape[0])
    rules = sharding.rules(mesh, **sizes)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(rules):
      return function(params, *inputs)

  return placed


def _fresh(model, key):
  params = nn.unbox(_init(model, key))
  if model.config.copy_heads is None:
    return params
  return add_copy_heads(params, model.config, jax.random.fold_in(key, 1))


def _init(model, key):
  config = model.config
  index_11 = jnp.zeros((1, 1), jnp.int32)
  cos, sin = layers.rotary_angles(index_11, config)
  key_end_11 = index_11 + 1
  # One position needs no kernel; parameters do not depend on it.
  model = model.copy(row_attention=dataclasses.replace(
      model.row_attention, implementation='reference'))
  return model.init(key, index_11, Packed(cos, sin, key_end_11, None))['params']


def _build_apply(model):
  def apply(params, tokens_BS, position_BS, key_end_BS):
    cos, sin = layers.rotary_angles(position_BS, model.config)
    # Listed once here, not once per layer.
    plan = model.row_attention.plan(key_end_BS, model.config.dtype)
    inputs = Packed(cos, sin, key_end_BS, plan)
    return model.apply({'params': params}, tokens_BS, inputs)[0]
  return apply
