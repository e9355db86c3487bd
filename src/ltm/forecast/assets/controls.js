// Controls: one description per field; each is labelled, reachable by keyboard and kept in the link.
let question = {...data.defaults};
const fields = new Map(); // key -> function that shows the question's value
const NICE = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8];

function clamp(key, value) {
  const [least, most] = data.limits[key];
  return Math.min(most, Math.max(least, value));
}

function stepsBetween(least, most, powers) { // what a slider goes through, with both ends
  const values = [];
  if (powers) for (let value = least; value <= most; value *= 2) values.push(value);
  else {
    for (let size = 10 ** Math.floor(Math.log10(least)); size <= most; size *= 10) {
      for (const nice of NICE) values.push(Number((nice * size).toPrecision(3)));
    }
  }
  return values.filter((value) => value >= least && value <= most);
}

function nearest(values, value) {
  let best = 0;
  values.forEach((candidate, i) => {
    if (Math.abs(Math.log((candidate + 1e-9) / (value + 1e-9))) < Math.abs(Math.log((values[best] + 1e-9) / (value + 1e-9)))) best = i;
  });
  return best;
}

function labelled(key, control, ...more) {
  control.id = 'field-' + key;
  return element('div', {class: 'field', id: 'row-' + key}, element('label', {for: control.id, 'data-word': 'field.' + key}), control, ...more);
}

// A number that may be typed (10B, 0.2) or dragged.
// `usual` gives the value that 0, "left open", stands for.
function sliderField(key, values, format = formatCount, usual = null) {
  const text = element('input', {type: 'text', inputmode: 'text', size: 9, spellcheck: 'false'});
  const slider = element('input', {type: 'range', min: 0, max: values.length - 1, step: 1, 'data-name': key});
  const read = () => {
    const value = parseCount(text.value);
    text.setAttribute('aria-invalid', String(!Number.isFinite(value)));
    if (Number.isFinite(value)) ask({[key]: clamp(key, value)});
  };
  text.addEventListener('change', read);
  slider.addEventListener('input', () => ask({[key]: values[Number(slider.value)]}));
  fields.set(key, () => {
    const value = question[key] || (usual ? usual() : 0);
    text.value = format(value);
    text.setAttribute('aria-invalid', 'false');
    slider.value = String(nearest(values, value));
    slider.setAttribute('aria-valuetext', format(value));
    slider.setAttribute('aria-label', say('slider', {field: say('field.' + key)}));
  });
  return labelled(key, text, slider);
}

function numberField(key, get, set, format = (value) => fixed(value, 0)) {
  const text = element('input', {type: 'text', inputmode: 'decimal', size: 9, spellcheck: 'false'});
  text.addEventListener('change', () => {
    const value = parseCount(text.value);
    text.setAttribute('aria-invalid', String(!Number.isFinite(value)));
    if (Number.isFinite(value)) set(value);
  });
  fields.set(key, () => { text.value = format(get()); text.setAttribute('aria-invalid', 'false'); });
  return labelled(key, text);
}

function wholeField(key) {
  return numberField(key, () => question[key], (value) => ask({[key]: clamp(key, Math.round(value))}));
}

function choiceField(key, words = data.choices[key], change = (word) => ({[key]: word})) {
  const select = element('select', {});
  select.addEventListener('change', () => ask(change(typeof question[key] === 'number' ? Number(select.value) : select.value)));
  fields.set(key, () => {
    const options = words.includes(question[key]) ? words : [...words, question[key]].sort((a, b) => a - b);
    select.replaceChildren(...options.map((word) => {
      const text = data.words[language][`choice.${key}.${word}`] ?? fixed(word, 0);
      return element('option', {value: word, selected: word === question[key], text});
    }));
  });
  return labelled(key, select);
}

function checkField(key, get, set) {
  const box = element('input', {type: 'checkbox', id: 'field-' + key});
  box.addEventListener('change', () => set(box.checked));
  fields.set(key, () => { box.checked = Boolean(get()); });
  return element('div', {class: 'field check', id: 'row-' + key}, box, element('label', {for: box.id, 'data-word': 'field.' + key}));
}

