// Wire the page: the two languages, light and dark, the list of contents, the keyboard and the printer.
function setLanguage(code) {
  hurry();
  language = code;
  root.lang = code;
  root.dataset.language = code;
  for (const button of document.querySelectorAll('.top [data-language]')) button.setAttribute('aria-pressed', String(button.dataset.language === code));
  for (const entry of figures.values()) if (!view.contains(entry.holder)) showSoon(entry);
  if (!view.hidden) route('again');
}

function isDark() {
  return root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
}

function setTheme() {
  hurry();
  root.dataset.theme = isDark() ? 'light' : 'dark';
  redrawCharts();
}

function markContents() {
  let waiting = false;
  const mark = () => {
    waiting = false;
    if (chapters.inert) return;
    const sections = [...chapters.children];
    const read = sections.filter((section) => section.getBoundingClientRect().top < innerHeight * 0.35).pop() || sections[0];
    for (const link of document.querySelectorAll('nav a')) {
      if (read && link.hash.slice(1) === read.id) link.setAttribute('aria-current', 'true');
      else link.removeAttribute('aria-current');
    }
  };
  document.addEventListener('scroll', () => {
    if (!waiting) requestAnimationFrame(mark);
    waiting = true;
  }, {passive: true});
  mark();
}

// Arrows go from button to button of a group, and up and down the rows of the leaderboard.
function onArrow(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const step = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1}[event.key];
  if (!step) return;
  const sideways = event.key === 'ArrowLeft' || event.key === 'ArrowRight';
  const group = event.target.closest(sideways ? '.switch' : 'tbody');
  if (!group || !event.target.matches(sideways ? 'button' : 'a, input.pick')) return;
  const kind = sideways ? 'button' : event.target.tagName === 'A' ? 'a[data-run]' : 'input.pick';
  const all = [...group.querySelectorAll(kind)], next = all[all.indexOf(event.target) + step];
  if (next) { next.focus(); event.preventDefault(); }
}

function onEscape(event) {
  if (event.key !== 'Escape') return;
  tip.hidden = true;
  if (!view.hidden && !event.target.closest('input, select')) location.hash = '#sets';
}

// On paper: every chart in the light colours, as wide as the sheet, and every list open.
const PAPER_WIDTH = 660;
let before = null;

function toPaper() {
  if (before) return;
  before = {theme: root.dataset.theme, closed: [...document.querySelectorAll('main details:not([open])')]};
  root.dataset.theme = 'light';
  colours.clear();
  before.closed.forEach((list) => { if (!list.querySelector('pre')) list.open = true; });
  for (const entry of figures.values()) {
    if (entry.state.old) entry.show();
    if (!entry.figure.spec || entry.state.mode !== 'chart' || !entry.holder.offsetParent) continue;
    entry.state.width = PAPER_WIDTH;
    drawNow(entry);
  }
}

function fromPaper() {
  if (!before) return;
  if (before.theme) root.dataset.theme = before.theme;
  else delete root.dataset.theme;
  before.closed.forEach((list) => { list.open = false; });
  before = null;
  for (const entry of figures.values()) entry.state.width = 0;
  redrawCharts();
}

for (const button of document.querySelectorAll('.top [data-language]')) {
  button.addEventListener('click', () => setLanguage(button.dataset.language));
  button.setAttribute('aria-pressed', String(button.dataset.language === language));
}
document.getElementById('theme').addEventListener('click', setTheme);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redrawCharts);
document.addEventListener('scroll', () => { tip.hidden = true; }, {passive: true});
document.addEventListener('keydown', onArrow);
document.addEventListener('keydown', onEscape);
for (const kind of ['pointerdown', 'keydown', 'input', 'change', 'click']) document.addEventListener(kind, hurry, {capture: true, passive: true});
addEventListener('beforeprint', toPaper);
addEventListener('afterprint', fromPaper);
setUpAll(chapters);
markContents();
route();
settleSoon();
