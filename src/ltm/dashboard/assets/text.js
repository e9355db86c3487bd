// Words and numbers in the reader's language. Titles come from strangers: they reach the page through textContent only.
const data = JSON.parse(document.getElementById('data').textContent);
const root = document.documentElement;
let language = root.dataset.language;

const NUMBER_LOCALE = {
  en: {decimal: '.', thousands: ',', grouping: [3], currency: ['', ''], minus: '\u2212', percent: '%'},
  ru: {decimal: ',', thousands: '\u00a0', grouping: [3], currency: ['', ''], minus: '\u2212', percent: '\u00a0%'},
};

function word(key, values) {
  let text = data.words[language][key];
  if (text === undefined) return undefined;
  for (const [name, value] of Object.entries(values || {})) text = text.replace('{' + name + '}', () => String(value));
  return text;
}

function number(value, options) {
  return new Intl.NumberFormat(language, options).format(value).replace(/^-/, '\u2212');
}

const FORMATS = {
  text: String,
  code: String,
  term: String,
  year: (v) => String(v).replace(/^-/, '\u2212'),
  int: (v) => number(v, {maximumFractionDigits: 0}),
  num: (v) => number(v, {minimumFractionDigits: 2, maximumFractionDigits: 2}),
  num3: (v) => (v > 0 && v < 0.0005 ? '<\u00a0' + number(0.001) : number(v, {minimumFractionDigits: 3, maximumFractionDigits: 3})),
  sign: (v) => number(v, {minimumFractionDigits: 2, maximumFractionDigits: 2, signDisplay: 'exceptZero'}),
  pct: (v) => number(v, {style: 'percent', maximumFractionDigits: 0}),
};

function isText(format) {
  return format === 'text' || format === 'term' || format === 'code';
}

// The word for a value of a term column, or the value itself where there is none.
function term(figure, key, value) {
  if (value === null || value === undefined) return value;
  return word((figure.prefix[key] || 'term.') + value) ?? String(value);
}

function cell(figure, row, key, format) {
  const value = row[key];
  if (value === null || value === undefined || value === '') return '\u2013';
  if (key === 'label' && figure.labels) return word(figure.labels + row.name) ?? value;
  return format === 'term' ? term(figure, key, value) : FORMATS[format](value);
}

function columnWord(key) {
  if (key.startsWith('ability.')) return word('term.' + key.slice(8)) ?? key.slice(8);
  return word('col.' + key) ?? key;
}

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === 'class') made.className = value;
    else if (name === 'text') made.textContent = value;
    else if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? '' : value);
  }
  made.append(...children);
  return made;
}

function unpack(table) {
  return table.rows.map((values) => Object.fromEntries(table.keys.map((key, i) => [key, values[i]])));
}
