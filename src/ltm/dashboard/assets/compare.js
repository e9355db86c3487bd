// Two runs side by side: which of them is ahead and how sure, what differs, which books they share, both curves.
const SQRT2 = Math.SQRT2;

function differenceRows(a, b) {
  const second = scoresOf(b);
  return scoresOf(a).map((one, f) => {
    const two = second[f];
    const usable = one.value !== null && two.value !== null && one.seed_sd > 0;
    const estimate = usable ? (one.value - two.value) / one.seed_sd : null;
    const half = usable && one.half_width ? SQRT2 * one.half_width / one.seed_sd : null; // two runs, two seeds
    const low = half === null ? null : estimate - half, high = half === null ? null : estimate + half;
    return {
      label: one.family, ability: one.ability, estimate, low, high, value_a: one.value, value_b: two.value, shown: half !== null,
      verdict: half === null || low <= 0 && high >= 0 ? 'unclear_pair' : estimate > 0 ? 'a_higher' : 'b_higher', gate: one.admitted ? 'admitted' : 'not_admitted',
    };
  });
}

function ahead(a, b) {
  if (runValue(a, 'variant') >= 0 && runValue(a, 'variant') === runValue(b, 'variant')) return word('compare.seeds');
  const [one, two] = [a, b].map((i) => ({value: runValue(i, 'posterior'), low: runValue(i, 'low'), high: runValue(i, 'high')}));
  if ([one.value, two.value, one.low, two.low, one.high, two.high].includes(null)) return word('compare.unranked');
  const estimate = one.value - two.value, half = Math.hypot((one.high - one.low) / 2, (two.high - two.low) / 2);
  const values = {first: runName(a), second: runName(b), estimate: signed(estimate), low: signed(estimate - half), high: signed(estimate + half), unit: unitWord()};
  return word(Math.abs(estimate) <= half ? 'compare.unclear' : estimate > 0 ? 'compare.first' : 'compare.second', values);
}

// The share of pairs of books that stand in the same order in both (1 - Kendall's distance), as `ltm why` has it.
function orderAgreement(one, two) {
  const place = new Map(two.map((book, i) => [book, i])), ranks = one.map((book) => place.get(book));
  const pairs = ranks.length * (ranks.length - 1) / 2;
  let same = 0;
  for (let i = 0; i < ranks.length; i++) for (let j = i + 1; j < ranks.length; j++) if (ranks[i] < ranks[j]) same++;
  return pairs ? same / pairs : 1;
}

function conditionRows(a, b) {
  const shown = (i) => ({
    order: termOf(i, 'order'), gap_kind: termOf(i, 'gap_kind'), density: runValue(i, 'density') === null ? null : FORMATS.pct(runValue(i, 'density')),
    spacing: runValue(i, 'spacing'), set: runValue(i, 'set'), round: termOf(i, 'round'), seed: runValue(i, 'seed'), model: runValue(i, 'model'),
    tokens: FORMATS.int(runValue(i, 'tokens')), loss: runValue(i, 'loss') === null ? null : FORMATS.num3(runValue(i, 'loss')),
    recipe: runValue(i, 'recipe'), hardware: runValue(i, 'hardware'), versions: runValue(i, 'versions'),
  });
  const one = shown(a), two = shown(b);
  const rows = Object.keys(one).map((key) => ({key, one: one[key], two: two[key], differs: String(one[key]) !== String(two[key])}));
  return rows.filter(({one, two}) => (one ?? '') !== '' || (two ?? '') !== '').sort((x, y) => y.differs - x.differs);
}

function conditionTable(a, b) {
  const cellOf = (value) => element('td', {class: 'words'}, element('bdi', {text: value ?? '\u2013'}));
  const head = element('tr', {}, element('th', {scope: 'col', class: 'words', text: word('compare.what')}),
    ...[a, b].map((i, k) => element('th', {scope: 'col', class: 'words'}, `${'AB'[k]} = `, runLink(i))), element('th', {scope: 'col', class: 'words', text: word('compare.same')}));
  const rows = conditionRows(a, b).map(({key, one, two, differs}) => element('tr', {'data-differs': String(differs)},
    element('th', {scope: 'row', class: 'words', text: columnWord(key)}), cellOf(one), cellOf(two), element('td', {class: 'words', text: word(differs ? 'compare.differs' : 'compare.equal')})));
  return element('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': word('compare.conditions')}, element('table', {}, element('thead', {}, head), element('tbody', {}, ...rows)));
}

function bookList(title, places) {
  const items = places.slice().sort((x, y) => x - y).map((place) => element('li', {}, element('bdi', {text: bookTitle(place)})));
  const list = element('details', {}, element('summary', {text: title}), element('ul', {class: 'books'}, ...items));
  list.open = places.length > 0 && places.length <= 12;
  return list;
}

function sharedBooks(a, b) {
  const one = booksOf(a), two = booksOf(b), inOne = new Set(one), inTwo = new Set(two);
  const common = one.filter((place) => inTwo.has(place)), commonTwo = two.filter((place) => inOne.has(place));
  const onlyOne = one.filter((place) => !inTwo.has(place)), onlyTwo = two.filter((place) => !inOne.has(place));
  const parts = [element('h3', {text: word('compare.books')}), element('p', {text: word('compare.shared', {n: common.length, one: onlyOne.length, two: onlyTwo.length})})];
  if (common.length > 1) {
    const agree = orderAgreement([...new Set(common)], [...new Set(commonTwo)]);
    parts.push(element('p', {text: agree === 1 ? word('compare.order_same') : word('compare.order', {share: FORMATS.pct(agree)})}));
  }
  const labelled = (name, i, other) => element('div', {class: 'band-row'}, element('span', {text: name}), band(i, other));
  parts.push(labelled('A', a, inTwo), labelled('B', b, inOne), element('p', {class: 'note', text: word('compare.band_note')}));
  if (onlyOne.length) parts.push(bookList(word('compare.only', {which: 'A', n: onlyOne.length}), onlyOne));
  if (onlyTwo.length) parts.push(bookList(word('compare.only', {which: 'B', n: onlyTwo.length}), onlyTwo));
  if (common.length) parts.push(bookList(word('compare.both', {n: common.length}), common));
  return parts;
}

function comparePage(a, b) {
  const parts = [element('h2', {text: word('compare.title', {first: runName(a), second: runName(b)})})], made = [];
  const add = (figure) => { parts.push(figure.holder); made.push(figure); };
  parts.push(backLink(), element('p', {class: 'lead', text: ahead(a, b)}));
  parts.push(element('p', {}, runLink(a, word('compare.open', {which: 'A', run: runName(a)})), ' \u00b7 ', runLink(b, word('compare.open', {which: 'B', run: runName(b)})), ' \u00b7 ',
    element('a', {href: `#compare=${runValue(b, 'run')},${runValue(a, 'run')}`, text: word('compare.swap')})));
  const rows = differenceRows(a, b);
  if (rows.length) add(viewFigure('compare_scores', word('caption.compare_scores'), rows));
  parts.push(element('h3', {text: word('compare.conditions')}), conditionTable(a, b));
  if (booksOf(a).length && booksOf(b).length) parts.push(...sharedBooks(a, b));
  if (curveOf(a).length || curveOf(b).length) add(curveFigure('compare_curve', word('caption.compare_curve'), [['A: ' + runName(a), a], ['B: ' + runName(b), b]]));
  return {parts, figures: made};
}
