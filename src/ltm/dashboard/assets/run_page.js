// The page of one run: where it stands and how sure, its books in order with gaps, its curve, its scores, its origin.
function standing(i) {
  const place = runValue(i, 'place');
  if (place === null) return word('run.unranked');
  const values = {place, posterior: signed(runValue(i, 'posterior')), low: signed(runValue(i, 'low')), high: signed(runValue(i, 'high')), unit: unitWord()};
  return word('run.standing', values) + ' ' + word(place === 1 ? 'run.first' : runValue(i, 'tied') === 'tied' ? 'run.tied' : 'run.behind');
}

function scoreRows(i) {
  return scoresOf(i).map((score) => {
    const usable = score.value !== null && score.mean !== null && score.seed_sd > 0;
    const estimate = usable ? (score.value - score.mean) / score.seed_sd : null;
    const half = usable && score.half_width ? score.half_width / score.seed_sd : null;
    return {
      label: score.family, ability: score.ability, estimate, low: half === null ? null : estimate - half, high: half === null ? null : estimate + half,
      value: score.value, chance: score.chance, accuracy: score.accuracy, gate: score.admitted ? 'admitted' : 'not_admitted', shown: half !== null,
    };
  });
}

function bookRows(i) {
  const {books, contributions} = allRuns(), density = runValue(i, 'density');
  return booksOf(i).map((place, k) => {
    const row = {order_place: k + 1, title: bookTitle(place), words: books.words[place] ?? null, kept: density};
    contributions.abilities.forEach((ability, a) => { row['ability.' + ability] = contributions.values[a][place] ?? null; });
    return row;
  });
}

// The books that are expected to lift and to lower the run most, in words.
function reasons(i) {
  const known = [...new Set(booksOf(i))].map((place) => ({place, value: contribution(place)})).filter(({value}) => value !== null);
  const named = (rows) => rows.slice(0, 5).map(({place, value}) => `\u2068${bookTitle(place)}\u2069 (${signed(value)})`).join('; ');
  const up = known.filter(({value}) => value > 0).sort((a, b) => b.value - a.value);
  const down = known.filter(({value}) => value < 0).sort((a, b) => a.value - b.value);
  return [up.length ? word('run.lifting', {list: named(up), unit: unitWord()}) : '', down.length ? word('run.lowering', {list: named(down)}) : ''].filter(Boolean);
}

function origin(i) {
  const runs = allRuns(), recipe = runs.recipes && runs.recipes[runs.columns.recipe[i]];
  const own = [['variant.order', runValue(i, 'order')], ['variant.gap_kind', runValue(i, 'gap_kind')], ['variant.density', runValue(i, 'density')],
    ['variant.spacing', runValue(i, 'spacing')], ['cuts', (runs.columns.cuts || [])[i]], ['init_seed', runValue(i, 'seed')]];
  return facts([...Object.entries(recipe || {}), ...own].map(([name, value]) => [name, value === null || value === undefined ? null : String(value)]));
}

function trainedFacts(i) {
  const at = (key, format) => { const value = runValue(i, key); return value === null || value === '' || value === 0 ? null : FORMATS[format](value); };
  const where = ['worker', 'device', 'dtype'].map((key) => runValue(i, key)).filter(Boolean).join(', ');
  return facts([
    [word('run.model'), runValue(i, 'model')], [word('run.size'), at('params', 'int')], [word('run.tokens'), at('tokens', 'int')], [word('run.steps'), at('steps', 'int')],
    [word('run.loss'), at('loss', 'num3')], [word('run.finished'), at('finished', 'moment')], [word('run.seconds'), at('seconds', 'duration')],
    [word('run.rate'), at('rate', 'int')], [word('run.mfu'), at('mfu', 'pct')], [word('run.where'), where + (runValue(i, 'compiled') ? ', ' + word('run.compiled') : '')],
    [word('run.machine'), runValue(i, 'hardware')], [word('run.versions'), runValue(i, 'versions')],
    [word('run.micro_batch'), at('micro_batch', 'int')], [word('run.weights'), runValue(i, 'weights')],
  ]);
}

function compareLinks(i) {
  const {seeds, block} = relatives(i), runs = allRuns(), id = runValue(i, 'run');
  const best = runs.columns.place.indexOf(1);
  const item = (k, text) => element('li', {}, element('a', {href: `#compare=${id},${runValue(k, 'run')}`, text}));
  const how = (k) => [termOf(k, 'order'), gapShort(k)].filter(Boolean).join(', ');
  const items = [
    ...(best >= 0 && best !== i ? [item(best, word('run.with_best', {run: runName(best)}))] : []),
    ...block.slice(0, 8).map((k) => item(k, word('run.with_block', {run: runName(k), how: how(k)}))),
    ...seeds.slice(0, 8).map((k) => item(k, word('run.with_seed', {run: runName(k)}))),
  ];
  return items.length ? [element('h3', {text: word('run.compare')}), element('ul', {}, ...items)] : [];
}

function gapShort(i) {
  const kind = runValue(i, 'gap_kind');
  return kind === null || kind === 'none' ? word('run.no_gaps') : termOf(i, 'gap_kind') + ' ' + FORMATS.pct(runValue(i, 'density'));
}

function curveFigure(name, title, members) {
  const rows = members.flatMap(([label, i]) => curveOf(i).map((point) => ({run: label, ...point})));
  return viewFigure(name, title, rows, {middle: middleCurves()});
}

function runPage(i) {
  const id = runValue(i, 'run'), parts = [element('h2', {text: word('run.title', {run: id})})], made = [];
  const add = (figure) => { parts.push(figure.holder); made.push(figure); };
  parts.push(backLink(), element('p', {class: 'lead', text: standing(i)}), ...reasons(i).map((text) => element('p', {text})));
  const scores = scoreRows(i);
  if (scores.length) add(viewFigure('run_scores', word('caption.run_scores'), scores));
  const books = booksOf(i);
  parts.push(element('h3', {text: word('run.books', {n: books.length})}), element('p', {text: [word('run.order', {order: termOf(i, 'order') ?? '\u2013'}), gapWords(i)].join(' ')}));
  if (books.length) {
    parts.push(band(i), element('p', {class: 'note', text: word('run.band_note')}));
    add(viewFigure('run_books', word('caption.run_books'), bookRows(i)));
  }
  if (curveOf(i).length) add(curveFigure('run_curve', word('caption.run_curve'), [[runName(i), i]]));
  parts.push(...compareLinks(i), element('h3', {text: word('run.trained')}), trainedFacts(i));
  parts.push(element('h3', {text: word('run.why')}), element('p', {text: word('run.why_id')}), origin(i), element('p', {class: 'note', text: word('run.why_more', {run: id})}));
  return {parts, figures: made};
}
