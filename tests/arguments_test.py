"""The command line's options: every command has a function and a whole `--help`."""

import pytest

from mem1_jax import arguments, main


def test_every_command_of_the_parser_has_a_function_and_the_other_way_round(capsys):
  with pytest.raises(SystemExit):
    arguments.parser().parse_args(['--help'])
  offered = {line.split()[0] for line in capsys.readouterr().out.splitlines()
             if line.startswith('    ') and line[4] != ' '}
  assert offered == set(main.COMMANDS)


@pytest.mark.parametrize('name', main.COMMANDS)
def test_help_says_something_of_each_option(name, capsys):
  with pytest.raises(SystemExit) as stopped:
    arguments.parser().parse_args([name, '--help'])
  assert stopped.value.code == 0
  text = capsys.readouterr().out
  assert '--config' in text and 'configs/base.py' in text


def test_dotted_overrides_are_left_for_the_config():
  args, rest = arguments.parser().parse_known_args(['train', '--config.seed=1', '--resume'])
  assert args.command == 'train' and args.resume and rest == ['--config.seed=1']
