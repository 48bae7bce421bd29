"""What is said of knobs: all of base.py's, with the values of the config that is asked for."""

import pathlib

import pytest

from mem1_jax import configs, knobs, main

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCE = (
    "def get_config():\n  c = ConfigDict()\n  c.seed = 0  # of all\n"
    "  c.ppo = ConfigDict()  # the objective\n  c.ppo.clip = 0.2  # a | b, ≥ 0\n"
    "  c.ppo.name = 'a # b'\n  return c\n")
KNOBS = [knobs.Knob('seed', 'of all', '0'), knobs.Knob('ppo', 'the objective'),
         knobs.Knob('ppo.clip', 'a | b, ≥ 0', '0.2'), knobs.Knob('ppo.name', '', "'a # b'")]


def test_knobs_are_read_with_their_comments_and_groups():
  assert knobs.read(SOURCE) == KNOBS


def test_every_knob_of_base_is_there_and_says_what_it_is():
  found = knobs.read((ROOT / 'configs' / 'base.py').read_text(encoding='utf-8'))
  leaves = [knob for knob in found if knob.default]
  assert [knob.name for knob in leaves if not knob.text] == []
  assert {knob.name for knob in leaves} == set(
      knobs.values(configs.load('base', []).to_dict()))


def test_some_are_found_by_name_or_description_with_their_group():
  assert knobs.matching(KNOBS, 'CLIP') == KNOBS[1:3] and knobs.matching(KNOBS, 'of ALL') == KNOBS[:1]
  with pytest.raises(ValueError, match="no knob has 'zzz' in its name or description; `mem1 knobs`"):
    knobs.matching(KNOBS, 'zzz')


def test_values_of_the_config_are_shown_and_those_that_differ_are_marked():
  config = knobs.values({'seed': 0, 'ppo': {'clip': 0.1, 'name': 'a # b'}})
  shown = knobs.lines(KNOBS, config)
  assert shown[0].split() == ['seed', '0', 'of', 'all'] and shown[2] == 'ppo: the objective'
  assert shown[3].startswith('* ppo.clip') and '0.1' in shown[3] and shown[4].startswith('  ppo.name')


def test_a_table_survives_what_is_in_a_comment():
  assert '| `ppo.clip` | `0.2` | a \\| b, ≥ 0 |' in knobs.markdown(KNOBS).splitlines()
  assert '## ppo' in knobs.markdown(KNOBS).splitlines()


def test_the_page_of_the_docs_is_up_to_date(capsys):
  main.run(['knobs', '--markdown'])
  page = (ROOT / 'docs' / 'configs.md').read_text(encoding='utf-8')
  assert capsys.readouterr().out == page, 'run: main knobs --markdown > docs/configs.md'


def test_the_command_takes_a_config_and_overrides(capsys):
  main.run(['knobs', '--config=webshop', '--config.ppo.clip=0.1', 'clip'])
  out = capsys.readouterr().out
  assert '* ppo.clip' in out and '  ppo.value_clip' in out and 'seed' not in out
