// For `ltm dashboard --live` alone: ask the server every two seconds, and put what changed in its place without moving
// the reader: drawings, open lists, choices, search texts, focus and the place on the screen stay.
const LIVE_SECONDS = 2;
const liveBar = document.getElementById('live');
let known = JSON.parse(liveBar.dataset.known);
let liveStatus = null, isLost = false, renewed = null;
const rawFigures = new Map(Object.entries(data.figures).map(([name, figure]) => [name, JSON.stringify([figure.table, figure.columns, figure.summary])]));

function liveParts() {
  const parts = [element('b', {text: word(isLost ? 'live.lost' : 'live.title')})];
  const status = liveStatus;
  const add = (text) => parts.push(element('span', {text}));
  if (isLost || !status || !status.runs) { if (!isLost) add(word(status && status.error ? 'live.trouble' : 'live.waiting')); return parts; }
  const runs = Object.entries(status.runs).filter(([, n]) => n).map(([state, n]) => number(n) + '\u00a0' + word('live.state.' + state));
  const done = Object.values(status.stages).every((state) => state === 'complete');
  add(done ? word('live.done') : status.paused ? word('live.paused') : status.working_on ? word('live.now', {stage: word('term.stage.' + status.working_on) ?? status.working_on}) : word('live.idle'));
  if (runs.length) add(word('live.runs', {list: runs.join(', ')}));
  if (status.rate && status.rate.runs_per_hour && !done) add(word('live.rate', {runs: FORMATS.int(status.rate.runs_per_hour), tokens: FORMATS.int(status.rate.tokens_per_second_per_worker)}));
  if (status.eta_seconds) add(word('live.left', {time: duration(status.eta_seconds), low: duration(status.eta_low), high: duration(status.eta_high)}));
  add(word('live.spent', {time: duration(status.elapsed_seconds), usd: number(status.cost_usd, TWO)}));
  if (renewed) add(word('live.renewed', {time: new Intl.DateTimeFormat(language, {timeStyle: 'medium'}).format(renewed)}));
  return parts;
}

function drawLive() {
  liveBar.className = isLost ? 'live lost' : 'live';
  liveBar.replaceChildren(...liveParts());
}

function parsed(html) {
  return new DOMParser().parseFromString('<!doctype html><body>' + html, 'text/html').body;
}

// What the reader looks at: the first figure on the screen, else the chapter; both are there afterwards, by their ids.
function anchor() {
  for (const places of ['[data-figure]', 'section']) {
    for (const place of chapters.querySelectorAll(places)) {
      const box = place.getBoundingClientRect();
      if (box.bottom > 60 && box.top < innerHeight && box.height) return {id: place.id, top: box.top};
    }
  }
  return null;
}

function focusKept() {
  const focused = document.activeElement;
  if (!focused || focused === document.body) return () => {};
  const range = 'selectionStart' in focused && focused.type === 'search' ? [focused.selectionStart, focused.selectionEnd] : null;
  return () => {
    if (!focused.isConnected || document.activeElement === focused) return;
    focused.focus({preventScroll: true});
    if (range) focused.setSelectionRange(...range);
  };
}

function listName(list) {
  return list.querySelector('summary').textContent;
}

// Put a chapter's new text in its place; figures that it still has stay as they are drawn.
function renewChapter(old, made) {
  const open = new Map([...old.querySelectorAll('details')].map((list) => [listName(list), list.open]));
  for (const list of made.querySelectorAll('details')) if (open.has(listName(list))) list.open = open.get(listName(list));
  for (const place of made.querySelectorAll('[data-figure]')) {
    const entry = figures.get(place.dataset.figure);
    if (!entry || !old.contains(entry.holder)) continue;
    const caption = place.querySelector('figcaption'), before = entry.holder.querySelector('figcaption');
    if (caption && before) before.replaceWith(caption);
    place.replaceWith(entry.holder);
  }
  forget(old);
  made.style.contentVisibility = 'visible'; // its height is needed at once, to keep the reader's place
  setTimeout(() => { made.style.contentVisibility = ''; }, 500);
  old.replaceWith(made);
  for (const place of made.querySelectorAll('[data-figure]')) {
    if (figures.has(place.dataset.figure)) continue;
    if (place.dataset.figure === 'board') boardWatcher.observe(place);
    else setUp(place);
  }
}

