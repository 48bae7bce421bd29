"""Plans: what is counted, what is said where it does not fit, and the exit status."""

import dataclasses
import json

import pytest

from mem1_jax import configs, main, plan
from mem1_jax.parallel import topology
from mem1_jax.roofline import Cost
from tests.tiny import tiny_config

TINY = ['--config=atlas', '--config.model.name=tiny', '--config.mesh.fsdp=2',
        '--config.mesh.tensor=1', '--config.mesh.data=2', '--config.model.dtype=bfloat16',
        '--config.rollout.num_slots=8', '--config.rollout.question_capacity=256',
        '--config.rollout.context_capacity=256', '--config.rollout.turn_capacity=128',
        '--config.ppo.num_rows=16', '--config.ppo.minibatches=2']


@pytest.fixture(scope='module')
def small():
  """The plan of the tiny model on four chips, from the TPU compiler."""
  pytest.importorskip('libtpu')
  return plan.make(configs.load('atlas', TINY[1:]), 'v5e:2x2')


def test_a_small_run_fits(small):
  assert small.fits and small.num_chips == 4 and small.remedies == []
  assert small.mesh == {'data': 2, 'fsdp': 2, 'tensor': 1}
  for name in ('rollout', 'score', 'update'):
    report = small.programs[name]
    assert report.hbm['policy'] > 0 and report.compile_s > 0
    assert 0 < report.hbm_bytes < small.chip.hbm_bytes and report.roofline_s > 0
  # A float32 policy, split in two by fsdp; rollouts read a bfloat16 copy that is whole.
  policy, copy = (small.programs['rollout'].hbm[kind] for kind in ('policy', 'rollout copy'))
  assert copy == pytest.approx(policy, rel=0.01)
  assert small.programs['update'].hbm['optimizer'] == pytest.approx(4 * policy, rel=0.05)
  assert small.programs['rollout'].hbm['cache'] > 0
  assert small.programs['rollout'].hbm['questions'] > 0


def test_an_update_gathers_weights_in_each_layer_and_sums_gradients(small):
  policy = 2 * small.programs['rollout'].hbm['policy']  # whole, float32
  sent = small.programs['update'].sent
  assert sent['all-gather'] > 4 * policy / 2  # bfloat16, in each of four minibatches and more
  assert sent['all-reduce'] > 0


def test_json_is_what_it_promises(small):
  found = json.loads(json.dumps(small.json()))
  assert found['fits'] is True and found['chip'] == 'TPU v5e'
  assert found['hbm_bytes'] == topology.CHIPS['v5e'].hbm_bytes
  for program in found['programs'].values():
    assert {'hbm_bytes', 'flops', 'compile_s', 'roofline_s'} <= set(program)
    assert program['hbm_bytes'] == pytest.approx(sum(program['hbm'].values()))


def test_tables_name_programs_and_kinds(small, capsys):
  plan.show(small)
  text = capsys.readouterr().out
  for word in ('rollout', 'score', 'update', 'optimizer', 'temporaries', 'not timed on TPU', 'fits'):
    assert word in text


def _full(small, **knobs):
  """The same on chips that are too small."""
  chip = dataclasses.replace(small.chip, hbm_bytes=small.programs['update'].hbm_bytes / 2)
  full, config = dataclasses.replace(small, chip=chip), tiny_config()
  config.update(knobs)
  return dataclasses.replace(full, remedies=plan.remedies(full, config))


def test_what_does_not_fit_is_said_with_remedies(small, capsys):
  full = _full(small)
  assert not full.fits and not full.json()['fits']
  assert 'model.remat=full' in ' '.join(full.remedies)
  assert 'chips of this kind or more' in full.remedies[-1]
  plan.show(full)
  assert 'does not fit' in capsys.readouterr().out


def test_remedies_name_what_frees_most_first():
  hbm = dict(policy=4e9, critic=4e9, reference=2e9, optimizer=16e9, temporaries=2e9)
  report = plan.Report(hbm, Cost(1, 1), {}, 1.0, 1.0, 'memory')
  config = tiny_config()
  made = plan.Plan('v5e:4x4', topology.CHIPS['v5e'], 16, {'data': 4, 'fsdp': 4, 'tensor': 1},
                   None, {'update': report}, [])
  found = plan.remedies(made, config)
  assert found[0].startswith('lora.rank=16') and any('mesh.fsdp=16' in x for x in found)
  assert any(x.startswith('critic=head') for x in found)
  assert any(x.startswith('reference=none') for x in found)
  config.lora.rank, config.critic = 16, 'lora'
  assert not any(x.startswith(('lora', 'critic', 'reference')) for x in plan.remedies(made, config))


@pytest.mark.parametrize('fits, status', [(True, 0), (False, 1)])
def test_the_exit_status_says_whether_it_fits(small, fits, status, monkeypatch, capsys):
  monkeypatch.setattr(plan, 'make', lambda *_: small if fits else _full(small))
  if fits:
    main.run(['plan', *TINY, '--topology=v5e:2x2', '--json'])
  else:
    with pytest.raises(SystemExit) as stopped:
      main.run(['plan', *TINY, '--topology=v5e:2x2', '--json'])
    assert stopped.value.code == status
  assert json.loads(capsys.readouterr().out)['fits'] is fits


def test_an_unknown_slice_is_one_line(capsys):
  with pytest.raises(SystemExit) as stopped:
    main.run(['plan', '--topology=v9:2x2'])
  assert stopped.value.code == 2
  assert 'v9:2x2' in capsys.readouterr().err


@pytest.mark.parametrize('message, gib', [
    ('Ran out of memory on HBM, the total memory required for HLO temporaries (17.23G) exceeds '
     'available HBM (15.75G).', 17.23),
    ('XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.53G of 15.75G '
     'hbm. Exceeded hbm capacity by 4.78G.', 18.53),
    ('something new', 15.75)])
def test_the_compilers_own_refusal_is_read(message, gib):
  found = plan.refused_temporaries(
      f'RESOURCE_EXHAUSTED: {message}', 2 * plan.GIB, topology.CHIPS['v5e'])
  assert found == pytest.approx(gib * plan.GIB)


def test_a_program_that_the_compiler_refuses_does_not_fit():
  """Tokens of many slots at a time: 16 GiB of activations on one chip."""
  pytest.importorskip('libtpu')
  config = configs.load('atlas', TINY[1:] + [
      '--config.mesh.data=4', '--config.mesh.fsdp=1', '--config.ppo.num_rows=4096',
      '--config.ppo.micro_rows=2048', '--config.ppo.minibatches=2', '--config.ppo.logprob_chunk=1024',
      '--config.model.attention=reference', '--config.rows.length=4096'])
  made = plan.make(config, 'v5e:2x2')
  assert not made.programs['update'].is_known and not made.fits
  assert made.programs['update'].hbm['temporaries'] > 15 * plan.GIB
  assert any('ppo.micro_rows=4' in remedy for remedy in made.remedies)


@pytest.mark.tpu_aot
@pytest.mark.parametrize('name, fits', [('v5p:2x4x4', True), ('v5e:2x2', False)])
def test_seven_billion_parameters(name, fits):
  pytest.importorskip('libtpu')
  made = plan.make(configs.load('qwen2p5_7b_2obj', []), name)
  assert made.fits is fits
  assert fits or any(remedy.startswith('lora.rank=16') for remedy in made.remedies)
