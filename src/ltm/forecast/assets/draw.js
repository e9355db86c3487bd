// Drawing: bars are boxes with widths, every colour has its words and number beside it.
const SOME_CARDS = 12;
let allCards = false;

function stackedBar(host, parts, scale, format, label, marker) {
  const shown = parts.filter((part) => part.value > 0);
  const bar = element('div', {class: 'bar', role: 'img', 'aria-label': label});
  const list = element('ul', {class: 'legend'});
  for (const part of shown) {
    const piece = element('span', {class: 'piece c' + part.place});
    piece.style.width = (100 * Math.min(1, part.value / scale)).toFixed(3) + '%';
    piece.title = part.name + ': ' + format(part.value);
    bar.append(piece);
    list.append(element('li', {}, element('span', {class: 'swatch c' + part.place, 'aria-hidden': 'true'}), element('span', {text: part.name}), element('b', {text: format(part.value)}), element('small', {text: formatPercent(part.share)})));
  }
  const frame = element('div', {class: 'barframe'}, bar);
  if (marker) {
    const line = element('span', {class: 'marker', 'aria-hidden': 'true'}, element('span', {class: marker.value / scale > 0.6 ? 'left' : 'right', text: marker.text}));
    line.style.left = (100 * Math.min(1, marker.value / scale)).toFixed(3) + '%';
    frame.append(line);
    frame.classList.add('marked');
  }
  host.replaceChildren(frame, list);
}

function partsOf(values, keys, prefix) {
  const sum = keys.reduce((total, key) => total + values[key], 0);
  return {sum, parts: keys.map((key, place) => ({name: say(prefix + key), value: values[key], share: values[key] / sum, place}))};
}

function table(host, columns, rows, caption) {
  const head = element('tr', {}, ...columns.map((column) => element('th', {scope: 'col', class: column.words ? 'words' : 'number', text: say('col.' + column.key)})));
  const body = rows.map((row) => element('tr', {class: row.now ? 'now' : row.over ? 'over' : ''}, ...columns.map((column, i) => {
    const kind = column.words ? 'words' : 'number';
    return i ? element('td', {class: kind, text: row[column.key]}) : element('th', {scope: 'row', class: kind, text: row[column.key], 'aria-current': row.now ? 'true' : null});
  })));
  host.replaceChildren(element('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption},
    element('table', {}, element('caption', {class: 'unseen', text: caption}), element('thead', {}, head), element('tbody', {}, ...body))));
}

const COLUMNS = {
  cards: [{key: 'card', words: true}, {key: 'time'}, {key: 'range'}, {key: 'speed'}, {key: 'memory'}, {key: 'mfu'}, {key: 'cost'}],
  models: [{key: 'model', words: true}, {key: 'time'}, {key: 'range'}, {key: 'speed'}, {key: 'memory'}, {key: 'mfu'}, {key: 'cost'}],
  books: [{key: 'books', words: true}, {key: 'tokens'}, {key: 'time'}, {key: 'range'}, {key: 'training'}, {key: 'fixed'}, {key: 'energy'}, {key: 'cost'}],
  switches: [{key: 'change', words: true}, {key: 'speed'}, {key: 'times_speed'}, {key: 'memory'}, {key: 'times_memory'}],
  serving: [{key: 'weights', words: true}, {key: 'held'}, {key: 'reading'}, {key: 'writing'}, {key: 'first'}, {key: 'answer'}],
  claims: [{key: 'claim', words: true}, {key: 'claimed'}, {key: 'implied'}, {key: 'share'}, {key: 'forecast'}, {key: 'verdict', words: true}],
};

