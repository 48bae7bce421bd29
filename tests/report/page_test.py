"""report/page.py: one file that is whole, safe and small; in Chromium, that it works.

The tests in a browser skip where no Chromium is installed.
"""

import base64
import hashlib
import html
import html.parser
import json
import re
import time

import pytest

from mem1_jax import main
from mem1_jax.report import page, runs
from tests.report import browser, synthetic

HOSTILE = ('</script><script>window.hacked = 1</script><!-- <img src=x '
           'onerror="window.hacked = 1"> \u2028\u2029 ]]> <think>a</think> &amp; ${1} \\u003cb\\u003e')


def hostile():
  record = synthetic.trajectories(1)[0]
  for turn in record['turns']:
    turn['wrote'] = HOSTILE + turn['wrote']
    turn['information'] = HOSTILE
    turn['action'] = {'kind': HOSTILE, 'text': HOSTILE}
    turn['outage'] = HOSTILE
  record['task']['id'] = record['answer'] = record['fault'] = HOSTILE
  record['task']['questions'][0] |= {'text': HOSTILE, 'label': HOSTILE, 'answers': [HOSTILE]}
  return record


class Tags(html.parser.HTMLParser):
  """Every tag with its attributes, as a browser finds them."""

  def __init__(self, text):
    super().__init__()
    self.found = []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.found.append((tag, dict(attrs)))


def report(tmp_path, **kwargs):
  synthetic.write_run(tmp_path / 'quick', **kwargs)
  return page.report(runs.find([tmp_path / 'quick']))


def test_the_policy_allows_the_page_s_own_script_and_style_alone(tmp_path):
  text = report(tmp_path).html
  policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', text)[1]
  for kind, body in (('style', re.search(r'<style>(.*?)</style>', text, re.DOTALL)[1]),
                     ('script', re.search(r'<script>(.*?)</script>', text, re.DOTALL)[1])):
    digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
    assert f"{kind}-src 'sha256-{digest}'" in policy
  assert "default-src 'none'" in policy and 'unsafe' not in policy


def test_nothing_is_fetched_and_nothing_is_styled_or_handled_inline(tmp_path):
  for tag, attributes in Tags(report(tmp_path).html).found:
    assert not {'src', 'style', 'srcset', 'action'} & attributes.keys(), tag
    assert not any(name.startswith('on') for name in attributes)
    assert attributes.get('href', '#').startswith('#')


def test_names_from_outside_are_escaped(tmp_path):
  name = '<img src=x>&"'
  synthetic.write_cell(tmp_path, name, synthetic.trajectories(2))
  text = page.report(runs.find([tmp_path]), title='<b>$title').html
  assert '<img' not in text and '&lt;b&gt;$title' in text
  assert html.escape(name) in text


def test_hostile_text_leaves_no_tag_in_the_file():
  count = len(Tags(page.viewer(synthetic.trajectories(1)).html).found)
  text = page.viewer([hostile()], problems=[HOSTILE]).html
  assert len(Tags(text).found) == count and 'hacked' not in text


def test_a_notebook_shows_it_in_a_frame():
  shown = page.viewer(synthetic.trajectories(2))
  (frame,) = Tags(shown._repr_html_()).found
  assert frame[0] == 'iframe' and frame[1]['srcdoc'] == shown.html


def test_a_malformed_record_is_refused():
  with pytest.raises(ValueError, match="lacks \\['task'"):
    page.viewer([{'turns': []}])


def test_files_are_written_and_the_command_says_what(tmp_path, capsys):
  synthetic.write_run(tmp_path / 'quick')
  main.run(['report', str(tmp_path / 'quick'), '--out', str(tmp_path / 'out')])
  said = capsys.readouterr().out
  assert '8 cells, 1 training curves, 160 trajectories' in said
  markdown = (tmp_path / 'out' / 'report.md').read_text()
  for name in re.findall(r'\]\((.*?\.svg)\)', markdown):
    assert (tmp_path / 'out' / name).read_text().startswith('<svg')
  assert {path.name for path in (tmp_path / 'out' / 'figures').iterdir()} >= {
      'em.svg', 'em_per_question.svg', 'peak_tokens.svg', 'seconds.svg', 'training_reward.svg',
      'training_kl.svg'}
  main.run(['report', str(tmp_path / 'quick'), '--out', str(tmp_path / 'out')])  # and again


