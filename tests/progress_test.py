"""Progress: plain lines in a log, a bar on a terminal."""

import io

import rich.console

from mem1_jax import progress, types


def test_lines_in_a_log_are_occasional_and_complete():
  now, lines = [0.0], []
  counter = progress.Progress('train', 100, None, lines.append, 20.0, clock=lambda: now[0])
  for _ in range(100):
    now[0] += 1.0
    counter.advance(1, 'reward 0.5')
  assert lines[0] == 'train 1/100 · 1.00/s · elapsed 0:01 · left 1:39 · reward 0.5'
  assert lines[-1] == 'train 100/100 · 1.00/s · elapsed 1:40 · left 0:00 · reward 0.5'
  assert len(lines) == 6  # at 1, 21, 41, 61, 81 and 100 seconds


def test_slow_things_are_counted_by_the_minute_or_the_hour():
  now, lines = [0.0], []
  counter = progress.Progress('points', 3, None, lines.append, 0.0, clock=lambda: now[0])
  counter.advance(0, 'the first')
  for seconds in (200.0, 1800.0, 20_000.0):
    now[0] += seconds
    counter.advance()
  assert lines == [
      'points 0/3 · 0.00/s · elapsed 0:00 · left ? · the first',
      'points 1/3 · 0.30/min · elapsed 3:20 · left 6:40',
      'points 2/3 · 0.06/min · elapsed 33:20 · left 16:40',
      'points 3/3 · 0.49/h · elapsed 366:40 · left 0:00']


def test_without_a_terminal_there_are_no_control_codes():
  out = io.StringIO()
  with progress.bar('eval', 2, console=rich.console.Console(file=out)) as bar:
    bar.advance(1)
    bar.advance(1, 'done')
  assert out.getvalue().startswith('eval 1/2 · ') and out.getvalue().endswith('done\n')
  assert '\x1b' not in out.getvalue()


def test_a_terminal_gets_a_bar():
  out = io.StringIO()
  console = rich.console.Console(file=out, force_terminal=True, width=120)
  with progress.bar('eval', 2, console=console) as bar:
    bar.advance(2, 'EM 1.5')
  assert 'eval' in out.getvalue() and '2/2' in out.getvalue() and 'EM 1.5' in out.getvalue()


def test_a_part_is_shown_while_it_lasts_and_in_a_log_only_if_that_is_long():
  now, lines = [0.0], []
  whole = progress.Progress('PPO', 2, None, lines.append, 20.0, clock=lambda: now[0])
  with whole.part('episodes', 3) as part:
    for seconds in (1.0, 25.0, 1.0):
      now[0] += seconds
      part.advance(1, '70 tokens/s')
  assert lines == ['episodes 2/3 · 0.08/s · elapsed 0:26 · left 0:13 · 70 tokens/s']
  out = io.StringIO()
  console = rich.console.Console(file=out, force_terminal=True, width=120)
  with progress.bar('PPO', 1, console=console) as whole:
    with whole.part('episodes', 1) as part:
      part.advance(1, '70 tokens/s')
    whole.advance(1, 'reward 1')
  last = out.getvalue().rsplit('PPO', 1)[1]
  assert 'reward 1' in last and 'episodes' not in last


def test_a_bar_counts_episodes_and_tokens():
  lines = []
  on_done = progress.of_episodes(progress.Progress('episodes', 2, None, lines.append, 0.0))
  written = types.Segment((2,) * 5, tuple(range(5)), (types.Kind.STATE,) * 5)
  turn = types.TurnRecord(types.Context(written), written, (0.0,) * 5,
                          types.Action(types.ActionKind.SEARCH, ''), types.Stop.TAG, 0.0)
  for _ in range(2):
    on_done(types.Trajectory(None, None, (turn, turn), False))
  assert [line.split()[1] for line in lines] == ['1/2', '2/2']
  assert all(line.endswith(' tokens/s') and int(line.split()[-2]) > 0 for line in lines)