// Give a figure its new rows; a table that is being searched keeps its field.
function renewFigure(entry, fresh) {
  Object.assign(entry.figure, fresh, {rows: unpack(fresh.table), extra: Object.fromEntries(Object.entries(fresh.extra).map(([name, table]) => [name, unpack(table)]))});
  if (entry.figure.name === 'board') makeBoard(entry.figure);
  if (entry.figure.filter && !entry.figure.rows.some((row) => row[entry.figure.filter] === entry.state.choice)) entry.state.choice = firstChoice(entry.figure);
  data.figures[entry.figure.name] = entry.figure;
  const field = entry.holder.querySelector('input[type="search"]');
  if (field && field === document.activeElement && entry.redraw) { describe(entry); entry.redraw(); } else entry.show();
}

function renewFigures(hasRuns) {
  for (const [name, entry] of figures) {
    if (view.contains(entry.holder)) continue;
    const fresh = data.figures[name];
    if (!fresh || fresh === entry.figure) continue; // gone, or set up just now
    const raw = JSON.stringify([fresh.table, fresh.columns, fresh.summary]);
    if (rawFigures.get(name) !== raw || (name === 'board' && hasRuns)) {
      rawFigures.set(name, raw);
      renewFigure(entry, fresh);
    } else data.figures[name] = entry.figure;
  }
}

function renew(parts) {
  root.style.overflowAnchor = 'none'; // the browser would make up for the same movement a second time
  const before = view.hidden ? anchor() : null, again = focusKept();
  const opened = new Map([...view.querySelectorAll('details')].map((list) => [listName(list), list.open]));
  if (parts.runs !== undefined) { document.getElementById('runs').textContent = parts.runs; foundRuns = null; }
  if (parts.data !== undefined) data = JSON.parse(parts.data);
  if (parts.header !== undefined) document.querySelector('header').replaceChildren(...parsed(parts.header).childNodes);
  if (parts.banner !== undefined) document.getElementById('banner').replaceChildren(...parsed(parts.banner).childNodes);
  for (const [name, html] of Object.entries(parts)) {
    if (!name.startsWith('section.')) continue;
    const made = parsed(html).firstElementChild, old = document.getElementById(made.id);
    if (old) renewChapter(old, made);
    else chapters.append(made), setUpAll(made);
  }
  if (parts.data !== undefined || parts.runs !== undefined) renewFigures(parts.runs !== undefined);
  if (!view.hidden && (parts.runs !== undefined || parts.data !== undefined)) {
    const scrolled = scrollY;
    route('again');
    for (const list of view.querySelectorAll('details')) if (opened.has(listName(list))) list.open = opened.get(listName(list));
    scrollTo({top: scrolled, behavior: 'instant'});
  } else if (before && document.getElementById(before.id)) {
    scrollBy({top: document.getElementById(before.id).getBoundingClientRect().top - before.top, behavior: 'instant'});
  }
  root.style.overflowAnchor = '';
  again();
}

async function changes() {
  try {
    const answer = await fetch('/changes', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(known), cache: 'no-store'});
    return answer.ok ? await answer.json() : null;
  } catch {
    return null; // the server has ended
  }
}

async function ask() {
  const told = await changes();
  isLost = !told;
  if (told) {
    liveStatus = told.status;
    known = told.digests;
    if (Object.keys(told.parts).length) {
      renewed = Date.now();
      try {
        renew(told.parts);
      } catch (error) {
        console.error(error); // the next change comes all the same
      }
    }
  }
  drawLive();
  setTimeout(ask, LIVE_SECONDS * 1000);
}

new MutationObserver(drawLive).observe(root, {attributeFilter: ['lang']});
history.replaceState(history.state, '', location.pathname + location.hash); // the token need not stand in the address
drawLive();
ask();
