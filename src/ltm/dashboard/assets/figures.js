// A figure and its controls: chart or table, what is chosen, searched and narrowed, and what can be taken away.
const figures = new Map(); // name -> {holder, figure, state, show}
const kept = new Map(); // name -> state: what a reader chose outlives a new drawing of its chapter

function pressed(label, isOn, onclick, more) {
  return element('button', {type: 'button', 'aria-pressed': String(isOn), text: label, onclick, ...more});
}

function controls(entry) {
  const {figure, state, show} = entry;
  const bar = element('div', {class: 'controls'});
  if (figure.filter) {
    const choices = [...new Set(figure.rows.map((row) => row[figure.filter]))];
    const group = element('div', {class: 'switch', role: 'group', 'aria-label': word('js.' + figure.filter)});
    for (const value of choices) {
      group.append(pressed(word('term.' + value) ?? value, value === state.choice, () => {
        state.choice = value;
        state.shown = FIRST_ROWS;
        show('choice');
      }));
    }
    if (choices.length > 1) bar.append(group);
  }
  const right = element('div', {class: 'tools'});
  if (figure.spec) {
    right.append(element('div', {class: 'switch', role: 'group', 'aria-label': word('js.view')}, ...['chart', 'table'].map((view) =>
      pressed(word('js.' + view), state.mode === view, () => { state.mode = view; show('view'); }, {'data-view': view}))));
  }
  const formats = ['csv', 'parquet', ...(figure.spec ? ['svg', 'png'] : [])];
  right.append(element('div', {class: 'switch save', role: 'group', 'aria-label': word('js.download')}, ...formats.map((format) => {
    const name = {csv: 'CSV', parquet: 'Parquet', svg: 'SVG', png: 'PNG'}[format];
    return element('button', {type: 'button', text: name, 'aria-label': word('js.save', {format: name}), title: word('js.save', {format: name}),
      onclick: () => save(figure, state, format)});
  })));
  bar.append(right);
  return bar;
}

function searchField(entry, redraw) {
  const {figure, state} = entry;
  const field = element('input', {type: 'search', 'aria-label': word(figure.search), placeholder: word(figure.search), autocomplete: 'off', spellcheck: 'false'});
  field.value = state.query;
  field.addEventListener('input', () => { state.query = field.value.trim(); state.shown = FIRST_ROWS; redraw(); });
  return field;
}

// A choice of one value for each column of words that has few of them.
function narrowing(entry, redraw) {
  const {figure, state} = entry;
  const made = (figure.narrow || []).map((key) => {
    const format = figure.columns.find(([name]) => name === key)[1];
    const different = new Map(figure.rows.map((row) => [row[key], row]));
    const values = new Map([...different].filter(([value]) => value !== null && value !== undefined).map(([value, row]) => [String(value), cell(figure, row, key, format)]));
    if (values.size < 2 || values.size > 24) return null;
    const list = element('select', {'data-key': key}, element('option', {value: '', text: word('js.any')}),
      ...[...values].sort(([, a], [, b]) => a.localeCompare(b, language, {numeric: true})).map(([value, text]) => element('option', {value, text})));
    list.value = state.narrow[key] ?? '';
    list.addEventListener('change', () => { state.narrow[key] = list.value; state.shown = FIRST_ROWS; redraw(); });
    return element('label', {class: 'narrow'}, element('span', {text: columnWord(key)}), list);
  });
  return made.filter(Boolean);
}

function newState(figure) {
  return {mode: figure.spec ? 'chart' : 'table', query: '', shown: FIRST_ROWS, sort: '', down: false, narrow: {}, near: false, stale: true};
}

function describe(entry) {
  const {holder, figure} = entry;
  const text = (figure.summary || {})[language];
  let place = holder.querySelector(':scope > .summary');
  if (!text) { if (place) place.remove(); return; }
  if (!place) {
    place = element('p', {class: 'summary', id: 'summary-' + figure.name});
    holder.append(place);
  }
  place.textContent = text;
}

function showTable(entry, table) {
  const {figure, state} = entry;
  const inner = element('div');
  const redraw = entry.redraw = () => drawTable(inner, figure, state);
  const above = [...(figure.search ? [searchField(entry, redraw)] : []), ...narrowing(entry, redraw)];
  const bar = above.length ? [element('div', {class: 'find'}, ...above)] : [];
  const focused = table.contains(document.activeElement) && document.activeElement.dataset.key;
  table.replaceChildren(...bar, ...(figure.above ? [figure.above(redraw)] : []), inner);
  redraw();
  if (focused) { const again = table.querySelector(`select[data-key="${CSS.escape(focused)}"]`); if (again) again.focus(); }
}

