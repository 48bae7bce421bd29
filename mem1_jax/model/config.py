"""Sizes of the decoder: `ModelConfig`, and the published ones by name.

Sources: config.json of Qwen/Qwen2.5-{0.5B,1.5B,3B,7B} and Qwen/Qwen3-{0.6B,1.7B,4B,8B}
(https://huggingface.co/Qwen).
"""

import dataclasses

# Fields that may differ between a checkpoint and the model that reads it.
_NOT_ARITHMETIC = ('init_std', 'param_dtype', 'dtype', 'remat', 'scan_unroll', 'copy_heads',
                   'lora_alpha')
REMAT_POLICIES = ('none', 'dots', 'attention', 'full')
DTYPES = ('float32', 'bfloat16', 'float16', 'float64')


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """All that fixes the shapes and the arithmetic of a decoder.

  Constants that change numbers have no default: a forgotten one must not pass.

  Attributes:
    vocab_size: rows of the embedding, V; a tokenizer may use fewer.
    dim: width of the residual stream, D.
    num_layers: L.
    num_heads: query heads, N.
    num_kv_heads: key/value heads, K; divides N.
    head_dim: width of a head, H; even; need not be D/N.
    ffn_dim: inner width of SwiGLU, F.
    rope_theta: base of the rotary frequencies.
    rms_eps: added to the mean square in RMSNorm.
    init_std: standard deviation of freshly drawn kernels and embeddings.
    tie_embeddings: the unembedding is the embedding, transposed.
    qkv_bias: q, k, v projections have a bias (Qwen2, Qwen2.5).
    o_bias: the attention's output projection has one (attention_bias of Llama and Qwen3).
    qk_norm: RMSNorm over H on queries and keys before the rotation (Qwen3).
    param_dtype: how parameters are stored.
    dtype: how activations, keys and values are computed and stored; in float16 the residual
      stream is float32.
    remat: what the backward pass recomputes in a layer: 'none'; 'dots' keeps projections
      and attention outputs and recomputes the rest; 'attention' keeps attention outputs
      alone, N H + 2 N numbers of a token; 'full' keeps nothing.
    scan_unroll: layers per step of the layer loop; changes speed, not numbers.
    copy_heads: ids [first, end) of the labels that head lines, where fresh parameters begin
      with heads that copy by line (model/copy_heads.py); None for plain random ones.
    lora_alpha: what adapters among the parameters are scaled by, over their rank
      (model/lora.py); None where there are none.
  """

  vocab_size: int
  dim: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  ffn_dim: int
  rope_theta: float
  rms_eps: float
  init_std: float
  tie_embeddings: bool
  qkv_bias: bool
  o_bias: bool
  qk_norm: bool
  param_dtype: str
  dtype: str
  remat: str = 'none'
  scan_unroll: int = 1
  copy_heads: tuple[int, int] | None = None
  lora_alpha: float | None = None

  def __post_init__(self):
    for name in ('vocab_size', 'dim', 'num_layers', 'num_heads', 'num_kv_heads',
                 'head_dim', 'ffn_dim', 'scan_unroll'):
      if getattr(self, name) < 1:
        raise ValueError(f'{name}={getattr(self, name)} must be at least 1')
    for name in ('rope_theta', 'rms_eps', 'init_std'):
      if not getattr(self, name) > 0:
        raise ValueError(f'{name}={getattr(self, name)} must be above 0')
    if self.lora_alpha is not None and not self.lora_alpha > 0:
      raise ValueError(f'lora_alpha={self.lora_alpha} must be above 0; 2 * rank is usual')
    if self.num_heads % self.num_kv_heads:
      raise ValueError(
          f'num_heads={self.num_heads} is not a multiple of '
          f'num_kv_heads={self.num_kv_heads}; choose a divisor')
    if self.head_dim % 2:
      raise ValueError(f'head_dim={self.head_dim} must be even: rotary pairs halves')
    if self.remat not in REMAT_POLICIES:
      raise ValueError(f'remat={self.remat!r} must be one of {REMAT_POLICIES}')
    for name in ('param_dtype', 'dtype'):
      if getattr(self, name) not in DTYPES:
        raise ValueError(f'{name}={getattr(self, name)!r} must be one of {DTYPES}')

  def differences(self, other: 'ModelConfig') -> list[str]:
    """Fields by which the two compute different functions of the same parameters."""
    return [field.name for field in dataclasses.fields(self)
            if field.name not in _NOT_ARITHMETIC
            and getattr(self, field.name) != getattr(other, field.name)]

  def num_params(self) -> int:
    """Parameters of the policy; a tied head counts once."""
    query, key_value = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
    attention = self.dim * (2 * query + 2 * key_value)
    attention += self.qkv_bias * (query + 2 * key_value) + self.o_bias * self.dim
    attention += self.qk_norm * 2 * self.head_dim
    layer = attention + 3 * self.dim * self.ffn_dim + 2 * self.dim
    embeddings = (1 if self.tie_embeddings else 2) * self.vocab_size * self.dim
    return embeddings + self.num_layers * layer + self.dim


