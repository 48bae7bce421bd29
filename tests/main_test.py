"""The command line: configs, overrides, errors in one line, and the commands that need no model."""

import json
import sys

import pytest

from mem1_jax import configs, domains, main, preemption
from mem1_jax.data import verl


def test_overrides_change_knobs_and_keep_their_types():
  config = configs.load('base', ['--config.ppo.clip=1', '--config.agent=full_context',
                                     '--config.eval.objectives=2,4', '--config.ppo.whiten=false',
                                     '--config.data.objectives=3'])
  assert config.ppo.clip == 1.0 and isinstance(config.ppo.clip, float)
  assert config.agent == 'full_context'
  assert config.eval.objectives == (2, 4) and config.data.objectives == (3,)
  assert config.ppo.whiten is False


@pytest.mark.parametrize('argument, message', [
    ('--config.ppo.clp=0.1', 'clp'),
    ('--config.ppo.epochs=two', 'not a Python literal'),
    ('--config.ppo.epochs=1.5', 'expected int'),
    ('--confg.seed=1', 'is unknown'),
])
def test_bad_overrides_are_refused(argument, message):
  with pytest.raises(ValueError, match=message):
    configs.load('base', [argument])


def test_a_mistake_ends_with_one_line_and_status_2(capsys):
  with pytest.raises(SystemExit) as error:
    main.run(['tasks', '--config=nowhere'])
  assert error.value.code == 2
  message = capsys.readouterr().err
  assert message.startswith('mem1 tasks: ') and message.count('\n') == 1 and 'atlas' in message


def test_a_run_that_is_told_to_end_has_a_status_of_its_own(monkeypatch, capsys):
  def told(config, args):
    raise preemption.Preempted('iteration 3 is saved')

  monkeypatch.setitem(main.COMMANDS, 'train', told)
  with pytest.raises(SystemExit) as error:
    main.run(['train', '--config=base', '--config.compilation_cache='])
  assert error.value.code == preemption.STATUS == 75
  assert capsys.readouterr().err == 'mem1 train: iteration 3 is saved\n'


def test_a_missing_package_is_a_line_that_says_how_to_get_it(monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
  with pytest.raises(SystemExit) as error:
    main.run(['tasks', '--config=base', '--config.data.source=tfds:trivia_qa:train'])
  assert error.value.code == 2 and 'pip install "mem1_jax[tf]"' in capsys.readouterr().err


def test_tasks_prints_questions_and_their_answers(capsys):
  main.run(['tasks', '--config=base', '-n', '2', '--json', '--config.data.objectives=3,3'])
  lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert len(lines) == 2
  assert all(len(line['questions']) == len(line['answers']) == 3 for line in lines)
  main.run(['tasks', '--config=base', '-n', '1'])
  assert '→' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['a.parquet', 'a.jsonl'])
@pytest.mark.parametrize('domain', ['qa', 'web'])
def test_tasks_are_written_and_read_as_the_very_same(tmp_path, capsys, name, domain):
  if name.endswith('.parquet'):
    pytest.importorskip('pyarrow')
  out, knobs = tmp_path / 'new' / name, ['--config=base', f'--config.domain={domain}']
  asked = [*knobs, '--num', '30', '--start', '4', '--config.data.objectives=1,3']
  main.run(['tasks', *asked, '--json'])
  shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  main.run(['tasks', *asked, '--out', str(out)])
  said = capsys.readouterr()
  assert f'verl:{out}' in said.out and 'tasks 30/30' in said.err
  written = verl.read_tasks(out)[0]
  composed = domains.make_training_composer(configs.load('base', [
      f'--config.domain={domain}', '--config.data.objectives=1,3'])).tasks(range(4, 34))
  assert written == composed and [task.id for task in written] == [task['id'] for task in shown]
  main.run(['tasks', *knobs, '-n', '30', '--json', f'--config.data.source=verl:{out}',
            '--config.data.objectives=()'])
  again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  # Ready tasks have an order and ids of the epoch's own.
  bare = lambda tasks: sorted((task['questions'], task['answers'], task['hops']) for task in tasks)
  assert bare(again) == bare(shown)


def test_written_tasks_tell_their_agent_what_it_reads(tmp_path):
  out = tmp_path / 'a.jsonl'
  main.run(['tasks', '--config=base', '-n', '1', '--out', str(out),
            '--config.prompt_style=chatml'])
  content = json.loads(out.read_text())['prompt'][0]['content']
  assert content.startswith('You answer several questions') and '<|im_start|>' not in content


def test_what_tasks_does_not_write(tmp_path, capsys):
  out = tmp_path / 'a.jsonl'
  for arguments, message in (
      (['--config=webshop', '--out', str(out)], "its goal) has no column in veRL's schema"),
      (['--config=base', '--out', str(tmp_path / 'a.csv')], 'does not end in .parquet or .jsonl')):
    with pytest.raises(SystemExit) as error:
      main.run(['tasks', *arguments])
    assert error.value.code == 2 and message in capsys.readouterr().err
  assert not list(tmp_path.iterdir())
  out.write_text('mine')
  with pytest.raises(SystemExit):
    main.run(['tasks', '--config=base', '--out', str(out)])
  assert 'delete it first, or give --out another name' in capsys.readouterr().err
  assert out.read_text() == 'mine'


def test_inspect_says_which_trajectories_there_are(tmp_path, capsys):
  (tmp_path / 'x.jsonl').write_text('{}\n')
  with pytest.raises(SystemExit):
    main.run(['inspect', '--config=base', str(tmp_path / 'x.jsonl'), '-n', '3'])
  assert 'trajectories 0 to 0, not 3' in capsys.readouterr().err


@pytest.mark.parametrize('command', ['train', 'sft', 'evaluate', 'quickstart', 'tasks', 'inspect',
                                     'chat', 'export', 'serve-retriever', 'index', 'report'])
def test_every_command_has_help(command, capsys):
  with pytest.raises(SystemExit) as error:
    main.run([command, '--help'])
  assert error.value.code == 0
  assert '--config' in capsys.readouterr().out
