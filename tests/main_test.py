"""The command line: configs, overrides, errors in one line, and the commands that need no model."""

import json
import sys

import pytest

from mem1_jax import main


def test_overrides_change_knobs_and_keep_their_types():
  config = main.load_config('base', ['--config.ppo.clip=1', '--config.agent=full_context',
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
    main.load_config('base', [argument])


def test_a_mistake_ends_with_one_line_and_status_2(capsys):
  with pytest.raises(SystemExit) as error:
    main.run(['tasks', '--config=nowhere'])
  assert error.value.code == 2
  message = capsys.readouterr().err
  assert message.startswith('mem1 tasks: ') and message.count('\n') == 1 and 'atlas' in message


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


def test_inspect_says_which_trajectories_there_are(tmp_path, capsys):
  (tmp_path / 'x.jsonl').write_text('{}\n')
  with pytest.raises(SystemExit):
    main.run(['inspect', '--config=base', str(tmp_path / 'x.jsonl'), '-n', '3'])
  assert 'trajectories 0 to 0, not 3' in capsys.readouterr().err


@pytest.mark.parametrize('command', ['train', 'sft', 'evaluate', 'quickstart', 'tasks', 'inspect',
                                     'chat', 'export', 'serve-retriever', 'index'])
def test_every_command_has_help(command, capsys):
  with pytest.raises(SystemExit) as error:
    main.run([command, '--help'])
  assert error.value.code == 0
  assert '--config' in capsys.readouterr().out
