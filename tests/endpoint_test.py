"""From a config to a model elsewhere: the same harness, what a cell says, and what is refused."""

import json

import pytest

from mem1_jax import assemble, domains, endpoint, evaluate, main, measures, partial_cell
from mem1_jax.configs import base
from tests.rollout import model_server
from tests.rollout.model_server import Experts, Greedy, ModelServer

TASKS = 6


def make_config(url='', agent='mem1', api='completions'):
  c = base.get_config()
  c.compilation_cache = ''
  c.agent, c.init = agent, f'atlas/{agent}'
  c.rollout.num_slots, c.eval.num_slots, c.eval.tasks, c.eval.objectives = 4, 4, TASKS, (2,)
  r = c.rollout
  r.question_capacity, r.context_capacity, r.turn_capacity, r.append_capacity = 128, 320, 128, 1024
  c.endpoint.url, c.endpoint.model, c.endpoint.api = url, 'writer', api
  return c


def make_experts(config):
  composer = domains.make_composer(config, config.eval.split, config.eval.objectives[0])
  return Experts([composer.task(i) for i in range(config.eval.tasks)], config.agent == 'mem1')


def told(trajectories):
  return [(t.prompt, t.answer, t.reward, t.searches, [
      (turn.context, turn.written, turn.action, turn.stop, turn.reward) for turn in t.turns])
          for t in trajectories]


@pytest.mark.parametrize('agent', ['mem1', pytest.param('full_context', marks=pytest.mark.slow)])
def test_a_model_behind_an_endpoint_does_what_it_does_here(agent):
  """Token by token, greedy: so the harness is the same."""
  config = make_config(agent=agent)
  tokenizer = assemble.make_tokenizer(config)
  policy = assemble.make_policy(config, tokenizer)
  params = assemble.acting_params(config, policy)
  engine = assemble.make_engine(config, policy, tokenizer, agent == 'full_context')
  world = domains.make_environment(config)
  here, stats = evaluate.Evaluator(config, engine, tokenizer, world).run(params, 2, 'test', TASKS)
  assert sum(t.reward for t in here) > TASKS  # it can do something
  greedy = Greedy(tokenizer, policy, params)
  for api, style in (('completions', 'strips'), ('chat', 'includes')):
    with model_server.running(ModelServer(greedy, style)) as url:
      evaluator = endpoint.RemoteEvaluator(make_config(url, agent, api), tokenizer, world)
      there, remote_stats = evaluator.run(2, 'test', TASKS, evaluate.max_tokens(config, 2))
      evaluator.close()
    assert told(there) == told(here)
    assert remote_stats.num_turns == stats.num_turns
    for name in ('shown_passages', 'search_queries'):
      assert remote_stats.counts[name] == stats.counts[name] > TASKS
    assert [measures.measure(t) | {'seconds': 0} for t in there] == [
        measures.measure(t) | {'seconds': 0} for t in here]


@pytest.mark.parametrize('api', ['completions', 'chat'])
@pytest.mark.parametrize('style, agent', [('atlas', 'mem1'), ('chatml', 'full_context')])
def test_the_command_evaluates_an_expert_at_its_em(api, style, agent, tmp_path, monkeypatch):
  monkeypatch.setenv('SOME_KEY', 'sk-secret')
  config = make_config(agent=agent)
  config.prompt_style = style
  server = ModelServer(make_experts(config), key='sk-secret')
  with model_server.running(server) as url:
    main.run(['evaluate', '--config=base', '--config.compilation_cache=', f'--workdir={tmp_path}',
              f'--config.endpoint.url={url}', '--config.endpoint.model=writer',
              f'--config.endpoint.api={api}', '--config.endpoint.key_variable=SOME_KEY',
              f'--config.agent={agent}', f'--config.prompt_style={style}',
              '--config.endpoint.extra={"top_k": 20, "seed": null}',
              '--config.eval.objectives=2', f'--config.eval.tasks={TASKS}'])
  cell = json.loads((tmp_path / f'{agent}-2.json').read_text())
  assert (cell['em'], cell['answered'], cell['episodes'], cell['faults']) == (2.0, 1.0, TASKS, 0)
  turns = len(server.requests)
  assert turns == cell['turns'] * TASKS
  assert cell['endpoint'] == {
      'settings': {'url': url, 'api': api, 'model': 'writer', 'max_tokens': 92, 'temperature': 0.0,
                   'top_p': 1.0, 'stop': ['</search>', '</click>', '</answer>'], 'top_k': 20,
                   'prompt_style': style, 'tokenizer': 'atlas'},
      'served_models': ['writer-1'], 'counts': {'requests': turns},
      'usage': {'replies': turns, 'prompt_tokens': 100 * turns, 'completion_tokens': 10 * turns,
                'cached_tokens': 60 * turns, 'unreported': 0}}
  lines = (tmp_path / f'{agent}-2.jsonl').read_text().splitlines()
  assert len(lines) == TASKS and json.loads(lines[0])['turns'][0]['wrote']
  assert not [path for path in tmp_path.rglob('*') if 'sk-secret' in path.read_text()]
  asked = server.requests[0]
  assert asked['top_k'] == 20 and 'seed' not in asked and asked['max_tokens'] == 92


