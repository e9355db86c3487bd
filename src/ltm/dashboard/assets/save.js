// What can be taken away from a figure: its records as CSV or Parquet, its drawing as SVG or PNG.
const PICTURE_WIDTH = 960, PICTURE_SCALE = 2;

// The columns of a download: those of the table first, then what else the records hold.
function recordKeys(figure) {
  const keys = figure.columns.map(([key]) => key);
  const more = figure.rows.length ? Object.keys(figure.rows[0]) : [];
  return keys.concat(more.filter((key) => !keys.includes(key) && key !== 'shown' && !key.startsWith('$')), figure.keysBeside || []);
}

function recordValues(figure, key) {
  if (figure.valuesOf) return figure.valuesOf(key);
  return figure.rows.map((row) => row[key] ?? null);
}

// A cell that a spreadsheet would run as a formula is made plain text by an apostrophe.
function csvCell(value) {
  if (value === null || value === undefined) return '';
  if (Array.isArray(value)) value = value.map((place) => data.titles[place]).join(' | ');
  if (typeof value === 'string' && /^[=+\-@\t\r]/.test(value)) value = "'" + value;
  return /[",\n\r;]/.test(String(value)) ? '"' + String(value).replace(/"/g, '""') + '"' : String(value);
}

function csvText(figure) {
  const keys = recordKeys(figure), columns = keys.map((key) => recordValues(figure, key));
  const lines = figure.rows.map((row, i) => columns.map((values) => csvCell(values[i])).join(','));
  return '\ufeff' + [keys.map(csvCell).join(','), ...lines].join('\r\n') + '\r\n';
}

function parquetColumn(name, values, format) {
  const there = values.filter((value) => value !== null);
  if (there.some(Array.isArray)) return {name, type: 6, values, dictionary: data.titles};
  if (there.length && there.every((value) => typeof value === 'boolean')) return {name, type: 0, values};
  const whole = (format === 'int' || format === 'year') && there.every(Number.isSafeInteger);
  if (format && !isText(format) || there.length && there.every((value) => typeof value === 'number')) return {name, type: whole ? 2 : 5, values};
  return {name, type: 6, values};
}

function parquetBytes(figure) {
  const formats = new Map(figure.columns);
  return parquetFile(recordKeys(figure).map((key) => parquetColumn(key, recordValues(figure, key), formats.get(key))), figure.rows.length);
}

// The drawing by itself: one width whatever the screen, with its title, on the ground of the theme.
async function picture(figure, state, format) {
  const made = await embed(element('div'), chartSpec(figure, state, PICTURE_WIDTH, true), 'none');
  try {
    if (format === 'svg') return new Blob([await made.view.toSVG()], {type: 'image/svg+xml'});
    const canvas = await made.view.toCanvas(PICTURE_SCALE);
    return await new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
  } finally {
    made.finalize();
  }
}

const SAVED_AS = {
  csv: (figure) => new Blob([csvText(figure)], {type: 'text/csv;charset=utf-8'}),
  parquet: (figure) => new Blob([parquetBytes(figure)], {type: 'application/vnd.apache.parquet'}),
  svg: (figure, state) => picture(figure, state, 'svg'),
  png: (figure, state) => picture(figure, state, 'png'),
};

async function save(figure, state, format) {
  const address = URL.createObjectURL(await SAVED_AS[format](figure, state));
  const link = element('a', {href: address, download: `ltm_${figure.file || figure.name}.${format}`});
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
