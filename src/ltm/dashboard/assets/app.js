// Wire the page: figures with their controls, the two languages, light and dark, and the list of contents.
const figures = [];

function controls(figure, state, show) {
  const bar = element('div', {class: 'controls'});
  if (figure.filter) {
    const choices = [...new Set(figure.rows.map((row) => row[figure.filter]))];
    const group = element('div', {class: 'switch', role: 'group', 'aria-label': word('js.' + figure.filter)});
    for (const value of choices) {
      group.append(element('button', {type: 'button', 'aria-pressed': String(value === state.choice), text: word('term.' + value) ?? value,
        onclick: () => { state.choice = value; state.shown = FIRST_ROWS; show('choice'); }}));
    }
    if (choices.length > 1) bar.append(group);
  }
  const right = element('div', {class: 'tools'});
  if (figure.spec) {
    for (const view of ['chart', 'table']) {
      right.append(element('button', {type: 'button', 'aria-pressed': String(state.mode === view), text: word('js.' + view),
        'data-view': view, onclick: () => { state.mode = view; show('view'); }}));
    }
  }
  right.append(element('button', {type: 'button', class: 'csv', text: word('js.csv'), onclick: () => saveCsv(figure.name, figure)}));
  bar.append(right);
  return bar;
}

function searchField(figure, state, redraw) {
  const field = element('input', {type: 'search', 'aria-label': word(figure.search), placeholder: word(figure.search), autocomplete: 'off'});
  field.value = state.query;
  field.addEventListener('input', () => { state.query = field.value.trim(); state.shown = FIRST_ROWS; redraw(); });
  return field;
}

function setUp(holder) {
  const figure = data.figures[holder.dataset.figure];
  figure.name = holder.dataset.figure;
  figure.rows = unpack(figure.table);
  for (const name of Object.keys(figure.extra)) figure.extra[name] = unpack(figure.extra[name]);
  const state = {mode: figure.spec ? 'chart' : 'table', query: '', shown: FIRST_ROWS, sort: '', down: false, near: false};
  if (figure.filter) state.choice = firstChoice(figure);
  const bar = element('div'), plot = element('div', {class: 'plot'}), table = element('div', {class: 'table'});
  holder.append(bar, plot, table);
  const show = (changed) => {
    const title = holder.querySelector(`h3 span[lang="${language}"]`);
    figure.title = title ? title.textContent : word(figure.caption) ?? '';
    const focused = changed && document.activeElement ? [...bar.querySelectorAll('button')].indexOf(document.activeElement) : -1;
    bar.replaceChildren(controls(figure, state, show));
    if (focused >= 0) bar.querySelectorAll('button')[focused].focus();
    plot.hidden = state.mode !== 'chart';
    table.hidden = state.mode !== 'table';
    plot.setAttribute('role', 'group');
    plot.setAttribute('aria-label', figure.title);
    if (state.mode === 'table') {
      const inner = element('div');
      const redraw = () => drawTable(inner, figure, state);
      table.replaceChildren(...(figure.search ? [searchField(figure, state, redraw)] : []), inner);
      redraw();
    } else if (state.near) drawChart(plot, figure, state);
  };
  if (figure.spec) plot.style.minHeight = expectedHeight(figure, state) + 'px'; // so that the page does not jump
  const entry = {holder, state, show};
  figures.push(entry);
  show();
  if (figure.spec) watcher.observe(holder);
}

function expectedHeight(figure, state) {
  if (!figure.spec.height.step) return figure.spec.height + 90;
  const drawn = figure.rows.filter((row) => row.shown !== false && (!figure.filter || row[figure.filter] === state.choice));
  return drawn.length * figure.spec.height.step + 90;
}

// Open on the first ability with something claimed, so that the page starts with what was found.
function firstChoice(figure) {
  const told = figure.rows.find((row) => row.verdict === 'raises' || row.verdict === 'lowers');
  return (told || figure.rows[0] || {})[figure.filter];
}

const watcher = new IntersectionObserver((entries) => {
  for (const seen of entries) {
    if (!seen.isIntersecting) continue;
    watcher.unobserve(seen.target);
    const entry = figures.find((candidate) => candidate.holder === seen.target);
    entry.state.near = true;
    if (entry.state.mode === 'chart') entry.show();
  }
}, {rootMargin: '500px 0px'});

function setLanguage(code) {
  language = code;
  root.lang = code;
  root.dataset.language = code;
  for (const button of document.querySelectorAll('[data-language]')) {
    if (button !== root) button.setAttribute('aria-pressed', String(button.dataset.language === code));
  }
  figures.forEach((entry) => {
    unpackedSearch(entry);
    entry.show();
  });
}

function unpackedSearch(entry) {
  for (const row of data.figures[entry.holder.dataset.figure].rows) delete row.$search; // it holds translated words
}

function setTheme() {
  const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset.theme = dark ? 'light' : 'dark';
  redrawCharts();
}

function redrawCharts() {
  figures.filter((entry) => entry.state.near && entry.state.mode === 'chart').forEach((entry) => entry.show());
}

function markContents() {
  const sections = [...document.querySelectorAll('main > section')];
  const links = new Map([...document.querySelectorAll('nav a')].map((a) => [a.hash.slice(1), a]));
  let waiting = false;
  const mark = () => {
    waiting = false;
    const read = sections.filter((section) => section.getBoundingClientRect().top < innerHeight * 0.35).pop() || sections[0];
    links.forEach((link, id) => (id === read.id ? link.setAttribute('aria-current', 'true') : link.removeAttribute('aria-current')));
  };
  document.addEventListener('scroll', () => {
    if (!waiting) requestAnimationFrame(mark);
    waiting = true;
  }, {passive: true});
  mark();
}

for (const button of document.querySelectorAll('.top [data-language]')) {
  button.addEventListener('click', () => setLanguage(button.dataset.language));
  button.setAttribute('aria-pressed', String(button.dataset.language === language));
}
document.getElementById('theme').addEventListener('click', setTheme);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redrawCharts);
document.addEventListener('scroll', () => { tip.hidden = true; }, {passive: true});
addEventListener('beforeprint', () => figures.forEach((entry) => { if (!entry.state.near) { entry.state.near = true; entry.show(); } }));
document.querySelectorAll('[data-figure]').forEach(setUp);
markContents();
