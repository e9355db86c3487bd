// One table for every set of records: sorted by its headings, searched, opened a piece at a time, saved as CSV.
const FIRST_ROWS = 25, MORE_ROWS = 100;

function matches(figure, row, query) {
  if (!query) return true;
  if (row.$search === undefined) {
    const own = figure.columns.filter(([, f]) => isText(f)).map(([k, f]) => cell(figure, row, k, f) + ' ' + (row[k] ?? ''));
    const books = figure.detail ? row.books.map((place) => data.titles[place]) : [];
    row.$search = own.concat(books).join('\n').toLocaleLowerCase();
  }
  return query.toLocaleLowerCase().split(/\s+/).every((part) => row.$search.includes(part));
}

function compare(figure, key, format) {
  const collator = new Intl.Collator(language, {numeric: true});
  return (a, b) => {
    const x = a[key], y = b[key];
    const absent = (x === null || x === undefined) - (y === null || y === undefined);
    if (absent) return absent;
    if (isText(format)) return collator.compare(cell(figure, a, key, format), cell(figure, b, key, format));
    return x - y;
  };
}

function chosenRows(figure, state) {
  let rows = figure.rows.filter((row) => !figure.filter || row[figure.filter] === state.choice);
  rows = rows.filter((row) => matches(figure, row, state.query));
  if (state.sort) {
    const order = compare(figure, state.sort, figure.columns.find(([key]) => key === state.sort)[1]);
    rows = rows.slice().sort((a, b) => {
      const missing = (a[state.sort] == null) - (b[state.sort] == null); // the unknown stays last both ways
      return missing || (state.down ? -order(a, b) : order(a, b));
    });
  }
  return rows;
}

function heading(figure, state, key, format, redraw) {
  const sorted = state.sort === key;
  const button = element('button', {type: 'button', title: word('js.sort', {column: columnWord(key)}), onclick: () => {
    state.down = sorted ? !state.down : false;
    state.sort = key;
    redraw(key);
  }}, columnWord(key), element('span', {'aria-hidden': 'true', class: 'arrow', text: sorted ? (state.down ? '▼' : '▲') : ''}));
  return element('th', {
    scope: 'col', class: isText(format) ? 'words' : 'number', 'data-key': key,
    'aria-sort': sorted ? (state.down ? 'descending' : 'ascending') : null,
  }, button);
}

function bodyRow(figure, state, row, redraw) {
  const line = element('tr', {'data-verdict': row.verdict || row.tied || row.gate});
  figure.columns.forEach(([key, format], index) => {
    const shown = element('bdi', {text: cell(figure, row, key, format)});
    const made = element(index ? 'td' : 'th', {class: format === 'code' ? 'code' : isText(format) ? 'words' : 'number', scope: index ? null : 'row'}, shown);
    if (!index && figure.detail) {
      const open = state.open === row;
      made.prepend(element('button', {
        type: 'button', class: 'open', 'aria-expanded': String(open), 'aria-label': word('js.open', {run: row.run}),
        text: open ? '−' : '+',
      }));
      line.classList.add('opens');
      line.addEventListener('click', () => {
        state.open = open ? null : row;
        redraw(null, row);
      });
    }
    line.append(made);
  });
  if (!figure.detail || state.open !== row) return [line];
  const list = element('ol', {}, ...row.books.map((place) => element('li', {}, element('bdi', {text: data.titles[place]}))));
  const inner = element('td', {colspan: figure.columns.length}, element('p', {text: word('js.books_in_order')}), list);
  return [line, element('tr', {class: 'detail-row'}, inner)];
}

function drawTable(host, figure, state) {
  const redraw = (key, row) => {
    drawTable(host, figure, state);
    const place = row ? state.drawn.indexOf(row) : -1;
    if (key) host.querySelector(`th[data-key="${CSS.escape(key)}"] button`).focus();
    else if (place >= 0) host.querySelectorAll('button.open')[place].focus({preventScroll: true});
  };
  const rows = chosenRows(figure, state);
  state.drawn = rows.slice(0, state.shown);
  const caption = element('caption', {}, element('span', {text: word(figure.caption) ?? figure.title}));
  const head = element('thead', {}, element('tr', {}, ...figure.columns.map(([k, f]) => heading(figure, state, k, f, redraw))));
  const body = element('tbody', {}, ...state.drawn.flatMap((row) => bodyRow(figure, state, row, redraw)));
  const scroll = element('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption.textContent});
  const kept = host.querySelector('.scroll');
  const left = kept ? kept.scrollLeft : 0;
  scroll.append(element('table', {}, caption, head, body));
  const values = {shown: number(state.drawn.length), total: number(rows.length)};
  const foot = element('p', {class: 'foot'}, element('span', {'aria-live': 'polite', text: rows.length ? word('js.of', values) : word('js.nothing')}));
  if (rows.length > state.shown) {
    foot.append(element('button', {type: 'button', text: word('js.more'), onclick: () => {
      state.shown += MORE_ROWS;
      redraw();
    }}));
  }
  host.replaceChildren(scroll, foot);
  scroll.scrollLeft = left;
}

// A cell that a spreadsheet would run as a formula is made plain text by an apostrophe.
function csvCell(value) {
  if (value === null || value === undefined) return '';
  if (Array.isArray(value)) value = value.map((place) => data.titles[place]).join(' | ');
  if (typeof value === 'string' && /^[=+\-@\t\r]/.test(value)) value = "'" + value;
  return /[",\n\r;]/.test(String(value)) ? '"' + String(value).replace(/"/g, '""') + '"' : String(value);
}

function csv(figure) {
  const keys = figure.columns.map(([key]) => key);
  if (figure.detail) keys.push('books');
  const lines = [keys, ...figure.rows.map((row) => keys.map((key) => row[key]))];
  return '\ufeff' + lines.map((line) => line.map(csvCell).join(',')).join('\r\n') + '\r\n';
}

function saveCsv(name, figure) {
  const address = URL.createObjectURL(new Blob([csv(figure)], {type: 'text/csv;charset=utf-8'}));
  const link = element('a', {href: address, download: 'ltm_' + name + '.csv'});
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