function cells(made) {
  const memory = formatBytes(made.memory.total) + (made.state === 'sure' ? '' : ' · ' + say('cell.' + made.state));
  if (made.refused) return {time: refusedText('cell.', made), range: '–', speed: '–', mfu: '–', cost: '–', energy: '–', training: '–', fixed: '–', tokens: formatCount(made.tokens.trained), memory, over: true};
  const bill = made.bill;
  return {
    time: formatSeconds(bill.seconds), range: range('seconds', bill.seconds, bill.seconds_low, bill.seconds_high),
    speed: formatCount(made.speed.useful_tokens_per_second), mfu: formatPercent(made.speed.mfu), cost: single('usd', bill.usd), energy: single('kwh', bill.kwh),
    training: formatSeconds(bill.training), fixed: formatSeconds(bill.fixed), tokens: formatCount(made.tokens.trained), memory, over: !made.fits,
  };
}

function drawHeadline(made) {
  const put = (id, text) => { document.getElementById(id).textContent = text; };
  const {bill, speed} = made;
  const times = range('seconds', bill.seconds, bill.seconds_low, bill.seconds_high);
  put('time', formatSeconds(bill.seconds));
  put('time-range', say('head.range', {range: times}));
  const reason = say('reason.prefix', {reason: say('reason.' + (bill.mostly_fixed ? 'mostly_fixed' : made.reason))});
  const fixedText = say('head.fixed', {training: formatSeconds(bill.training), fixed: formatSeconds(bill.fixed)});
  put('time-why', [fixedText, reason, made.fits ? '' : say('head.memory_note')].join(' '));
  const peak = nominal_peak(made.c, made.device) / 1e12;
  const tiles = [
    ['speed', rateText(formatCount(speed.useful_tokens_per_second)), range('count', speed.useful_tokens_per_second, speed.useful_tokens_per_second_low, speed.useful_tokens_per_second_high)],
    ['share', formatPercent(speed.mfu), say('tile.share_note', {peak: significant(peak, 4)})],
    ['memory', formatBytes(made.memory.total), range('bytes', made.peak.total, made.peak.low, made.peak.high)],
    ['energy', single('kwh', bill.kwh), range('kwh', bill.kwh, bill.kwh_low, bill.kwh_high)],
    ['cost', single('usd', bill.usd), say('tile.cost_note', {range: range('usd', bill.usd, bill.usd_low, bill.usd_high)})],
    ['steps', formatCount(Math.max(1, Math.round(made.tokens.worked / made.step.step_tokens))), say('tile.steps_note', {micro: made.micro_batch, length: fixed(made.c.seq_len, 0), n: fixed(layout(made.c).micro_steps, 0)})],
  ];
  document.getElementById('tiles').replaceChildren(...tiles.map(([key, value, note]) =>
    element('div', {id: 'tile-' + key}, element('dt', {text: say('tile.' + key)}), element('dd', {class: 'value', text: value}), element('dd', {class: 'hint', text: note}))));
  put('mini', formatSeconds(bill.seconds) + ' · ' + formatBytes(made.memory.total) + ' · ' + say('spoken.' + made.state));
}

function drawStep(made) {
  const {sum, parts} = partsOf(made.step, TIME_PARTS, 'part.');
  const label = say('step.bar', {parts: parts.filter((p) => p.value > 0).map((p) => p.name + ' ' + formatPercent(p.share)).join(', ')});
  document.getElementById('limited').textContent = say('step.limited', {what: say('limit.' + made.limited_by), tokens: formatCount(made.step.step_tokens), seconds: formatSeconds(made.step.total)});
  const host = document.getElementById('step-bar');
  stackedBar(host, parts, sum, formatSeconds, label);
  host.append(element('p', {class: 'note', text: say('step.note', {sum: formatSeconds(sum), total: formatSeconds(made.step.total)})}));
}