def test_cells_that_are_there_are_not_asked_for_again(tmp_path):
  config = make_config()
  config.eval.objectives, config.eval.tasks = (1, 2), 2
  with model_server.running(ModelServer(lambda *_: ('<answer> x', 'stop'))) as url:
    config.endpoint.url = url
    first = evaluate.run(config, tmp_path, claim=lambda n: n == 1)
    assert set(first) == {'1'}
    both = evaluate.run(config, tmp_path)
    assert set(both) == {'1', '2'} and both['1'] == first['1']
    assert both['2']['endpoint']['usage']['replies'] == 2  # of this cell alone
  assert evaluate.run(config, tmp_path) == both  # nobody is there any more
  config.endpoint.temperature = 0.7
  with pytest.raises(ValueError, match="'temperature': 0.0.*'temperature': 0.7.*--workdir"):
    evaluate.run(config, tmp_path)
  config.endpoint.url = ''
  with pytest.raises(ValueError, match='this run of None'):
    evaluate.run(config, tmp_path)


def test_a_server_that_is_not_there_is_one_line(tmp_path, capsys):
  with pytest.raises(SystemExit) as error:
    main.run(['evaluate', '--config=base', '--config.compilation_cache=', f'--workdir={tmp_path}',
              '--config.endpoint.url=http://127.0.0.1:9', '--config.endpoint.model=m',
              '--config.endpoint.tries=1', '--config.eval.tasks=3', '--config.eval.objectives=1'])
  assert error.value.code == 2
  message = capsys.readouterr().err.splitlines()[-1]
  assert message.startswith('mem1 evaluate: the server answered none of 3 episodes')
  assert not list(tmp_path.glob('*.json'))


def test_other_commands_have_no_endpoint(capsys):
  with pytest.raises(SystemExit):
    main.run(['tasks', '--config=base', '--config.endpoint.url=http://host:8000'])
  assert "mem1 tasks: endpoint.url 'http://host:8000' is for `evaluate`" in capsys.readouterr().err


@pytest.mark.parametrize('knob, value, message', [
    ('api', 'responses', "endpoint.api 'responses' is unknown"),
    ('model', '', "endpoint.model is ''"), ('temperature', -1.0, 'endpoint.temperature -1.0'),
    ('extra', '{', 'endpoint.extra .* is no JSON'), ('extra', '[1]', 'must be an object'),
    ('extra', '{"messages": []}', 'without prompt'), ('url', 'host:8000', 'endpoint.url is no'),
    ('key_variable', 'MEM1_NOT_SET', "'MEM1_NOT_SET' is not set"), ('tries', 0, 'tries=0'),
    ('timeout', 0.0, 'timeout_s=0.0'), ('patience', 0.0, 'patience_s=0.0'),
    ('concurrent', 0, 'endpoint.concurrent 0')])
def test_bad_knobs(knob, value, message, monkeypatch):
  monkeypatch.delenv('MEM1_NOT_SET', raising=False)
  config = make_config('http://127.0.0.1:9')
  config.endpoint[knob] = value
  with pytest.raises(ValueError, match=message):
    endpoint.RemoteEvaluator(
        config, endpoint.make_tokenizer(config), domains.make_environment(config))


def test_a_key_is_the_environments_without_blanks(monkeypatch):
  monkeypatch.setenv('SOME_KEY', ' sk-1\n')
  assert endpoint.key('SOME_KEY') == 'sk-1' and endpoint.key('') == ''
  monkeypatch.setenv('SOME_KEY', 'two words')
  with pytest.raises(ValueError, match='SOME_KEY') as error:
    endpoint.key('SOME_KEY')
  assert 'two words' not in str(error.value)


def test_a_run_that_lost_its_server_goes_on_where_it_was(tmp_path, monkeypatch):
  """No task is asked twice; what the server reported is counted over both runs."""
  config = make_config()
  config.endpoint.tries, config.endpoint.concurrent = 1, 1
  server = ModelServer(make_experts(config))
  with model_server.running(server) as url:
    config.endpoint.url = url
    evaluate.run(config, tmp_path / 'whole')
    whole = json.loads((tmp_path / 'whole' / 'mem1-2.json').read_text())
    num_requests = len(server.requests)
    add, folder, server.writer = partial_cell.PartialCell.add, tmp_path / 'run', make_experts(config)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
      def add_two(self, *arguments):
        add(self, *arguments)
        if len(self.records) == 2:
          raise KeyboardInterrupt
      patch.setattr(partial_cell.PartialCell, 'add', add_two)
      evaluate.run(config, folder)
    server.writer, before = make_experts(config), len(server.requests)
    cell = evaluate.run(config, folder)['2']
    assert len(server.requests) - before < num_requests
  assert (cell['em'], cell['episodes']) == (2.0, TASKS)
  assert cell['endpoint']['usage']['replies'] >= num_requests
  assert cell.keys() == whole.keys()
  for name in ('made_by', 'em', 'turns', 'peak_tokens'):
    assert cell[name] == whole[name]
