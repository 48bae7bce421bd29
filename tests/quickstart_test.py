"""The whole story at a tiny size: trained, evaluated, reported, resumed."""

import json

import pytest

from mem1_jax import assemble, checkpoint, quickstart
from tests.tiny import tiny_config


def test_a_report_is_written_and_a_second_call_computes_nothing_again(tmp_path, monkeypatch, capsys):
  config = tiny_config()
  policy = assemble.make_policy(config, assemble.make_tokenizer(config))
  checkpoint.save_params(tmp_path / 'params', assemble.initial_params(config, policy), {},
                         'float32')
  shipped = str(tmp_path / 'params')
  monkeypatch.setattr(quickstart, '_SHIPPED', {'mem1': shipped, 'full_context': shipped})
  config.ppo.iterations, config.init = 2, shipped
  quickstart.run(config, tmp_path / 'run')
  report = tmp_path / 'run' / 'report'
  summary = json.loads((report / 'summary.json').read_text())
  assert set(summary['agents']) == {'mem1_sft', 'mem1_ppo', 'full_context'}
  assert all(set(cells) == {'1', '2'} for cells in summary['agents'].values())
  assert (report / 'summary.md').exists() and list(report.glob('figures/*.png'))
  assert str(report) in capsys.readouterr().out
  with pytest.raises(FileExistsError, match='--resume'):
    quickstart.run(config, tmp_path / 'run')
  monkeypatch.setattr(quickstart.train, 'run', None)  # would fail if it trained again
  quickstart.run(config, tmp_path / 'run', is_resumed=True)