function drawMemory(made) {
  const {parts} = partsOf(made.memory, MEMORY_PARTS, 'mem.');
  const card = made.device.memory_bytes, total = formatBytes(card);
  const label = say('memory.bar', {total, parts: parts.filter((p) => p.value > 0).map((p) => p.name + ' ' + formatBytes(p.value)).join(', ')});
  const said = document.getElementById('fits');
  const key = card > 0 ? made.state : 'unknown';
  said.textContent = say('memory.' + key, {used: formatBytes(made.memory.total), total, range: range('bytes', made.peak.total, made.peak.low, made.peak.high)});
  said.className = 'lead ' + made.state;
  stackedBar(document.getElementById('memory-bar'), parts, Math.max(card, made.memory.total), formatBytes, label, card > 0 ? {value: card, text: say('memory.card', {total})} : null);
  drawChanges(made);
}

function drawChanges(made) {
  const host = document.getElementById('changes');
  if (made.state === 'sure' || made.state === 'likely') return host.replaceChildren();
  const ways = waysToFit(made.question);
  if (!ways.length) return host.replaceChildren(element('p', {class: 'note', text: say('change.none')}));
  host.replaceChildren(element('p', {class: 'note', text: say('change.title')}), element('ul', {class: 'ways'}, ...ways.map((way) =>
    element('li', {}, element('button', {type: 'button', text: say('change.' + way.name, way.values), onclick: () => ask(way.change)}),
      element('span', {text: say('change.result', {memory: formatBytes(way.made.memory.total), time: formatSeconds(way.made.bill.seconds)})})))));
}

function drawSwitches(made) {
  const host = document.getElementById('switches');
  host.hidden = Boolean(made.refused);
  if (made.refused) return;
  const rows = switches(made).map(({key, word, made: other}) => ({
    ...cells(other), change: say('field.' + key) + ': ' + say(`choice.${key}.${word}`),
    times_speed: single('times', other.speed.tokens_per_second / made.speed.tokens_per_second),
    times_memory: single('times', other.memory.total / made.memory.total),
  }));
  table(document.getElementById('switches-table'), COLUMNS.switches, rows, say('switches.title'));
}

// The card, and what had to be replaced on it.
function cardText(device, made, other) {
  const changed = ['precision', 'attention'].filter((key) => made.question[key] !== other.question[key]);
  return changed.length ? device.name + ' (' + changed.map((key) => say(`choice.${key}.${other.question[key]}`)).join(', ') + ')' : device.name;
}

function drawCards(made) {
  const all = data.devices.map((device) => ({device, made: device === made.device ? made : answer(asFor(made.question, device), device)}));
  const rank = ({made: m}) => (m.refused ? Infinity : m.bill.seconds) + (m.fits ? 0 : 1e15);
  all.sort((a, b) => rank(a) - rank(b));
  const few = all.filter(({device}, i) => i < SOME_CARDS || device === made.device);
  const rows = (allCards ? all : few).map(({device, made: other}) => ({card: cardText(device, made, other), ...cells(other), now: device === made.device}));
  const host = document.getElementById('cards-table');
  const focused = host.contains(document.activeElement) && document.activeElement.id === 'all-cards';
  table(host, COLUMNS.cards, rows, say('cards.title'));
  host.append(element('button', {type: 'button', id: 'all-cards', 'aria-expanded': String(allCards), text: say(allCards ? 'cards.less' : 'cards.more', {n: all.length}),
    onclick: () => { allCards = !allCards; drawCards(made); }}));
  if (focused) document.getElementById('all-cards').focus();
}

function drawModels(made) {
  const rows = data.table_models.map((id) => ({model: shapes.get(id).name, ...cells(answer(made.question, made.device, shapes.get(id)))}));
  document.getElementById('models-note').textContent = say('models.note', {n: fixed(made.c.n_devices, 0), card: made.device.name});
  table(document.getElementById('models-table'), COLUMNS.models, rows, say('models.title'));
}

function bookQuestion(books) {
  const own = question.data === 'books';
  return withChange(question, {data: 'books', books, pages: own ? question.pages : data.book_pages, epochs: own ? question.epochs : data.book_epochs});
}

