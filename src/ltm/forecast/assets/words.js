// Words and numbers in the reader's language. Names come from strangers: they reach the page through textContent only.
const data = JSON.parse(document.getElementById('data').textContent);
const root = document.documentElement;
let language = root.lang;

function say(key, values) {
  let text = data.words[language][key] ?? key;
  for (const [name, value] of Object.entries(values || {})) text = text.replaceAll('{' + name + '}', () => String(value));
  return text;
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

const NBSP = '\u00a0';

function plain(text) { // a number as Python prints it, in the reader's notation
  const [whole, rest] = text.split('.');
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, language === 'ru' ? NBSP : ',');
  return (rest === undefined ? grouped : grouped + (language === 'ru' ? ',' : '.') + rest).replace('-', '\u2212');
}

function fixed(value, digits) {
  return Number.isFinite(value) ? plain(value.toFixed(digits)) : '–';
}

function significant(value, digits) { // 0.0123, 1.23, 12.3, 123, 1,234
  if (!Number.isFinite(value)) return '–';
  if (value === 0) return '0';
  const size = Math.floor(Math.log10(Math.abs(value)));
  return fixed(value, Math.min(12, Math.max(0, digits - 1 - size)));
}

const COUNTS = [[1e12, 'T'], [1e9, 'B'], [1e6, 'M'], [1e3, 'k']];

function formatCount(value) {
  if (!Number.isFinite(value)) return '–';
  for (const [size, letter] of COUNTS) {
    if (Math.abs(value) < size * 0.9995) continue; // 999.95k is 1M already
    return plain(String(Number((value / size).toPrecision(3)))) + say('unit.' + letter);
  }
  return fixed(value, 0);
}

function digits(value) { // about two digits, as a person would say it; three from 100 on
  const size = Math.abs(value);
  if (size === 0) return '0';
  const power = Math.floor(Math.log10(size));
  if (size >= 1e15) return value.toExponential(1);
  if (size >= 99.5) return fixed(Math.round(value / 10 ** (power - 2)) * 10 ** (power - 2), 0);
  return size >= 9.95 ? fixed(value, 0) : plain(value.toFixed(Math.min(6, Math.max(1, 1 - power))).replace(/\.0$/, ''));
}

const HOUR = 3600, DAY = 24 * HOUR, YEAR = 365.25 * DAY;
const TIME_UNITS = [[0.1, 0.001, 'ms'], [90, 1, 's'], [1.5 * HOUR, 60, 'min'], [72 * HOUR, HOUR, 'h'], [2 * YEAR - 36 * HOUR, DAY, 'd'], [Infinity, YEAR, 'years']];
const UNITS = { // kind -> what one of the unit is, and its name
  seconds: (size) => TIME_UNITS.find(([end]) => size < end).slice(1),
  bytes: () => [1024 ** 3, 'GiB'],
  kwh: (size) => (size < 0.5 ? [0.001, 'Wh'] : size >= 10000 ? [1000, 'MWh'] : [1, 'kWh']),
  share: () => [0.01, 'percent'],
  times: () => [1, 'times'],
  usd: () => [1, 'usd'],
  count: () => null,
};

function withUnit(text, unit) {
  return say('number.' + unit, {value: text});
}

// One number with its unit; the same digits as the command line prints.
function single(kind, value) {
  if (!Number.isFinite(value)) return '–';
  const unit = UNITS[kind](Math.abs(value));
  if (kind === 'times' && value < 9.95) return withUnit(fixed(value, 2), 'times');
  return unit ? withUnit(digits(value / unit[0]), unit[1]) : formatCount(value);
}

// Both ends of a range, in the unit that its middle is written in.
function range(kind, middle, low, high) {
  if (![middle, low, high].every(Number.isFinite)) return '–';
  const unit = UNITS[kind](Math.abs(middle));
  const write = (value) => (unit ? digits(value / unit[0]) : formatCount(value));
  const text = say('range', {low: write(low), high: write(high)});
  return unit ? withUnit(text, unit[1]) : text;
}

const formatSeconds = (value) => single('seconds', value);
const formatBytes = (value) => single('bytes', value);
const formatPercent = (value) => single('share', value);

// What people write: 1500, 1.5k, 25M, 10B, also with a decimal comma and in Russian.
const LETTERS = {'': 1, k: 1e3, m: 1e6, b: 1e9, g: 1e9, t: 1e12, 'тыс': 1e3, 'млн': 1e6, 'млрд': 1e9, 'трлн': 1e12};

function parseCount(text) {
  const clean = text.trim().toLowerCase().replace(/[\s\u00a0_]/g, '');
  const found = /^([0-9]*[.,]?[0-9]+(?:e\+?[0-9]+)?)([a-zа-я]*)\.?$/.exec(/,\d{3}(\D|$)/.test(clean) ? clean.replaceAll(',', '') : clean);
  if (!found || !(found[2] in LETTERS)) return NaN;
  return Number(found[1].replace(',', '.')) * LETTERS[found[2]];
}
