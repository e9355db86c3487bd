// The rows of all runs, packed by column in an element of their own and unpacked when they are first asked for.
let foundRuns = null;

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

function sixteenBits(text) {
  return new Uint16Array(fromBase64(text).buffer); // written little-endian, as every machine with a browser is
}

function allRuns() {
  return foundRuns ??= readRuns(JSON.parse(document.getElementById('runs').textContent));
}

function readRuns(packed) {
  const runs = {...packed, at: null, sequenceData: null, codes: {}};
  runs.starts = [0];
  for (const length of packed.sequences.lengths) runs.starts.push(runs.starts[runs.starts.length - 1] + length);
  return runs;
}

// Where a run stands, by its id or a beginning of it that no other run has; -1 = nowhere.
function runIndex(id) {
  const runs = allRuns(), ids = runs.columns.run;
  runs.at ??= new Map(ids.map((run, i) => [run, i]));
  if (runs.at.has(id)) return runs.at.get(id);
  const found = /^[0-9a-f]{6,}$/.test(id) ? ids.map((run, i) => (run.startsWith(id) ? i : -1)).filter((i) => i >= 0) : [];
  return found.length === 1 ? found[0] : -1;
}

// One value of a run: its own, its variant's or its ability's; words come out of their dictionaries. null = unknown.
function runValue(i, key) {
  const runs = allRuns();
  if (key === 'tied') return runs.columns.tied[i] === null ? null : runs.columns.tied[i] ? 'tied' : 'behind';
  if (key.startsWith('ability.')) return (runs.by_ability[key.slice(8)] || [])[i] ?? null;
  if (key in runs.columns) return coded(runs.columns, runs.dictionaries, key, i);
  const at = runs.columns.variant[i];
  return at < 0 || !(key in runs.variants.columns) ? null : coded(runs.variants.columns, runs.variants.dictionaries, key, at);
}

function coded(columns, dictionaries, key, at) {
  return (dictionaries[key] ? dictionaries[key][columns[key][at]] : columns[key][at]) ?? null;
}

function sequenceEntries(sequence) {
  const {sequences, starts} = allRuns();
  const bytes = allRuns().sequenceData ??= fromBase64(sequences.data), width = sequences.width, missing = 256 ** width - 1;
  const found = [];
  for (let k = starts[sequence]; k < starts[sequence + 1]; k++) {
    let place = bytes[k * width];
    if (width > 1) place += 256 * bytes[k * width + 1];
    if (width > 2) place += 65536 * bytes[k * width + 2];
    found.push(place === missing ? -1 : place);
  }
  return found;
}

// The books of a run in training order, as places in the list of titles; -1 = a book that the library lost.
function booksOf(i) {
  const sequence = runValue(i, 'sequence');
  return sequence === null ? [] : sequenceEntries(sequence);
}

function bookTitle(place) {
  return data.titles[place] ?? word('run.lost_book');
}

// The score of a run in every item family, in seed sd around the mean of all runs, with the interval of one run.
function scoresOf(i) {
  const {scores} = allRuns(), n = scores.families.length;
  const values = runsBits('values'), right = runsBits('accuracies');
  return scores.families.map((family, f) => {
    const code = values[i * n + f], share = right[i * n + f];
    const value = code === 65535 || code === undefined ? null : scores.low[f] + scores.step[f] * code;
    return {...family, value, accuracy: share === 65535 || share === undefined ? null : share / 10000};
  });
}

function runsBits(name) {
  const runs = allRuns();
  return runs.codes[name] ??= sixteenBits(name === 'losses' ? runs.curves.losses : runs.scores[name]);
}

function curveOf(i) {
  const {curves} = allRuns(), row = curves.curve_of ? curves.curve_of[i] : i;
  if (row === undefined || row < 0) return [];
  const losses = runsBits('losses'), n = curves.tokens.length;
  return curves.tokens.map((tokens, p) => ({tokens, code: losses[row * n + p]})).filter(({code}) => code !== 65535)
    .map(({tokens, code}) => ({tokens, loss: curves.low + curves.step * code}));
}

// The middle half of the losses of all runs at each point, for a curve to be seen against.
function middleCurves() {
  const runs = allRuns(), {curves} = runs, n = curves.tokens.length;
  if (runs.middle) return runs.middle;
  const losses = runsBits('losses');
  runs.middle = curves.tokens.flatMap((tokens, p) => {
    const codes = new Uint16Array(curves.n);
    for (let row = 0; row < curves.n; row++) codes[row] = losses[row * n + p];
    codes.sort(); // the unknown (65535) come last
    let known = codes.length;
    while (known && codes[known - 1] === 65535) known--;
    if (known * 2 < codes.length) return [];
    const at = (share) => curves.low + curves.step * codes[Math.min(known - 1, Math.floor(share * known))];
    return [{tokens, low: at(0.25), high: at(0.75)}];
  });
  return runs.middle;
}

// Other runs that teach most beside this one: of the same training set, and of the same block.
function relatives(i) {
  const runs = allRuns(), variant = runs.columns.variant[i];
  if (variant < 0) return {seeds: [], block: []};
  const block = runs.variants.columns.block[variant], seeds = [], near = [];
  runs.columns.variant.forEach((other, k) => {
    if (k === i || other < 0) return;
    if (other === variant) seeds.push(k);
    else if (runs.variants.columns.block[other] === block) near.push(k);
  });
  return {seeds, block: near};
}
