// The leaderboard: every finished run, ranked ones first; rows open their run, two of them can be compared.
let picked = [];

function makeBoard(figure) {
  const runs = allRuns(), keys = figure.columns.map(([key]) => key);
  const rows = Array.from({length: runs.n}, (_, i) => {
    const row = {index: i, run: runs.columns.run[i]};
    for (const key of keys) row[key] = runValue(i, key);
    return row;
  });
  rows.sort((a, b) => (a.place ?? Infinity) - (b.place ?? Infinity) || (a.run < b.run ? -1 : 1));
  Object.assign(figure, {
    rows, runLinks: 'run', lead: pickBox, above: pickBar, searchBeside: readers,
    narrow: ['tied', 'round', 'order', 'gap_kind', 'density'].filter((key) => keys.includes(key)),
    valuesOf: (key) => (key === 'books' ? rows.map((row) => (runValue(row.index, 'sequence') === null ? null : booksOf(row.index).filter((place) => place >= 0))) : rows.map((row) => row[key] ?? null)),
    keysBeside: data.titles.length ? ['books'] : [],
  });
}

// Whether a run reads a book whose title or author holds the text, looked up for all sequences at once.
function readers(part) {
  const runs = allRuns(), hits = new Set();
  data.titles.forEach((title, place) => { if (title.toLocaleLowerCase().includes(part)) hits.add(place); });
  if (!hits.size) return () => false;
  const {width} = runs.sequences, bytes = runs.sequenceData ??= fromBase64(runs.sequences.data);
  const has = new Uint8Array(runs.sequences.n), marked = new Uint8Array(data.titles.length + 1);
  hits.forEach((place) => { marked[place] = 1; });
  for (let s = 0; s < has.length; s++) {
    for (let k = runs.starts[s]; k < runs.starts[s + 1] && !has[s]; k++) {
      let place = bytes[k * width];
      if (width > 1) place += 256 * bytes[k * width + 1];
      if (width > 2) place += 65536 * bytes[k * width + 2];
      if (marked[place]) has[s] = 1;
    }
  }
  return (row) => { const sequence = runValue(row.index, 'sequence'); return sequence !== null && has[sequence] === 1; };
}

function pickBox(row) {
  const box = element('input', {type: 'checkbox', class: 'pick', 'data-pick': row.run, 'aria-label': word('js.pick', {run: row.run})});
  box.checked = picked.includes(row.run);
  box.addEventListener('change', () => pick(row.run, box.checked));
  return box;
}

// Two at most: a third takes the place of the first.
function pick(run, on) {
  picked = picked.filter((other) => other !== run);
  if (on) picked = [...picked, run].slice(-2);
  document.querySelectorAll('input.pick').forEach((box) => { box.checked = picked.includes(box.dataset.pick); });
  document.querySelectorAll('.pick-bar').forEach((bar) => bar.replaceChildren(...pickParts()));
}

function pickBar() {
  return element('div', {class: 'pick-bar', 'aria-live': 'polite'}, ...pickParts());
}

function pickParts() {
  if (!picked.length) return [element('span', {text: word('js.pick_two')})];
  const parts = [element('span', {text: word('js.picked', {list: picked.map((run) => run.slice(0, 8)).join(', ')})})];
  if (picked.length === 2) parts.push(element('a', {class: 'button', href: '#compare=' + picked.join(','), text: word('js.compare')}));
  parts.push(element('button', {type: 'button', text: word('js.clear'), onclick: () => { picked.slice().forEach((run) => pick(run, false)); }}));
  return parts;
}
