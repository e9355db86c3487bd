// Draw a figure when it comes near the screen: its specification gets rows, words and the colours of the theme.
const tip = document.getElementById('tip');

const colours = new Map(); // of the theme in use; emptied when it changes

function colour(name) {
  if (!colours.has(name)) {
    const probe = element('span', {class: 'probe'});
    probe.style.color = 'var(--' + name + ')';
    document.body.append(probe);
    colours.set(name, getComputedStyle(probe).color);
    probe.remove();
  }
  return colours.get(name);
}

// Replace `@key` by words, `$name` by colours and [`%column`] by its values in the rows, everywhere in a specification.
function fill(node, rows) {
  if (typeof node === 'string') {
    if (node.startsWith('@')) return word(node.slice(1)) ?? node.slice(1);
    if (node.startsWith('$') && node.length > 1) return colour(node.slice(1));
    return node;
  }
  if (Array.isArray(node)) {
    const column = typeof node[0] === 'string' && node[0].startsWith('%') ? node[0].slice(1) : null;
    return column ? [...new Set(rows.map((row) => row[column]))].filter((value) => value !== undefined).map((value) => fill(value, rows)) : node.map((child) => fill(child, rows));
  }
  if (node === null || typeof node !== 'object') return node;
  return Object.fromEntries(Object.entries(node).map(([key, child]) => [key, key === '$schema' ? child : fill(child, rows)]));
}

function drawnRows(figure, rows, choice) {
  const terms = figure.columns.filter(([, format]) => format === 'term').map(([key]) => key).concat('kind', 'axis');
  return rows
    .filter((row) => !figure.filter || row[figure.filter] === undefined || row[figure.filter] === choice)
    .map((row) => {
      const made = {...row};
      for (const key of terms) {
        if (row[key] === undefined) continue;
        made[key + '_key'] = row[key];
        made[key] = term(figure, key, row[key]);
      }
      if ('label' in row) {
        if (figure.labels) made.label = word(figure.labels + row.name) ?? row.label;
        else if (figure.prefix.label) made.label = word(figure.prefix.label + row.label) ?? row.label;
      }
      made.title = made.label;
      delete made.$search;
      delete made.$language;
      return made;
    });
}

// Series at one dose stand side by side, or their intervals would hide each other.
function spread(rows) {
  const kinds = [...new Set(rows.map((row) => row.gap_kind))];
  rows.forEach((row) => { row.x = row.dropped + (kinds.indexOf(row.gap_kind) - (kinds.length - 1) / 2) * 0.014; });
  return rows;
}

function theme(width) {
  const ink = colour('ink'), soft = colour('soft'), grid = colour('line'), font = getComputedStyle(document.body).fontFamily;
  const axis = {labelColor: soft, titleColor: soft, gridColor: grid, domainColor: soft, tickColor: soft, labelFont: font,
    titleFont: font, labelFontSize: 12, titleFontSize: 12, titleFontWeight: 'normal', labelOverlap: true};
  return {
    background: 'transparent', font, aria: false, lineBreak: '\n', axisQuantitative: {tickCount: Math.max(3, Math.min(8, Math.round(width / 120)))}, view: {stroke: null}, axis,
    axisX: {titlePadding: 10, titleLimit: width - 20}, axisY: {labelLimit: Math.min(300, Math.max(96, width * 0.36)), labelPadding: 8, titleLimit: 300},
    legend: {orient: 'top', labelColor: ink, labelFont: font, labelFontSize: 13, labelLimit: width - 60, symbolSize: 90, offset: 12,
      columns: width < 480 ? 1 : width < 760 ? 2 : 6},
    rule: {strokeCap: 'round'},
  };
}

function showTip(handler, event, item, value) {
  if (value === null || value === undefined || value === '') { tip.hidden = true; return; }
  const lines = typeof value === 'object' ? Object.entries(value) : [['', value]];
  tip.replaceChildren(...lines.map(([name, text]) =>
    element('p', {}, element('span', {text: name}), element('b', {}, element('bdi', {text: String(text)})))));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 8)) + 'px';
  tip.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - box.height - 8)) + 'px';
}

// On a narrow screen a long name takes two lines, so that the drawing keeps its room.
function wrapLabels(rows) {
  let wrapped = false;
  for (const row of rows) {
    if (typeof row.label !== 'string' || row.label.length <= 16) continue;
    const middle = Math.min(18, Math.ceil(row.label.length / 2));
    const gap = row.label.indexOf(' ', middle - 4);
    if (gap < 0 || gap > 24) continue;
    row.label = row.label.slice(0, gap) + '\n' + row.label.slice(gap + 1);
    wrapped = true;
  }
  return wrapped;
}

// A figure's specification with its rows, words and colours inside, for a drawing of so many pixels.
function chartSpec(figure, state, width, alone) {
  const rows = drawnRows(figure, figure.rows, state.choice);
  const spec = fill(figure.spec, rows);
  spec.datasets = {...spec.datasets, rows: figure.name === 'dose' ? spread(rows) : rows};
  for (const [name, extra] of Object.entries(figure.extra)) spec.datasets[name] = drawnRows(figure, extra, state.choice);
  spec.config = theme(width);
  if (spec.height && spec.height.step) {
    const wrapped = width < 640 && wrapLabels(rows);
    const lines = new Set(rows.filter((row) => row.shown !== false).map((row) => row.label ?? row.stage ?? row.genre));
    spec.height = lines.size * (wrapped ? Math.max(34, spec.height.step) : spec.height.step);
  }
  if (alone) {
    const choice = figure.filter && state.choice !== undefined ? ' \u00b7 ' + (word('term.' + state.choice) ?? state.choice) : '';
    spec.title = {text: figure.title + choice, anchor: 'start', frame: 'bounds', color: colour('ink'), font: spec.config.font, fontSize: 16, offset: 14, limit: width};
    spec.background = colour('surface');
    spec.padding = 18;
  }
  if (alone || state.width) spec.width = width;
  return spec;
}

function isDrawable(figure, state) {
  return figure.rows.some((row) => row.shown !== false && (!figure.filter || row[figure.filter] === undefined || row[figure.filter] === state.choice));
}

function embed(place, spec, renderer) {
  return window.vegaEmbed(place, spec, {
    mode: 'vega-lite', renderer, actions: false, defaultStyle: false, ast: true, tooltip: showTip,
    formatLocale: NUMBER_LOCALE[language], logLevel: 1,
  });
}

async function drawChart(host, figure, state) {
  const turn = state.turn = (state.turn || 0) + 1;
  if (!isDrawable(figure, state)) {
    host.replaceChildren(element('p', {class: 'note', text: word('js.empty')}));
    host.style.minHeight = '0';
    return;
  }
  const place = element('div', {class: 'vega'});
  const drawing = element('div', {class: 'draft'}, place);
  host.append(drawing);
  try {
    const made = await embed(place, chartSpec(figure, state, state.width || host.clientWidth), 'svg');
    if (turn !== state.turn) { made.finalize(); drawing.remove(); return; } // a newer choice is on its way
    if (state.view) state.view.finalize();
    state.view = made;
    drawing.className = '';
    drawing.querySelector('svg').setAttribute('aria-hidden', 'true'); // its place says what it is; the table says what it shows
    host.replaceChildren(drawing);
    host.style.minHeight = '0';
    host.dataset.drawn = language;
  } catch (error) {
    host.replaceChildren(element('p', {class: 'note', text: word('js.failed')}));
    console.error(error);
  }
}