// A list to search: type to narrow it, arrows and Enter to choose, Escape to leave it.
function searchField(key, options, current, pick) {
  const input = element('input', {type: 'text', role: 'combobox', 'aria-autocomplete': 'list', 'aria-expanded': 'false', 'aria-controls': 'list-' + key, spellcheck: 'false'});
  const list = element('ul', {role: 'listbox', id: 'list-' + key, hidden: true, tabindex: '-1'});
  let shown = [], active = -1;
  const close = () => {
    list.hidden = true;
    input.setAttribute('aria-expanded', 'false');
    input.removeAttribute('aria-activedescendant');
    input.value = current();
  };
  const choose = (option) => { pick(option); close(); };
  const mark = (place) => {
    active = Math.max(0, Math.min(shown.length - 1, place));
    [...list.children].forEach((item, i) => item.setAttribute('aria-selected', String(i === active)));
    const item = list.children[active];
    if (!item) return input.removeAttribute('aria-activedescendant');
    input.setAttribute('aria-activedescendant', item.id);
    item.scrollIntoView({block: 'nearest'});
  };
  const open = (query) => {
    const parts = query.toLowerCase().split(/\s+/).filter(Boolean);
    shown = options.filter((option) => parts.every((part) => (option.text + ' ' + option.more()).toLowerCase().includes(part)));
    list.replaceChildren(...shown.map((option, i) => {
      const item = element('li', {role: 'option', id: `list-${key}-${i}`}, element('span', {text: option.text}), element('small', {text: option.more()}));
      item.addEventListener('mousedown', (event) => { event.preventDefault(); choose(option); });
      return item;
    }));
    list.hidden = shown.length === 0;
    input.setAttribute('aria-expanded', String(shown.length > 0));
    mark(query ? 0 : shown.findIndex((option) => option.text === current()));
  };
  input.addEventListener('focus', () => input.select());
  input.addEventListener('mousedown', () => { if (list.hidden) open(''); });
  input.addEventListener('input', () => open(input.value));
  input.addEventListener('blur', close);
  input.addEventListener('keydown', (event) => {
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      event.preventDefault();
      if (list.hidden) open('');
      else mark(active + (event.key === 'ArrowDown' ? 1 : -1));
    } else if (event.key === 'Enter') {
      event.preventDefault();
      if (!list.hidden && shown[active]) choose(shown[active]);
    } else if (event.key === 'Escape') close();
  });
  fields.set(key, () => { if (document.activeElement !== input || list.hidden) input.value = current(); });
  return labelled(key, input, list);
}

function group(key, ...children) {
  return element('fieldset', {id: 'group-' + key}, element('legend', {'data-word': 'group.' + key}), ...children);
}

function folded(key, ...children) {
  return element('details', {id: 'group-' + key}, element('summary', {'data-word': 'group.' + key}), ...children);
}

const modelText = () => (question.shape ? say('choice.custom') : shapeOf(question).name);

function ownShape(values) {
  return {id: 'custom', name: 'custom', ...Object.fromEntries(data.shape_fields.map((field, i) => [field, values[i]]))};
}

function changeShape(name, value) {
  const shape = {...shapeOf(question), [name]: value, n_params: 0};
  ask({shape: ownShape(data.shape_fields.map((field) => shape[field]))});
}

function modelGroup() {
  const sized = data.shapes.filter((shape) => shape.group === 'size');
  const slider = element('input', {type: 'range', min: 0, max: sized.length - 1, step: 1, id: 'field-size', 'data-name': 'size'});
  slider.addEventListener('input', () => ask({model: sized[Number(slider.value)].id, shape: null, seq_len: 0}));
  fields.set('size', () => {
    const count = parameters(caseOf(numbersOf(question), shapeOf(question))).total;
    slider.value = String(nearest(sized.map((shape) => shape.parameters), count));
    slider.setAttribute('aria-valuetext', formatCount(count));
    document.getElementById('size-text').textContent = formatCount(count);
  });
  const options = data.shapes.map((shape) => ({text: shape.name, id: shape.id, more: () => say('model.group.' + shape.group) + ' · ' + formatCount(shape.parameters)}));
  const size = element('div', {class: 'field', id: 'row-size'}, element('label', {for: 'field-size', 'data-word': 'field.size'}), element('output', {id: 'size-text', for: 'field-size'}), slider);
  const inner = ['n_layer', 'n_embd', 'n_head', 'n_kv_head', 'head_size', 'n_hidden', 'vocab_size', 'window'].map((name) =>
    numberField(name, () => shapeOf(question)[name], (value) => changeShape(name, Math.round(Math.min(1e7, Math.max(name === 'window' ? 0 : 1, value))))));
  const flags = ['gated', 'tied', 'learned_positions'].map((name) => checkField(name, () => shapeOf(question)[name], (on) => changeShape(name, Number(on))));
  return group('model', searchField('model', options, modelText, (option) => ask({model: option.id, shape: null, seq_len: 0})), size, folded('shape', ...inner, ...flags));
}

