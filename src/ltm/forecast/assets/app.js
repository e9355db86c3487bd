// Wire the page: a change asks a new question, the answer is drawn in the next frame, the link keeps the question.
let waiting = 0, saving = 0, speaking = 0, current = null;

function ask(change) {
  question = {...question, ...change};
  if (!waiting) waiting = requestAnimationFrame(update);
}

function askedText(made) {
  const q = made.question;
  const word = (key) => say(`choice.${key}.${q[key]}`);
  return say('asked.' + q.data, {
    model: modelText(), params: formatCount(parameters(made.c).total), tokens: formatCount(made.tokens.trained), books: formatCount(q.books), pages: fixed(q.pages, 0),
    epochs: digits(q.epochs), n: fixed(q.n_devices, 0), card: made.device.name, method: word('method'), precision: word('precision'),
  });
}

function showProblem(made) {
  const host = document.getElementById('problem');
  host.replaceChildren();
  const {n_head: heads, n_kv_head: kv} = made.shape;
  if (made.refused) {
    const {key, instead} = made.refused;
    host.append(refusedText('problem.', made) + ' ', element('button', {type: 'button', text: say('problem.use', {instead: say(`choice.${key}.${instead}`)}), onclick: () => ask({[key]: instead})}));
  } else if (heads % kv) host.append(say('problem.shape', {heads, kv}));
  host.hidden = !host.childNodes.length;
}

function update() {
  waiting = 0;
  const started = performance.now();
  const made = current = answer(question);
  showControls();
  document.getElementById('asked').textContent = askedText(made);
  showProblem(made);
  for (const id of ['headline', 'step']) document.getElementById(id).hidden = Boolean(made.refused);
  if (!made.refused) {
    drawHeadline(made);
    drawStep(made);
  } else document.getElementById('mini').textContent = refusedText('cell.', made);
  drawMemory(made);
  drawSwitches(made);
  drawCards(made);
  drawModels(made);
  drawBooks(made);
  drawServing(made);
  drawClaim(made);
  root.dataset.milliseconds = (performance.now() - started).toFixed(1);
  clearTimeout(saving);
  saving = setTimeout(save, 200);
  clearTimeout(speaking);
  speaking = setTimeout(speak, 700);
}

function speak() { // once the reader's hand rests, not at every step of a slider
  const made = current;
  if (made.refused) return;
  document.getElementById('spoken').textContent = say('spoken', {
    time: formatSeconds(made.bill.seconds), range: range('seconds', made.bill.seconds, made.bill.seconds_low, made.bill.seconds_high),
    memory: formatBytes(made.memory.total), fits: say('spoken.' + made.state),
  });
}

// The link holds what differs from what the page opens on, so that it reproduces the question.
function hashOf(asked) {
  const parts = new URLSearchParams();
  for (const [key, value] of Object.entries(asked)) {
    if (key !== 'shape' && value !== data.initial[key]) parts.set(key, String(value));
  }
  if (asked.shape) parts.set('shape', data.shape_fields.map((name) => asked.shape[name]).join(','));
  if (language !== data.language) parts.set('lang', language);
  return parts.toString();
}

function questionFrom(hash) {
  const found = {...data.initial};
  const given = new URLSearchParams(hash.replace(/^#/, ''));
  for (const [key, text] of given) {
    if (key in data.choices && data.choices[key].includes(text)) found[key] = text;
    else if (key in data.limits && Number.isFinite(Number(text)) && text !== '') found[key] = clamp(key, Number(text));
    else if (key === 'gpu' && devices.has(text)) found[key] = text;
    else if (key === 'model' && shapes.has(text)) found[key] = text;
    else if (key === 'shape') found.shape = shapeFrom(text);
  }
  const lang = given.get('lang');
  return {found, lang: lang in data.words ? lang : null};
}

function shapeFrom(text) {
  const values = text.split(',').map(Number);
  const counts = data.shape_fields.indexOf('gated');
  if (values.length !== data.shape_fields.length || values.some((v, i) => !Number.isFinite(v) || v < (i < counts ? 1 : 0) || v > 1e13)) return null;
  return ownShape(values);
}

function save() {
  const hash = hashOf(question);
  const wanted = hash ? '#' + hash : location.pathname + location.search;
  if (location.hash.replace(/^#/, '') !== hash) history.replaceState(null, '', wanted);
}

function setLanguage(code) {
  language = code;
  root.lang = code;
  document.title = say('page.title') + ' · ltm';
  for (const node of document.querySelectorAll('[data-word]')) node.textContent = say(node.dataset.word);
  for (const button of document.querySelectorAll('[data-language]')) button.setAttribute('aria-pressed', String(button.dataset.language === code));
  drawClaims();
  if (!waiting) waiting = requestAnimationFrame(update);
}

function setTheme() {
  const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset.theme = dark ? 'light' : 'dark';
}

async function copyLink(event) {
  save();
  const button = event.currentTarget;
  try {
    await navigator.clipboard.writeText(location.href);
    button.textContent = say('page.copied');
    setTimeout(() => { button.textContent = say('page.link'); }, 1500);
  } catch { // no right to the clipboard: the link stands in the address bar
    button.textContent = say('page.link');
  }
}

function load() {
  const {found, lang} = questionFrom(location.hash);
  question = found;
  setLanguage(lang || language);
}

buildControls();
for (const button of document.querySelectorAll('[data-language]')) button.addEventListener('click', () => setLanguage(button.dataset.language));
document.getElementById('theme').addEventListener('click', setTheme);
document.getElementById('link').addEventListener('click', copyLink);
document.getElementById('reset').addEventListener('click', () => ask({...data.initial}));
document.getElementById('skip').addEventListener('click', (event) => { event.preventDefault(); document.getElementById('answers').focus(); });
addEventListener('hashchange', load);
load();
// For readers who want to compute on, and for the tests: the page's own functions.
window.ltm = {...formulas, data, answer, serving, ask, caseOf, numbersOf, shapeOf, deviceOf, largestMicroBatch, judgeClaim, waysToFit, switches, hashOf,
  question: () => question, constants: K, devices, shapes};
