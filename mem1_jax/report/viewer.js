// The trajectory viewer: a list with search and filters, and one trajectory as a timeline.
// Data come from report/pack.py; every text becomes a text node, none is parsed as HTML.
'use strict';
(async () => {
  const byId = id => document.getElementById(id);
  const TAG = /<(think|search|click|answer|information)>[^]*?(?:<\/\1>|$)/g;
  const PASSAGE = /^(Doc \d+ ?\(Title: .*?\)|\[\d+\] .*)/gm;
  const ROWS = 300;  // of the list at a time

  const el = (name, className, ...children) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    node.append(...children.filter(child => child !== null && child !== undefined));
    return node;
  };

  async function inflate(text) {
    const bytes = Uint8Array.from(atob(text), char => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
    return JSON.parse(await new Response(stream).text());
  }

  let data;
  try {
    data = await inflate(byId('data').textContent.trim());
  } catch (error) {
    byId('failure').textContent = 'The trajectories could not be read (' + error +
      '). A browser since 2023 can: Chrome 80, Firefox 113, Safari 16.4.';
    byId('failure').hidden = false;
    return;
  }
  const {texts, trajectories, groups, problems} = data;
  const textOf = pieces => pieces.map(piece => texts[piece]).join('');
  trajectories.forEach((one, index) => {
    one.index = index;
    one.em = one.score.em ?? one.questions.filter(question => question.right).length;
    one.share = one.questions.length ? one.em / one.questions.length : 0;
  });
  const indexOf = new Map(trajectories.map(one => [one.key, one.index]));
  const state = {shown: trajectories, limit: ROWS, selected: -1, turn: 0, query: ''};

  // ---- text: tags coloured, passages' titles bold, what was searched for marked

  function marked(text) {
    if (!state.query) return [text];
    const parts = [], lower = text.toLowerCase();
    let from = 0;
    // Lower case may change a text's length (İ): then places do not match, and nothing is marked.
    for (let at; lower.length === text.length && (at = lower.indexOf(state.query, from)) >= 0;) {
      parts.push(text.slice(from, at), el('mark', '', text.slice(at, at + state.query.length)));
      from = at + state.query.length;
    }
    return [...parts, text.slice(from)];
  }

  function divided(text, pattern, wrap, plain) {
    const parts = [];
    let from = 0;
    for (const match of text.matchAll(pattern)) {
      parts.push(...plain(text.slice(from, match.index)), wrap(match));
      from = match.index + match[0].length;
    }
    return [...parts, ...plain(text.slice(from))];
  }

  const passages = text => divided(
    text, PASSAGE, match => el('span', 'passage', ...marked(match[0])), marked);

  function span(match) {
    const [all, name] = match, open = `<${name}>`, close = `</${name}>`;
    const end = all.endsWith(close) ? all.length - close.length : all.length;
    return el('span', 't-' + name, el('span', 'tag', open),
              ...passages(all.slice(open.length, end)), el('span', 'tag', all.slice(end)));
  }

  const tagged = text => divided(text, TAG, span, passages);

  // ---- filters

  function matches(one, wanted) {
    if (wanted.group !== '' && one.group !== +wanted.group) return false;
    if (wanted.objectives !== '' && one.questions.length !== +wanted.objectives) return false;
    if (one.share < wanted.low - 1e-9 || one.share > wanted.high + 1e-9) return false;
    const has = {
      answered: () => one.answer !== null, unanswered: () => one.answer === null,
      fault: () => one.fault !== '', outage: () => one.turns.some(turn => turn.outage),
      malformed: () => one.turns.some(turn => turn.kind === 'malformed'),
    }[wanted.ending];
    return !has || has();
  }

  function finder(query) {
    if (!query) return () => true;
    const holds = texts.map(text => text.toLowerCase().includes(query));
    const isIn = text => text.toLowerCase().includes(query);
    return one => isIn(one.id) || isIn(one.fault) || isIn(one.answer ?? '') ||
      one.questions.some(question => isIn(question.text) || question.answers.some(isIn)) ||
      one.turns.some(turn => holds[turn.wrote] || holds[turn.information] ||
                     turn.saw.some(piece => holds[piece]) || isIn(turn.outage));
  }

  function filter() {
    const low = byId('em-low').value, high = byId('em-high').value;
    const wanted = {group: byId('group').value, objectives: byId('objectives').value,
                    ending: byId('ending').value, low: low === '' ? 0 : +low,
                    high: high === '' ? Infinity : +high};
    state.query = byId('query').value.trim().toLowerCase();
    const isFound = finder(state.query);
    state.shown = trajectories.filter(one => matches(one, wanted) && isFound(one));
    state.limit = ROWS;
    list();
  }

  // ---- the list

  function list() {
    const rows = state.shown.slice(0, state.limit).map(one => {
      const isGood = one.share >= 1 - 1e-9;
      const row = el('li', one.index === state.selected ? 'on' : '',
        el('div', 'row', el('span', '', one.id || one.key),
           el('b', isGood ? 'good' : one.em ? '' : 'bad',
              `${+one.em.toFixed(2)} / ${one.questions.length}`)),
        el('div', 'under', [one.fault && 'fault', one.answer === null && 'unanswered',
                            groups[one.group], `${one.turns.length} turns`,
                            one.score.peak_tokens && `peak ${one.score.peak_tokens}`]
          .filter(Boolean).join(' · ')));
      row.dataset.index = one.index;
      return row;
    });
    byId('list').replaceChildren(...rows);
    const left = state.shown.length - rows.length;
    byId('more').hidden = left <= 0;
    byId('more').textContent = `Show ${Math.min(left, ROWS)} more`;
    byId('count').textContent = `${state.shown.length} of ${trajectories.length}` +
      (problems.length ? ` · ${problems.length} unreadable line${problems.length > 1 ? 's' : ''}` : '');
    byId('count').title = problems.join('\n');
  }

  function markRow() {
    const place = state.shown.findIndex(one => one.index === state.selected);
    if (place >= state.limit) {
      state.limit = (Math.floor(place / ROWS) + 1) * ROWS;
      list();
    }
    for (const row of byId('list').children) {
      const isOn = +row.dataset.index === state.selected;
      row.classList.toggle('on', isOn);
      if (isOn) reveal(row);
    }
  }

  // Not scrollIntoView, which would scroll a notebook around its frame too.
  function reveal(row) {
    const box = byId('side'), place = row.getBoundingClientRect();
    const top = byId('filters').getBoundingClientRect().bottom;
    const bottom = box.getBoundingClientRect().bottom;
    if (place.top < top) box.scrollTop -= top - place.top;
    if (place.bottom > bottom) box.scrollTop += place.bottom - bottom;
  }

  function reach(turn) {
    const isNarrow = innerWidth <= 760, box = isNarrow ? document.scrollingElement : byId('detail');
    if (!turn) {
      box.scrollTop = 0;
      return;
    }
    const tokens = byId('detail').querySelector('.tokens');
    const isStuck = getComputedStyle(tokens).position === 'sticky';
    const head = isNarrow ? 52 : box.getBoundingClientRect().top + (isStuck ? tokens.offsetHeight : 0);
    box.scrollTop += byId(`turn-${turn}`).getBoundingClientRect().top - head - 10;
  }

  // ---- one trajectory

  const kindOf = turn => 'k-' + (['search', 'click', 'answer', 'malformed'].includes(turn.kind)
    ? turn.kind : 'other');

  function question(one) {
    return el('div', 'question',
      el('b', one.right ? 'good' : 'bad', one.right ? '✓' : '✗'),
      el('span', '', [one.label, one.text].filter(Boolean).join(' '), ' ',
         el('b', one.right ? 'good' : 'bad', one.given || '—'),
         el('small', '', one.right ? '' : ` · right: ${one.answers.join(' | ')}`)));
  }

  // Tokens of each context, and what it would be had nothing been dropped: the same tokens a
  // character over all text so far. An estimate, and called one.
  function sizes(one) {
    const isKnown = one.turns.every(turn => turn.tokens !== null);
    const lengths = one.turns.map(turn => textOf(turn.saw).length + texts[turn.wrote].length);
    const solid = one.turns.map((turn, j) => isKnown ? turn.tokens : lengths[j]);
    const sum = values => values.reduce((a, b) => a + b, 0);
    const each = sum(lengths) ? sum(solid) / sum(lengths) : 0;
    const drops = one.turns.some(turn => turn.kept < turn.saw.length || turn.dropped.length);
    let all = one.turns.length ? textOf(one.turns[0].saw).length : 0;
    const ghost = one.turns.map(turn => {
      const whole = all + texts[turn.wrote].length;
      all = whole + texts[turn.information].length;
      return drops ? each * whole : 0;
    });
    return {isKnown, solid, ghost, drops};
  }

  function bars(one) {
    const {isKnown, solid, ghost, drops} = sizes(one);
    const top = Math.max(1, ...solid, ...ghost), unit = isKnown ? 'tokens' : 'characters';
    const height = 132 - 15 - 14;
    const buttons = one.turns.map((turn, j) => {
      const bar = el('i'), label = el('em', '', String(solid[j]));
      bar.style.height = `${height * solid[j] / top}px`;
      label.style.bottom = `${16 + height * solid[j] / top}px`;
      const button = el('button', kindOf(turn), bar);
      if (ghost[j] > solid[j]) {
        const shape = el('u');
        shape.style.height = `${height * ghost[j] / top}px`;
        button.prepend(shape);
      }
      if (one.turns.length <= 24) button.append(label);
      button.append(el('span', '', String(j + 1)));
      button.title = `turn ${j + 1}: ${solid[j]} ${unit}` +
        (drops ? `, about ${Math.round(ghost[j])} had nothing been dropped` : '');
      button.type = 'button';
      button.addEventListener('click', () => go(one.index, j));
      return button;
    });
    const kinds = [...new Set(one.turns.map(kindOf))];
    return el('div', 'tokens',
      el('p', '', el('b', '', `${unit[0].toUpperCase()}${unit.slice(1)} in context, turn by turn`),
         isKnown ? null : '(tokens were not recorded)',
         ...kinds.map(kind => el('span', 'key ' + kind, kind.slice(2))),
         drops ? el('span', 'key ghost', 'had nothing been dropped (estimate)') : null),
      el('div', 'bars', ...buttons));
  }

  const block = (title, className, ...children) =>
    [el('h4', '', title), el('pre', className, ...children)];

  function saw(one, turn, j) {
    const prompt = one.turns[0].saw[0], kept = turn.saw.slice(0, turn.kept);
    const gone = turn.saw.slice(turn.kept), parts = [];
    const isFolded = j > 0 && kept[0] === prompt;
    if (isFolded) {
      parts.push(el('details', '', el('summary', '', 'the question, as in every turn'),
                    el('pre', '', ...tagged(texts[prompt]))));
    }
    const rest = textOf(isFolded ? kept.slice(1) : kept);
    if (rest) parts.push(el('pre', '', ...tagged(rest)));
    const lost = textOf([...gone, ...turn.dropped]);
    if (lost) parts.push(...block('dropped when this turn ends', 'gone', ...tagged(lost)));
    return [el('h4', '', 'saw'), ...parts];
  }

  function card(one, turn, j) {
    const said = texts[turn.action], size = turn.tokens;
    const head = el('h3', '', `Turn ${j + 1}`, el('span', 'chip', turn.kind || 'no action'),
      el('span', 'said', ...marked(said)),
      el('small', '', size === null ? '' : `${size} tokens in context`));
    head.addEventListener('click', () => go(one.index, j));
    const information = texts[turn.information];
    const node = el('section', `turn ${kindOf(turn)}`, head, el('div', 'columns',
      el('div', '', ...saw(one, turn, j)),
      el('div', '', ...block('wrote', '', ...tagged(texts[turn.wrote])),
         ...(information ? block(turn.kind === 'search' ? 'was told · retrieved' : 'was told',
                                 'told', ...tagged(information)) : []),
         ...(turn.outage ? block('search outage', 'bad', turn.outage) : []))));
    node.id = `turn-${j}`;
    return node;
  }

  const FACTS = {em: 'EM', f1: 'F1', reward: 'reward', peak_tokens: 'peak',
                 peak_tokens_with_question: 'peak with question', dependency: 'dependency',
                 compression: 'compression',
                 searches: 'searches', generated_tokens: 'generated tokens', seconds: 'seconds',
                 release_match: "release's own match"};

  function detail(one) {
    const back = el('button', '', '‹ list');
    back.id = 'back';
    back.addEventListener('click', () => document.body.classList.remove('reading'));
    const facts = [groups[one.group], `${one.turns.length} turns`,
      ...Object.entries(FACTS).filter(([name]) => name in one.score)
        .filter(([name]) => name !== 'reward' || one.score.reward !== one.score.em)  // as in QA
        .map(([name, said]) => `${said} ${+one.score[name].toPrecision(4)}`)];
    const num = one.questions.length, right = one.questions.filter(each => each.right).length;
    const questions = el('details', 'questions',
      el('summary', '', `${right} of ${num} question${num === 1 ? '' : 's'} right`),
      ...one.questions.map(question));
    questions.open = num <= 8;
    const answer = one.answer === null ? el('p', 'facts bad', 'No answer was given.')
      : el('p', 'facts', 'answer: ', el('b', '', ...marked(one.answer)));
    byId('detail').replaceChildren(...[
      el('h2', '', back, one.id || one.key), el('p', 'facts', facts.filter(Boolean).join(' · ')),
      one.fault ? el('p', 'notice', `Fault: ${one.fault}`) : null, questions, answer,
      one.turns.length ? bars(one) : el('p', 'empty', 'It has no turn.'),
      ...one.turns.map((turn, j) => card(one, turn, j))].filter(Boolean));
  }

  function go(index, turn = 0) {
    const one = trajectories[index];
    if (!one) return;
    turn = Math.max(0, Math.min(turn, one.turns.length - 1));
    document.body.classList.add('viewing', 'reading');
    if (index !== state.selected) {
      state.selected = index;
      detail(one);
      markRow();
    }
    state.turn = turn;
    for (const node of byId('detail').querySelectorAll('.on')) node.classList.remove('on');
    byId(`turn-${turn}`)?.classList.add('on');
    byId('detail').querySelectorAll('.bars button')[turn]?.classList.add('on');
    reach(turn);
    remember(`${one.key}${turn ? `:${turn + 1}` : ''}`);
  }

  function remember(hash) {
    try {  // a frame without an address of its own (a notebook's) has none to change
      history.replaceState(null, '', '#' + encodeURIComponent(hash).replaceAll('%2F', '/').replaceAll('%3A', ':'));
    } catch {}
  }

  function follow() {
    let hash = location.hash.slice(1);
    try { hash = decodeURIComponent(hash); } catch {}
    const [, key, turn] = hash.match(/^(.*?)(?::(\d+))?$/s);
    if (indexOf.has(key)) {
      go(indexOf.get(key), (turn || 1) - 1);
    } else if (key === 'trajectories') {
      document.body.classList.add('viewing');
      document.body.classList.remove('reading');
      if (state.selected < 0 && innerWidth > 760 && state.shown.length) {
        go(state.shown[0].index);
      }
    } else if (key === 'report' && !document.body.classList.contains('only-viewer')) {
      document.body.classList.remove('viewing');
    }
  }

  // ---- keys and clicks

  function step(by) {
    const place = state.shown.findIndex(one => one.index === state.selected);
    const next = place < 0 ? 0 : Math.max(0, Math.min(place + by, state.shown.length - 1));
    if (state.shown.length) go(state.shown[next].index);
  }

  const KEYS = {
    j: () => step(1), k: () => step(-1),
    ArrowRight: () => go(state.selected, state.turn + 1),
    ArrowLeft: () => go(state.selected, state.turn - 1),
    '/': () => { document.body.classList.add('viewing'); document.body.classList.remove('reading'); byId('query').focus(); },
    '?': () => byId('help').showModal(),
    Escape: () => document.body.classList.remove('reading'),
  };
  document.addEventListener('keydown', event => {
    const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (isTyping && event.key === 'Escape') event.target.blur();
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey || byId('help').open) return;
    if (KEYS[event.key]) {
      event.preventDefault();
      KEYS[event.key]();
    }
  });
  byId('list').addEventListener('click', event => {
    const row = event.target.closest('li');
    if (row) go(+row.dataset.index);
  });
  byId('more').addEventListener('click', () => { state.limit += ROWS; list(); });
  byId('help-button').addEventListener('click', () => byId('help').showModal());
  byId('filters').addEventListener('input', filter);
  byId('filters').addEventListener('submit', event => event.preventDefault());
  addEventListener('hashchange', follow);

  // ---- begin

  function options(select, first, values) {
    select.replaceChildren(...[['', first], ...values].map(([value, said]) => {
      const option = el('option', '', said);
      option.value = value;
      return option;
    }));
    select.hidden = values.length < 2;
  }
  const counts = [...new Set(trajectories.map(one => one.questions.length))].sort((a, b) => a - b);
  options(byId('group'), 'all agents', groups.map((name, i) => [i, name]));
  options(byId('objectives'), 'any N', counts.map(count => [count, `N = ${count}`]));
  byId('total').textContent = trajectories.length;
  byId('detail').replaceChildren(el('p', 'empty', trajectories.length
    ? 'Choose a trajectory, or press j.' : 'No trajectories were found beside the numbers.'));
  filter();
  follow();
  if (document.body.classList.contains('viewing') && state.selected < 0 && innerWidth > 760) {
    go(state.shown[0]?.index);
  }
  document.documentElement.dataset.ready = 'yes';
})();