function machineGroup() {
  const options = data.devices.map((device) => ({
    text: device.name,
    more: () => say('sheet', {memory: formatBytes(device.memory_bytes), bandwidth: fixed(device.bandwidth / 1e9, 0), peak: significant(device.peak_flops / 1e12, 3)}),
  }));
  return group('machine',
    searchField('gpu', options, () => deviceOf(question).name, (option) => ask({gpu: option.text})),
    element('p', {class: 'hint', id: 'sheet'}),
    sliderField('n_devices', stepsBetween(1, 1024, true)), choiceField('sharding'),
    folded('more', wholeField('devices_per_node'), wholeField('tp'), wholeField('pp'),
      numberField('node_gbit', () => question.node_gbit || deviceOf(question).node_link / 1.25e8, (v) => ask({node_gbit: clamp('node_gbit', v)}))));
}

function dataGroup() {
  return group('data', choiceField('data'), sliderField('tokens', stepsBetween(1e6, 1e13)), sliderField('books', stepsBetween(1, 1e6)),
    sliderField('pages', stepsBetween(10, 2000)), sliderField('epochs', [1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100]),
    sliderField('packing', [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1], digits));
}

function buildControls() {
  const methods = (word) => ({method: word, start: word === 'full' ? 'scratch' : 'continued', kernels: word === 'full' ? 'compiled' : 'plain'});
  const usual = (key) => () => numbersOf(question)[key];
  const micro = [0, ...stepsBetween(1, 1024, true)];
  document.getElementById('controls').append(
    modelGroup(), dataGroup(), machineGroup(),
    group('method', choiceField('method', data.choices.method, methods), sliderField('lora_rank', stepsBetween(1, 512, true)), choiceField('start'),
      choiceField('precision'), choiceField('attention'), choiceField('kernels'), choiceField('checkpointing'), choiceField('optimizer'), choiceField('loop')),
    group('batch', choiceField('micro_batch', micro), sliderField('batch_tokens', stepsBetween(1024, 16777216, true), formatCount, usual('batch_tokens')),
      sliderField('seq_len', stepsBetween(64, 131072, true), (value) => fixed(value, 0), usual('seq_len'))),
    group('money', sliderField('usd_per_hour', [0, ...stepsBetween(0.1, 20)], digits), sliderField('usd_per_kwh', [0, ...stepsBetween(0.02, 2)], digits),
      numberField('watts', () => question.watts, (v) => ask({watts: clamp('watts', v)}))));
  document.getElementById('controls').addEventListener('submit', (event) => event.preventDefault());
  document.getElementById('claim-form').append(numberField('claim_hours', () => question.claim_hours, (v) => ask({claim_hours: clamp('claim_hours', v)}), digits));
}

function showControls() {
  for (const show of fields.values()) show();
  const hide = (key, hidden) => { document.getElementById('row-' + key).hidden = hidden; };
  hide('tokens', question.data !== 'tokens');
  hide('books', question.data !== 'books');
  hide('pages', question.data !== 'books');
  hide('lora_rank', question.method === 'full');
  hide('sharding', question.n_devices <= 1);
  const device = deviceOf(question);
  document.getElementById('sheet').textContent = say('sheet', {memory: formatBytes(device.memory_bytes), bandwidth: fixed(device.bandwidth / 1e9, 0), peak: significant(device.peak_flops / 1e12, 3)});
}
