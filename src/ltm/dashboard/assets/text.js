// Words and numbers in the reader's language. Titles come from strangers: they reach the page through textContent only.
let data = JSON.parse(document.getElementById('data').textContent);
const root = document.documentElement;
const view = document.getElementById('view'), chapters = document.getElementById('chapters');
let language = root.dataset.language;

const NUMBER_LOCALE = {
  en: {decimal: '.', thousands: ',', grouping: [3], currency: ['', ''], minus: '\u2212', percent: '%'},
  ru: {decimal: ',', thousands: '\u00a0', grouping: [3], currency: ['', ''], minus: '\u2212', percent: '\u00a0%'},
};

// A text of the locale; one with plural forms is chosen by its `n`.
function word(key, values) {
  let text = data.words[language][key];
  if (text === undefined) return undefined;
  if (typeof text === 'object') text = text[new Intl.PluralRules(language).select((values || {}).n ?? 0)] ?? text.other;
  for (const [name, value] of Object.entries(values || {})) text = text.replaceAll('{' + name + '}', () => (typeof value === 'number' ? number(value) : String(value)));
  return text;
}

const formatters = new Map();

function number(value, options) {
  const key = language + JSON.stringify(options || 0);
  if (!formatters.has(key)) formatters.set(key, new Intl.NumberFormat(language, options));
  return formatters.get(key).format(value).replace(/^-/, '\u2212');
}

const TWO = {minimumFractionDigits: 2, maximumFractionDigits: 2}, THREE = {minimumFractionDigits: 3, maximumFractionDigits: 3};
const FORMATS = {
  text: String,
  code: String,
  term: String,
  year: (v) => String(v).replace(/^-/, '\u2212'),
  int: (v) => number(v, {maximumFractionDigits: 0}),
  num: (v) => number(v, TWO),
  num3: (v) => (v > 0 && v < 0.0005 ? '<\u00a0' + number(0.001) : number(v, THREE)),
  sign: (v) => number(v, {...TWO, signDisplay: 'exceptZero'}),
  sign3: (v) => number(v, {...THREE, signDisplay: 'exceptZero'}),
  pct: (v) => number(v, {style: 'percent', maximumFractionDigits: 0}),
  moment: (v) => new Intl.DateTimeFormat(language, {dateStyle: 'medium', timeStyle: 'short', timeZone: 'UTC'}).format(v * 1000) + ' UTC',
  duration,
};

// Seconds with at most two units, as the sentences of the page have them.
function duration(seconds) {
  const unit = (name) => '\u00a0' + word('unit.' + name);
  if (seconds < 59.95) return number(seconds, {minimumFractionDigits: 1, maximumFractionDigits: 1}) + unit('s');
  const whole = Math.round(seconds);
  for (const [size, name, part, partName] of [[86400, 'd', 3600, 'h'], [3600, 'h', 60, 'min'], [60, 'min', 1, 's']]) {
    if (whole < size) continue;
    const rest = Math.floor((whole % size) / part);
    return number(Math.floor(whole / size)) + unit(name) + (rest ? ' ' + rest + unit(partName) : '');
  }
  return '\u2013';
}

function isText(format) {
  return format === 'text' || format === 'term' || format === 'code';
}

// The word for a value of a term column, or the value itself where there is none.
function term(figure, key, value) {
  if (value === null || value === undefined) return value;
  return word((figure.prefix[key] || 'term.') + value) ?? String(value);
}

function cell(figure, row, key, format) {
  const value = row[key + '_' + language] ?? row[key]; // a text that Python wrote in both languages
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
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function unpack(table) {
  return table.rows.map((values) => Object.fromEntries(table.keys.map((key, i) => [key, values[i]])));
}

// Let the browser paint, and take the next click or key, before the rest goes on.
const PAINTED_MS = 20;

function afterPaint() {
  return new Promise((resolve) => (document.hidden ? setTimeout(resolve) : requestAnimationFrame(() => setTimeout(resolve, PAINTED_MS))));
}
