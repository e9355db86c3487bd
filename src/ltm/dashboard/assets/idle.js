// When nothing happens, the charts and the leaderboard that nobody has scrolled to yet are drawn, for paper and pictures of
// the whole page. On a page of very many rows, chapters far from the screen are skipped by the browser while the reader
// acts, so that every click is answered at once, and laid out again one by one afterwards; they keep their heights.
const CALM_MS = 400;
const MANY_ROWS = 5e5; // characters of the rows of runs: about a thousand runs
const isLarge = document.getElementById('runs').textContent.length > MANY_ROWS;
let calm = 0;

const whenIdle = window.requestIdleCallback || ((then) => setTimeout(then, 50));

function hurry() {
  if (isLarge) {
    chapters.classList.add('quick');
    for (const section of chapters.querySelectorAll('section.shown')) section.classList.remove('shown');
  }
  settleSoon();
}

function settleSoon() {
  clearTimeout(calm);
  calm = setTimeout(() => settle(calm), CALM_MS);
}

function settle(turn) {
  const section = chapters.querySelector(':scope > section:not(.shown)');
  if (turn !== calm || chapters.inert) return; // the reader acts again, or looks at a run
  if (section && chapters.classList.contains('quick')) {
    section.classList.add('shown');
    whenIdle(() => settle(turn));
    return;
  }
  hurryIsOver();
  const board = chapters.querySelector('[data-figure="board"]');
  if (board && !figures.has('board') && !isLarge) {
    boardWatcher.unobserve(board);
    setUp(board);
  }
  const entry = [...figures.values()].find(({state, figure}) => state.old || (figure.spec && state.stale && state.mode === 'chart'));
  if (!entry) return;
  whenIdle(async () => {
    if (turn !== calm || isAway(entry)) return;
    if (entry.state.old) entry.show();
    if (entry.state.stale && entry.state.mode === 'chart') await drawNow(entry);
    settle(turn);
  });
}

function hurryIsOver() {
  chapters.classList.remove('quick');
  for (const section of chapters.querySelectorAll('section.shown')) section.classList.remove('shown');
}