// Put a figure into its place. `given` is a figure made by the page itself; else it is one of the page's rows.
function setUp(holder, given) {
  const name = holder.dataset.figure, figure = given || data.figures[name];
  if (!figure) return;
  figure.name = name;
  if (!figure.rows) {
    figure.rows = unpack(figure.table);
    for (const extra of Object.keys(figure.extra)) figure.extra[extra] = unpack(figure.extra[extra]);
  }
  if (name === 'board') makeBoard(figure);
  const state = kept.get(name) || newState(figure);
  if (!figure.spec) state.mode = 'table';
  kept.set(name, state);
  Object.assign(state, {near: false, stale: true, view: null});
  if (figure.filter && !figure.rows.some((row) => row[figure.filter] === state.choice)) state.choice = firstChoice(figure);
  const bar = element('div'), plot = element('div', {class: 'plot', role: 'img'}), table = element('div', {class: 'table'});
  holder.append(bar, plot, table);
  const entry = {holder, figure, state, plot};
  entry.show = (changed) => {
    state.old = false;
    const title = holder.querySelector(`h3 span[lang="${language}"]`);
    figure.title = title ? title.textContent : word(figure.caption) ?? '';
    const focused = changed && document.activeElement ? [...bar.querySelectorAll('button')].indexOf(document.activeElement) : -1;
    bar.replaceChildren(controls(entry));
    if (focused >= 0) bar.querySelectorAll('button')[focused].focus();
    plot.hidden = state.mode !== 'chart';
    table.hidden = state.mode !== 'table';
    plot.setAttribute('aria-label', figure.title);
    describe(entry);
    if ((figure.summary || {})[language]) plot.setAttribute('aria-describedby', 'summary-' + name);
    state.stale = true;
    if (state.mode === 'table') showTable(entry, table);
    else if (state.near) queueChart(entry);
  };
  if (figure.spec) plot.style.minHeight = expectedHeight(figure, state) + 'px'; // so that the page does not jump
  figures.set(name, entry);
  entry.show();
  watcher.observe(holder);
}

// Show a figure in another language: now where it is on the screen, else when the reader comes to it.
function showSoon(entry) {
  if (entry.state.near) entry.show();
  else entry.state.old = true;
}

// All figures of the chapters; the leaderboard, whose rows are many, when the reader comes near.
function setUpAll(place) {
  for (const holder of place.querySelectorAll('[data-figure]')) {
    if (holder.dataset.figure === 'board') boardWatcher.observe(holder);
    else setUp(holder);
  }
}

const boardWatcher = new IntersectionObserver((changes) => {
  for (const seen of changes) {
    if (!seen.isIntersecting) continue;
    boardWatcher.unobserve(seen.target);
    setUp(seen.target);
  }
}, {rootMargin: '1200px 0px'});

function expectedHeight(figure, state) {
  if (!figure.spec.height || !figure.spec.height.step) return (figure.spec.height || 300) + 90;
  const drawn = figure.rows.filter((row) => row.shown !== false && (!figure.filter || row[figure.filter] === state.choice));
  return drawn.length * figure.spec.height.step + 90;
}

// Open on the first ability with something claimed, so that the page starts with what was found.
function firstChoice(figure) {
  const told = figure.rows.find((row) => row.verdict === 'raises' || row.verdict === 'lowers');
  if (!told && figure.choice && figure.rows.some((row) => row[figure.filter] === figure.choice)) return figure.choice;
  return (told || figure.rows[0] || {})[figure.filter];
}

// Charts are drawn one at a time, each after a paint, so that no click waits for them.
const queued = [];
let isDrawing = false;

async function queueChart(entry) {
  if (!queued.includes(entry)) queued.push(entry);
  if (isDrawing) return;
  isDrawing = true;
  try {
    while (queued.length) {
      await afterPaint();
      const next = queued.shift();
      if (next && next.state.stale && next.state.mode === 'chart' && !isAway(next)) await drawNow(next);
    }
  } finally {
    isDrawing = false;
  }
}

// Not on the page, or in the chapters while a run is shown in their place: drawn when the reader comes back.
function isAway(entry) {
  return !entry.holder.isConnected || (chapters.inert && chapters.contains(entry.holder));
}

function drawNow(entry) {
  entry.state.stale = false;
  return drawChart(entry.plot, entry.figure, entry.state);
}

const watcher = new IntersectionObserver((changes) => {
  for (const seen of changes) {
    const entry = figures.get(seen.target.dataset.figure);
    if (!entry || entry.holder !== seen.target) continue;
    entry.state.near = seen.isIntersecting && !isAway(entry);
    if (!entry.state.near) continue;
    if (entry.state.old) { entry.show(); continue; }
    if (entry.state.stale && entry.state.mode === 'chart') queueChart(entry);
  }
}, {rootMargin: '400px 0px'});

function redrawCharts() {
  colours.clear();
  for (const entry of figures.values()) {
    if (!entry.figure.spec) continue;
    entry.state.stale = true;
    if (entry.state.near && entry.state.mode === 'chart') queueChart(entry);
  }
}

function forget(holder) {
  for (const place of holder.querySelectorAll('[data-figure]')) {
    const entry = figures.get(place.dataset.figure);
    if (!entry || entry.holder !== place) continue;
    watcher.unobserve(place);
    if (entry.state.view) entry.state.view.finalize();
    figures.delete(place.dataset.figure);
  }
}
