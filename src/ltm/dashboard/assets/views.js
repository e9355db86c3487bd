// What stands in place of the chapters while the address asks for it: one run (#run=ID) or two (#compare=A,B).
let cameFrom = 0; // where the reader stood in the chapters

function viewFigure(name, title, rows, extra) {
  const spec = data.views[name];
  const figure = {...spec, rows, extra: extra || {}, file: name};
  const holder = element('figure', {class: 'figure', id: 'figure-' + name, 'data-figure': name},
    element('figcaption', {}, element('h3', {text: title}), spec.subtitle ? element('p', {text: word(spec.subtitle)}) : null));
  return {holder, figure};
}

function facts(pairs) {
  const items = pairs.filter(([, value]) => value !== null && value !== undefined && value !== '');
  return element('dl', {class: 'conditions'}, ...items.flatMap(([name, value]) => [
    element('dt', {text: name}), element('dd', {}, value instanceof Node ? value : element('bdi', {text: value}))]));
}

function runName(i) {
  const place = runValue(i, 'place');
  return (place === null ? '' : place + ' \u00b7 ') + runValue(i, 'run').slice(0, 8);
}

function runLink(i, text) {
  return element('a', {href: '#run=' + runValue(i, 'run'), text: text ?? runName(i)});
}

function termOf(i, key) {
  const value = runValue(i, key);
  return value === null ? null : word('term.' + value) ?? String(value);
}

function signed(value) {
  return value === null || value === undefined ? '\u2013' : FORMATS.sign(value);
}

// How a run's text was read, in words.
function gapWords(i) {
  const kind = runValue(i, 'gap_kind');
  if (kind === null || kind === 'none') return word('run.whole');
  return word('run.gaps', {kind: termOf(i, 'gap_kind'), share: FORMATS.pct(runValue(i, 'density'))});
}

// The unit of sums over the abilities that sets are ranked by: seed or residual standard deviations, or both.
function unitWord() {
  const runs = allRuns(), names = Object.keys(runs.by_ability);
  const units = new Set((names.length ? names : Object.keys(runs.units)).map((name) => runs.units[name]).filter(Boolean));
  return word('run.unit.' + (units.size === 1 && (units.has('seed') || units.has('residual')) ? [...units][0] : 'both'));
}

// Mean over the abilities that sets are ranked by of what a book is expected to add; null where nothing is known of it.
function contribution(place) {
  const {contributions, by_ability: ranked} = allRuns();
  const counts = (ability) => !Object.keys(ranked).length || ability in ranked;
  const known = contributions.values.filter((_, a) => counts(contributions.abilities[a])).map((values) => values[place]).filter((value) => typeof value === 'number');
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

// The books of a run as a band: as wide as they are long, coloured by what they are expected to add.
function band(i, marked) {
  const {books} = allRuns(), places = booksOf(i);
  const most = Math.max(1e-9, ...places.map((place) => Math.abs(contribution(place) ?? 0)));
  const parts = places.map((place) => {
    const value = contribution(place);
    const part = element('span', {title: bookTitle(place), class: marked && !marked.has(place) ? 'other' : value === null ? 'none' : value > 0 ? 'up' : 'down'});
    part.style.flexGrow = String(Math.sqrt(books.tokens[place] ?? books.words[place] ?? 1));
    if (value !== null) part.style.opacity = String(0.25 + 0.75 * Math.abs(value) / most);
    return part;
  });
  return element('div', {class: 'band', role: 'img', 'aria-label': word('run.band', {n: places.length})}, ...parts);
}

function missing(id) {
  return [element('h2', {text: word('run.title', {run: id})}), element('p', {class: 'problem', text: word('run.unknown', {run: id})}), backLink()];
}

function backLink() {
  return element('p', {class: 'back'}, element('a', {href: '#sets', text: '\u2190 ' + word('run.back')}));
}

// Draw what the address asks for, or the chapters. `again` = the same view in another language or with newer rows.
function route(again) {
  hurry();
  const asked = decodeURIComponent(location.hash.slice(1));
  const [kind, value] = [asked.split('=')[0], asked.slice(asked.indexOf('=') + 1)];
  const isView = (kind === 'run' || kind === 'compare') && asked.includes('=');
  if (!isView) { closeView(asked); return; }
  if (view.hidden) cameFrom = scrollY;
  const scrolled = scrollY;
  forget(view);
  const ids = value.split(',').map((id) => id.trim()).filter(Boolean);
  const places = ids.map(runIndex);
  const lost = places.findIndex((place) => place < 0);
  let made;
  if (lost >= 0 || !ids.length) made = {parts: missing(ids[lost] ?? value), figures: []};
  else if (kind === 'compare' && ids.length === 2) made = comparePage(places[0], places[1]);
  else made = kind === 'run' && ids.length === 1 ? runPage(places[0]) : {parts: missing(value), figures: []};
  const heading = made.parts[0];
  heading.id = 'view-heading';
  heading.tabIndex = -1;
  view.replaceChildren(...made.parts);
  view.hidden = false;
  chapters.inert = true; // kept laid out, so that going back is quick
  root.dataset.view = kind;
  document.title = heading.textContent + ' \u00b7 ' + pageTitle;
  made.figures.forEach(({holder, figure}) => setUp(holder, figure));
  if (again) scrollTo(0, scrolled);
  else { heading.focus({preventScroll: true}); view.scrollIntoView(); }
}

function closeView(asked) {
  if (view.hidden) return;
  forget(view);
  view.replaceChildren();
  view.hidden = true;
  chapters.inert = false;
  delete root.dataset.view;
  document.title = pageTitle;
  const target = asked && document.getElementById(asked);
  const cameByBack = !target || asked === 'sets';
  if (cameByBack && cameFrom) scrollTo({top: cameFrom, behavior: 'instant'});
  else if (target) target.scrollIntoView();
}

const pageTitle = document.title;
addEventListener('hashchange', () => route());
