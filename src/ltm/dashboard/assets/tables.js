// One table for every set of records: sorted by its headings, searched, narrowed, opened a piece at a time.
const FIRST_ROWS = 25, MORE_ROWS = 50;

// Text that a search looks through, once per row and language.
function searchText(figure, row) {
  if (row.$language !== language) {
    const own = figure.columns.filter(([, format]) => isText(format)).map(([key, format]) => cell(figure, row, key, format) + ' ' + (row[key] ?? ''));
    row.$search = own.join('\n').toLocaleLowerCase();
    row.$language = language;
  }
  return row.$search;
}

function searched(figure, rows, query) {
  const parts = query.toLocaleLowerCase().split(/\s+/).filter(Boolean);
  if (!parts.length) return rows;
  const beside = figure.searchBeside ? parts.map(figure.searchBeside) : [];
  return rows.filter((row) => parts.every((part, i) => (beside[i] && beside[i](row)) || searchText(figure, row).includes(part)));
}

// What rows are sorted by: numbers as they are, words by their place in the reader's alphabet. null = unknown.
function sortKeys(figure, rows, key, format) {
  const values = rows.map((row) => (row[key] === undefined || row[key] === '' ? null : row[key]));
  if (!isText(format) || format === 'code') return values;
  const shown = rows.map((row, i) => (values[i] === null ? null : cell(figure, row, key, format)));
  const collator = new Intl.Collator(language, {numeric: true});
  const places = new Map([...new Set(shown)].filter((text) => text !== null).sort(collator.compare).map((text, place) => [text, place]));
  return shown.map((text) => (text === null ? null : places.get(text)));
}

function sorted(figure, rows, key, down) {
  const keys = sortKeys(figure, rows, key, figure.columns.find(([name]) => name === key)[1]);
  const sign = down ? -1 : 1;
  return rows.map((row, i) => i).sort((a, b) => {
    const x = keys[a], y = keys[b];
    if (x === null || y === null) return (x === null) - (y === null) || a - b; // the unknown stays last both ways
    return x < y ? -sign : x > y ? sign : a - b;
  }).map((i) => rows[i]);
}

function chosenRows(figure, state) {
  let rows = figure.rows.filter((row) => !figure.filter || row[figure.filter] === state.choice);
  for (const [key, value] of Object.entries(state.narrow)) if (value !== '') rows = rows.filter((row) => String(row[key]) === value);
  rows = searched(figure, rows, state.query);
  return state.sort ? sorted(figure, rows, state.sort, state.down) : rows;
}

function heading(figure, state, key, format, redraw) {
  const isSorted = state.sort === key;
  const button = element('button', {type: 'button', title: word('js.sort', {column: columnWord(key)}), onclick: () => {
    state.down = isSorted ? !state.down : false;
    state.sort = key;
    redraw(key);
  }}, columnWord(key), element('span', {'aria-hidden': 'true', class: 'arrow', text: isSorted ? (state.down ? '▼' : '▲') : ''}));
  return element('th', {
    scope: 'col', class: isText(format) ? 'words' : 'number', 'data-key': key,
    'aria-sort': isSorted ? (state.down ? 'descending' : 'ascending') : null,
  }, button);
}

function bodyRow(figure, row) {
  const line = element('tr', {'data-verdict': row.verdict || row.tied || row.gate});
  figure.columns.forEach(([key, format], index) => {
    const text = cell(figure, row, key, format);
    const linked = figure.runLinks && key === figure.runLinks && row[key];
    const shown = linked ? element('a', {href: '#run=' + row[key], 'data-run': row[key], text}) : element('bdi', {text});
    const made = element(index ? 'td' : 'th', {class: format === 'code' ? 'code' : isText(format) ? 'words' : 'number', scope: index ? null : 'row'}, shown);
    if (!index && figure.lead) made.prepend(figure.lead(row));
    line.append(made);
  });
  return line;
}

function drawTable(host, figure, state) {
  const redraw = (key) => {
    drawTable(host, figure, state);
    if (key) host.querySelector(`th[data-key="${CSS.escape(key)}"] button`).focus({preventScroll: true});
  };
  const rows = chosenRows(figure, state);
  const drawn = rows.slice(0, state.shown);
  const caption = element('caption', {}, element('span', {text: word(figure.caption) ?? (figure.title || figure.name)}));
  const head = element('thead', {}, element('tr', {}, ...figure.columns.map(([k, f]) => heading(figure, state, k, f, redraw))));
  const body = element('tbody', {}, ...drawn.map((row) => bodyRow(figure, row)));
  const scroll = element('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption.textContent});
  scroll.addEventListener('scroll', () => { state.left = scroll.scrollLeft; }, {passive: true});
  scroll.append(element('table', {}, caption, head, body));
  const foot = element('p', {class: 'foot'});
  const count = element('span', {'aria-live': 'polite'});
  const more = element('button', {type: 'button', text: word('js.more'), onclick: () => { // only what is new is made
    const added = rows.slice(state.shown, state.shown + MORE_ROWS);
    state.shown += MORE_ROWS;
    body.append(...added.map((row) => bodyRow(figure, row)));
    tell();
  }});
  const tell = () => {
    count.textContent = rows.length ? word('js.of', {shown: number(Math.min(state.shown, rows.length)), total: number(rows.length)}) : word('js.nothing');
    if (rows.length <= state.shown) more.remove();
  };
  foot.append(count, more);
  tell();
  host.replaceChildren(scroll, foot);
  if (state.left) scroll.scrollLeft = state.left; // asked for only where needed: it makes the browser lay out the page at once
}