def test_inspect_writes_a_page_of_the_release_s_lines(tmp_path, capsys):
  path = tmp_path / 'rollouts_mem1.jsonl'
  path.write_text(json.dumps(synthetic.release_row()) + '\nbroken\n')
  main.run(['inspect', str(path), '--html', str(tmp_path / 'x.html')])
  captured = capsys.readouterr()
  assert '1 trajectories' in captured.out and 'line 2: no JSON' in captured.err
  main.run(['inspect', str(path)])
  assert 'capital of Norway?' in capsys.readouterr().out


@pytest.mark.parametrize('arguments, message', [
    (['report', '{run}', '--out', '{file}'], 'is a file; give a folder'),
    (['report', '{run}/missing', '--out', '{run}'], 'is not there; name a run folder'),
    (['inspect', '{file}', '--html', '{file}'], 'does not end in .html')])
def test_mistakes_are_a_line_with_the_remedy(tmp_path, capsys, arguments, message):
  synthetic.write_cell(tmp_path, 'mem1', synthetic.trajectories(2))
  file = tmp_path / 'mem1-2.jsonl'
  was = file.read_text()
  with pytest.raises(SystemExit):
    main.run([argument.format(run=tmp_path, file=file) for argument in arguments])
  assert message in capsys.readouterr().err and file.read_text() == was


# ---- in a browser


@pytest.fixture(scope='module')
def chromium(tmp_path_factory):
  path = browser.find()
  if not path:
    pytest.skip('no Chromium is installed')
  opened = browser.Browser(path, str(tmp_path_factory.mktemp('profile')))
  yield opened
  opened.close()


@pytest.fixture
def tab(chromium):
  """The tab, and in the end the check that nothing in the page went wrong."""
  chromium.resize(1280, 900)
  chromium.scheme('light')
  chromium.errors.clear()
  chromium.requests.clear()
  yield chromium
  assert not chromium.errors


def opened(tab, tmp_path, shown, hash_=''):
  path = tmp_path / 'page.html'
  path.write_text(shown.html, encoding='utf-8')
  seconds = tab.open(f'{path.as_uri()}{hash_}')
  assert {url.partition('#')[0] for url in tab.requests} <= {path.as_uri(), 'about:blank'}
  return seconds


def rows(tab):
  return tab.run("document.querySelectorAll('#list li').length")


def count(tab):
  return tab.run("document.getElementById('count').textContent")


def set_field(tab, name, value):
  tab.run(f"(() => {{const field = document.getElementById('{name}'); field.value = "
          f"{json.dumps(value)}; field.dispatchEvent(new Event('input', {{bubbles: true}}));}})()")


def test_a_thousand_trajectories_are_small_and_open_in_two_seconds(tab, tmp_path):
  records = synthetic.trajectories(1000, 16)
  begun = time.monotonic()
  shown = page.viewer(records)
  print(f'made in {time.monotonic() - begun:.1f} s, {len(shown.html) / 1e6:.2f} MB of '
        f'{sum(len(json.dumps(r)) for r in records) / 1e6:.0f} MB')
  assert len(shown.html) < 10e6
  seconds = [opened(tab, tmp_path, shown) for _ in range(3)]
  print('opened in', *(f'{s:.2f}' for s in seconds), 's')
  assert min(seconds) < 2  # the best of three: other tests may be using the cores
  assert rows(tab) == 300 and count(tab) == '1000 of 1000'
  begun = time.monotonic()
  set_field(tab, 'query', 'no such words')
  assert rows(tab) == 0 and time.monotonic() - begun < 2