def _qwen(dim, num_layers, num_heads, num_kv_heads, head_dim, ffn_dim, *, version,
          vocab_size=151_936, tie_embeddings=True) -> ModelConfig:
  return ModelConfig(
      vocab_size=vocab_size, dim=dim, num_layers=num_layers, num_heads=num_heads,
      num_kv_heads=num_kv_heads, head_dim=head_dim, ffn_dim=ffn_dim,
      rope_theta=1e6, rms_eps=1e-6, init_std=0.02, tie_embeddings=tie_embeddings,
      qkv_bias=version == 2, o_bias=False, qk_norm=version == 3,
      param_dtype='float32', dtype='bfloat16', remat='dots')


_ATLAS = ModelConfig(
    vocab_size=1024, dim=128, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=32,
    ffn_dim=256, rope_theta=1e6, rms_eps=1e-6, init_std=0.02, tie_embeddings=True,
    qkv_bias=True, o_bias=False, qk_norm=False, param_dtype='float32', dtype='float32',
    copy_heads=(11, 203))

NAMED_CONFIGS = {
    'atlas': _ATLAS,
    # Learns nothing worth having; compiles in seconds, for tests.
    'tiny': dataclasses.replace(_ATLAS, dim=32, num_layers=2, num_heads=2, num_kv_heads=1,
                                head_dim=16, ffn_dim=48, copy_heads=None),
    'qwen2.5-0.5b': _qwen(896, 24, 14, 2, 64, 4864, version=2),
    'qwen2.5-1.5b': _qwen(1536, 28, 12, 2, 128, 8960, version=2),
    'qwen2.5-3b': _qwen(2048, 36, 16, 2, 128, 11008, version=2),
    'qwen2.5-7b': _qwen(3584, 28, 28, 4, 128, 18944, version=2,
                        vocab_size=152_064, tie_embeddings=False),
    'qwen3-0.6b': _qwen(1024, 28, 16, 8, 128, 3072, version=3),
    'qwen3-1.7b': _qwen(2048, 28, 16, 8, 128, 6144, version=3),
    'qwen3-4b': _qwen(2560, 36, 32, 8, 128, 9728, version=3),
    'qwen3-8b': _qwen(4096, 36, 32, 8, 128, 12288, version=3, tie_embeddings=False),
}


def named_config(name: str, **overrides) -> ModelConfig:
  """The configuration called `name` with some fields replaced.

  Raises:
    ValueError: unknown name, or a combination that `ModelConfig` refuses.
    TypeError: an override that is not a field.
  """
  if name not in NAMED_CONFIGS:
    raise ValueError(f'no model is named {name!r}; choose one of {sorted(NAMED_CONFIGS)}')
  return dataclasses.replace(NAMED_CONFIGS[name], **overrides)