function drawBooks(made) {
  const rows = data.table_books.map((books) => ({books: fixed(books, 0), ...cells(answer(bookQuestion(books)))}));
  const {pages, epochs} = bookQuestion(1);
  document.getElementById('books-note').textContent = say('books.note', {model: modelText(), n: fixed(made.c.n_devices, 0), card: made.device.name, pages: fixed(pages, 0), epochs: digits(epochs)});
  table(document.getElementById('books-table'), COLUMNS.books, rows, say('books.title'));
}

function drawServing(made) {
  const rows = serving(made).map((one) => {
    const rate = (value, factor) => formatCount(value) + ' (' + range('count', value, value / factor, value * factor) + ')';
    const wait = (value, factor) => formatSeconds(value) + ' (' + range('seconds', value, value / factor, value * factor) + ')';
    return {
      weights: say('quant.' + one.quant), held: formatBytes(one.memory.total) + (one.fits ? '' : ' · ' + say('cell.over')), over: !one.fits,
      reading: rate(one.prefill, one.prefill_factor), writing: rate(one.decode, one.decode_factor),
      first: wait(one.first_token_seconds, one.prefill_factor), answer: wait(one.answer_seconds, one.answer_factor),
    };
  });
  const {context, prompt, answer: written} = data.serving;
  document.getElementById('serving-note').textContent = say('serving.note', {model: modelText(), n: fixed(made.c.n_devices, 0), card: made.device.name,
    context: fixed(context, 0), prompt: fixed(prompt, 0), written: fixed(written, 0)});
  table(document.getElementById('serving-table'), COLUMNS.serving, rows, say('serving.title'));
}

function refusedText(prefix, made) {
  const {key, word, instead, by} = made.refused;
  return say(prefix + by, {card: made.device.name, method: say('choice.method.' + made.question.method), word: say(`choice.${key}.${word}`), instead: say(`choice.${key}.${instead}`)});
}

function verdictText({verdict, ratios, slow}) {
  return say('verdict.' + verdict, {ratio: span('times', Math.min(...ratios), Math.max(...ratios)), products: formatPercent(slow.products)});
}

function drawClaim(made) {
  const host = document.getElementById('claim-verdict');
  if (!(question.claim_hours > 0) || made.refused) { host.textContent = say('claims.empty'); host.className = 'verdict note'; return; }
  const judged = judgeClaim(made, question.claim_hours * 3600, question.claim_hours * 3600);
  const {tokens_per_second: rate, share} = judged.slow;
  const implied = say('claims.implied', {hours: digits(question.claim_hours), rate: rateText(formatCount(rate)), share: formatPercent(share)});
  host.replaceChildren(implied + ' ', element('b', {text: verdictText(judged)}));
  host.className = 'verdict ' + judged.verdict;
}

function rateText(count) {
  return say('number.tokens_s', {value: count});
}

function span(kind, low, high) {
  return low === high ? single(kind, low) : range(kind, high, low, high);
}

function drawClaims() {
  const rows = data.claims.map((claim) => {
    const asked = {...data.defaults, ...claim.state}, made = answer(asked);
    const [low, high] = [claim.low * 3600, claim.high * 3600], judged = judgeClaim(made, low, high), {fast, slow} = judged;
    return {
      claim: say('claims.row.' + asked.data, {model: shapeOf(asked).name, tokens: formatCount(asked.tokens), books: fixed(asked.books, 0)}),
      claimed: span('seconds', low, high), implied: rateText(span('count', slow.tokens_per_second, fast.tokens_per_second)), share: span('share', slow.share, fast.share),
      forecast: formatSeconds(made.bill.seconds) + ' (' + range('seconds', made.bill.seconds, made.bill.seconds_low, made.bill.seconds_high) + ')',
      verdict: verdictText(judged),
    };
  });
  document.getElementById('claims-note').textContent = say('claims.card', {card: data.claims[0].state.gpu});
  table(document.getElementById('claims-table'), COLUMNS.claims, rows, say('claims.examples'));
}