def test_the_timeline_shows_what_was_seen_written_and_dropped(tab, tmp_path):
  record = synthetic.trajectories(1, 2)[0]
  opened(tab, tmp_path, page.viewer([record]))
  assert tab.run("document.querySelectorAll('.turn').length") == 5
  assert tab.run("document.querySelectorAll('.bars button').length") == 5
  text = tab.run("document.querySelector('#turn-2').innerText")
  assert record['turns'][2]['action']['text'] in text and 'DROPPED WHEN THIS TURN ENDS' in text
  gone = tab.run("document.querySelector('#turn-2 .gone').textContent")
  assert gone == record['turns'][2]['dropped']
  assert 'line-through' in tab.run(
      "getComputedStyle(document.querySelector('#turn-2 .gone')).textDecoration")
  assert tab.run("document.querySelector('#turn-1 .t-think').textContent").startswith('<think>')
  assert tab.run("document.querySelector('#turn-1 .told').textContent") == (
      record['turns'][1]['information'])
  assert [label == 'b' for label in tab.run(
      "[...document.querySelectorAll('.question > b')].map(node => node.tagName.toLowerCase())")]
  heights = tab.run("[...document.querySelectorAll('.bars i')].map(node => node.offsetHeight)")
  tokens = [turn['tokens_in_context'] for turn in record['turns']]
  assert heights.index(max(heights)) == tokens.index(max(tokens))
  ghosts = tab.run("[...document.querySelectorAll('.bars u')].map(node => node.offsetHeight)")
  assert ghosts == sorted(ghosts) and ghosts[-1] > 1.5 * max(heights)


def test_filters_and_search_narrow_the_list(tab, tmp_path):
  opened(tab, tmp_path, report(tmp_path, count=20, sizes=(1, 4)), '#trajectories')
  assert count(tab) == '80 of 80'
  set_field(tab, 'group', '1')
  assert count(tab) == '40 of 80'
  set_field(tab, 'objectives', '4')
  assert count(tab) == '20 of 80'
  set_field(tab, 'ending', 'fault')
  assert count(tab) == '1 of 80'
  set_field(tab, 'ending', 'unanswered')
  assert count(tab) == '2 of 80'
  set_field(tab, 'ending', '')
  set_field(tab, 'em-low', '1')
  perfect = int(count(tab).split()[0])
  assert 0 < perfect < 20
  assert tab.run("[...document.querySelectorAll('#list b')].every(b => b.textContent === '4 / 4')")
  set_field(tab, 'em-low', '')
  set_field(tab, 'em-high', '0.99')
  assert count(tab) == f'{20 - perfect} of 80'
  for field in ('em-high', 'group', 'objectives'):
    set_field(tab, field, '')
  set_field(tab, 'query', 'THE WORLD IS GONE')
  assert count(tab) == '4 of 80'
  set_field(tab, 'query', 'Humberside')
  tab.press('j')
  assert tab.run("document.querySelector('#detail mark').textContent") == 'Humberside'


def test_keys_walk_over_trajectories_and_turns_and_links_lead_back(tab, tmp_path):
  shown = page.viewer(synthetic.trajectories(5), 'my file')
  opened(tab, tmp_path, shown)
  for key in 'jjk':
    tab.press(key)
  tab.press('ArrowRight')
  tab.press('ArrowRight')
  assert tab.run('location.hash') == '#my-file/1:3'
  assert tab.run("document.querySelector('.turn.on').id") == 'turn-2'
  tab.press('ArrowLeft')
  assert tab.run('location.hash') == '#my-file/1:2'
  tab.press('/')
  assert tab.run('document.activeElement.id') == 'query'
  tab.press('j')
  assert tab.run("document.getElementById('query').value") == 'j'  # typed, not obeyed
  tab.press('Escape')
  tab.press('?')
  assert tab.run("document.getElementById('help').open")
  tab.press('Escape')
  opened(tab, tmp_path, shown, '#my-file/3:4')
  assert tab.run("document.querySelector('#list li.on').dataset.index") == '3'
  assert tab.run("document.querySelector('.turn.on').id") == 'turn-3'
  tab.run("location.hash = '#my-file/0'")
  tab.run('new Promise(done => setTimeout(done, 50))')
  assert tab.run("document.querySelector('#list li.on').dataset.index") == '0'


def test_hostile_text_is_shown_as_text(tab, tmp_path):
  synthetic.write_cell(tmp_path / 'run', 'mem1', [hostile()])
  opened(tab, tmp_path, page.report(runs.find([tmp_path / 'run'])), '#mem1-2/0')
  assert tab.run('window.hacked === undefined')
  assert tab.run("document.querySelectorAll('img').length") == 0
  shown = tab.run("document.querySelector('#turn-1 pre.told').textContent")
  assert shown == HOSTILE
  for part in ('#detail h2', '#turn-1 .said', '.question', '#list li', '#detail .notice'):
    assert HOSTILE in tab.run(f"document.querySelector('{part}').textContent"), part


@pytest.mark.parametrize('hash_', ['', '#trajectories', '#mem1_ppo-8/0:3'])
def test_a_phone_scrolls_in_one_direction(tab, tmp_path, hash_):
  tab.resize(360, 740, is_phone=True)
  opened(tab, tmp_path, report(tmp_path, count=3), hash_)
  assert tab.run('document.documentElement.scrollWidth') <= 360
  is_reading = ':' in hash_
  visible = tab.run("['report', 'side', 'detail'].map(id => "
                    "document.getElementById(id).getBoundingClientRect().height > 0)")
  assert visible == [not hash_, bool(hash_) and not is_reading, is_reading]
  if is_reading:
    tab.run("document.getElementById('back').click()")
    assert tab.run("document.getElementById('side').getBoundingClientRect().height > 0")


def test_dark_and_light_follow_the_reader(tab, tmp_path):
  opened(tab, tmp_path, report(tmp_path, count=3))
  colours = []
  for scheme in ('light', 'dark'):
    tab.scheme(scheme)
    colours.append(tab.run("[getComputedStyle(document.body).backgroundColor, "
                           "getComputedStyle(document.querySelector('.chart .title')).fill]"))
  assert colours[0][0] != colours[1][0] and colours[0][1] != colours[1][1]


def test_it_works_in_a_notebook_s_frame(tab, tmp_path):
  frame = page.viewer(synthetic.trajectories(3))._repr_html_()
  (tmp_path / 'notebook.html').write_text(
      f'<!DOCTYPE html><html data-ready="yes"><body><h1>cell</h1>{frame}</body></html>')
  tab.open((tmp_path / 'notebook.html').as_uri())
  inside = "document.querySelector('iframe').contentDocument"
  tab.run("new Promise(done => {const wait = () => "
          f"{inside}.documentElement.dataset.ready === 'yes'"
          " ? done() : setTimeout(wait, 20); wait();})")
  assert tab.run(f"{inside}.querySelectorAll('#list li').length") == 3
  tab.run(f"{inside}.querySelectorAll('#list li')[1].click()")
  assert tab.run(f"{inside}.querySelectorAll('.turn').length") == 5
  assert tab.run('scrollY') == 0


def test_the_release_s_trajectories_are_shown_with_characters_for_tokens(tab, tmp_path):
  path = tmp_path / 'rollouts_mem1.jsonl'
  failed = {'index': 3, 'error': 'timed out', 'question': 'Who?', 'Golden_answer': ['A']}
  path.write_text(''.join(json.dumps(row) + '\n' for row in (synthetic.release_row(), failed)))
  opened(tab, tmp_path, page.report(runs.find([path])), '#rollouts_mem1-2/0')
  assert 'not recorded' in tab.run("document.querySelector('.tokens').textContent")
  assert tab.run("document.querySelector('.passage').textContent") == 'Doc 1(Title: "Peru")'
  tab.press('k')
  assert 'Fault: timed out' in tab.run("document.querySelector('#detail').textContent")
