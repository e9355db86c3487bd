// Answers: what the transpiled formulas say of a question. Everything arithmetic stands in the formulas; here are choices only.
const {
  batch_of, bill_of, case_of, claimed, data_tokens, inference, inference_memory, layout, matmul_rate, memory_bytes, nominal_peak, parameters, peak_memory, rates,
  spread, step_seconds, sustained_rate,
} = formulas;
const K = data.constants;
const devices = new Map(data.devices.map((device) => [device.name, device]));
const shapes = new Map(data.shapes.map((shape) => [shape.id, shape]));
const TIME_PARTS = data.time_parts, MEMORY_PARTS = data.memory_parts;
const REASONS = data.reasons;

// The numbers of a question for a model on a card: codes in place of words, and what was left open filled in.
function numbersOf(question, shape = shapeOf(question), device = deviceOf(question)) {
  const numbers = {...question};
  for (const [key, words] of Object.entries(data.choices)) numbers[key] = words.indexOf(question[key]);
  numbers.checkpointing = data.checkpointing[question.checkpointing];
  numbers.continued = numbers.start;
  numbers.zero = numbers.sharding;
  numbers.in_books = numbers.data;
  numbers.seq_len = question.seq_len || shape.seq_len;
  numbers.node_link = question.node_gbit > 0 ? question.node_gbit * 1.25e8 : device.node_link;
  numbers.batch_tokens = batch_of(numbers, data_tokens(numbers).trained);
  return numbers;
}

function shapeOf(question) {
  return question.shape || shapes.get(question.model) || shapes.get(data.defaults.model);
}

function deviceOf(question) {
  return devices.get(question.gpu) || devices.get(data.defaults.gpu);
}

function caseOf(numbers, shape) {
  return {...data.case_defaults, ...case_of(numbers, shape)};
}

// Four steps of fitting, as Python says them: sure, likely in four of five cases, in half of them, not.
function fitting(device, peak) {
  const room = device.memory_bytes;
  if (room <= 0 || peak.high <= room) return 'sure';
  return peak.likely <= room ? 'likely' : peak.total <= room ? 'unlikely' : 'over';
}

// Numbers of sequences that make up a step of the optimizer in whole micro steps, largest first.
function microBatches(numbers) {
  const replicas = Math.max(1, numbers.n_devices / (numbers.tp * numbers.pp));
  const most = Math.max(1, Math.floor(numbers.batch_tokens / (numbers.seq_len * replicas) + 1e-9));
  const found = new Set();
  for (let n = 1; n * n <= most; n++) if (most % n === 0) found.add(n).add(most / n);
  for (let n = 1; n <= most; n *= 2) found.add(n);
  return [...found].filter((n) => Math.ceil(most / n) * n <= data.overshoot * most).sort((a, b) => b - a);
}

function largestMicroBatch(numbers, shape, device) {
  const good = (micro) => {
    if (device.micro_tokens && micro * numbers.seq_len > device.micro_tokens) return false; // more than its caches hold is not faster
    if (device.memory_bytes <= 0) return micro * numbers.seq_len <= 16384;
    const c = caseOf({...numbers, micro_batch: micro}, shape);
    if (memory_bytes(c, device, K).total > device.memory_bytes) return false; // the range costs more to compute
    return ['sure', 'likely'].includes(fitting(device, peak_memory(c, device, K)));
  };
  return microBatches(numbers).find(good) || 1;
}

function largestKey(values, keys) { // the first of equals, as Python's max
  return keys.reduce((best, key) => (values[key] > values[best] ? key : best), keys[0]);
}

// What a card or a method cannot do is refused, with what to do instead; otherwise null.
function refusal(question, device) {
  const {precision, attention, method} = question;
  const usable = ['bf16', 'fp16', 'fp32'].find((name) => device.precisions.includes(name)) || device.precision;
  if (!device.precisions.includes(precision)) return {key: 'precision', word: precision, instead: usable, by: 'card'};
  if (!device.attentions.includes(attention)) {
    return {key: 'attention', word: attention, instead: device.attentions.includes('flash') ? 'flash' : 'eager', by: 'card'};
  }
  const half = precision === 'bf16' || precision === 'fp16';
  const odd = method === 'qlora' ? !half : method === 'lora' && precision === 'fp8';
  if (odd && usable !== 'fp32') return {key: 'precision', word: precision, instead: usable, by: 'method'};
  return null;
}

function answer(question, device = deviceOf(question), shape = shapeOf(question)) {
  const numbers = numbersOf(question, shape, device);
  numbers.micro_batch = question.micro_batch || largestMicroBatch(numbers, shape, device);
  const c = caseOf(numbers, shape);
  const refused = refusal(question, device);
  const memory = memory_bytes(c, device, K), tokens = data_tokens(numbers), peak = peak_memory(c, device, K);
  const state = fitting(device, peak);
  const made = {question, device, shape, c, refused, memory, peak, tokens, state, fits: state !== 'over', micro_batch: numbers.micro_batch};
  if (refused) return made;
  const speed = rates(c, device, K), wide = spread(c, device, K), bill = bill_of(c, device, K, tokens, numbers);
  for (const key of ['tokens_per_second', 'tokens_per_second_low', 'tokens_per_second_high']) speed['useful_' + key] = speed[key] * question.packing;
  return {
    ...made, speed, bill, step: step_seconds(c, device, K), parameters: parameters(c),
    limited_by: largestKey(speed, ['compute', 'bandwidth', 'launch', 'network']), reason: largestKey(wide, REASONS),
  };
}

// The same question as another card would be asked: a precision or an attention that it lacks is replaced.
function asFor(question, device) {
  const change = {};
  if (!device.precisions.includes(question.precision)) change.precision = device.precision;
  if (!device.attentions.includes(question.attention)) change.attention = device.attention;
  return {...question, ...change};
}

function withChange(question, change) {
  return {...question, ...change};
}

// Settings that would make a question fit, nearest first.
function waysToFit(question) {
  const found = [], most = 6;
  const consider = (name, change, values) => {
    const made = answer(withChange(question, change));
    const good = !made.refused && ['sure', 'likely'].includes(made.state);
    if (good) found.push({name, change, made, values: values || {}});
    return good;
  };
  if (question.micro_batch > 1) consider('micro', {micro_batch: 0});
  if (question.attention === 'eager') consider('flash', {attention: 'flash', micro_batch: 0});
  if (question.checkpointing !== 'full') consider('checkpointing', {checkpointing: 'full', micro_batch: 0});
  if (question.optimizer !== 'adamw8bit' && question.method === 'full') {
    consider('adamw8bit', {optimizer: 'adamw8bit', micro_batch: 0}) ||
      consider('both', {optimizer: 'adamw8bit', checkpointing: 'full', micro_batch: 0});
  }
  for (let cards = Math.max(2, question.n_devices * 2); cards <= 1024; cards *= 2) {
    const change = {n_devices: cards, sharding: 'zero3', micro_batch: 0, checkpointing: 'full', batch_tokens: question.batch_tokens && Math.max(question.batch_tokens, cards * (question.seq_len || shapeOf(question).seq_len))};
    if (consider('shard', change, {n: cards})) break;
  }
  if (question.method === 'full') consider('lora', {method: 'lora', start: 'continued', kernels: 'plain', checkpointing: 'full', micro_batch: 0});
  if (question.method !== 'qlora') consider('qlora', {method: 'qlora', start: 'continued', kernels: 'plain', checkpointing: 'full', micro_batch: 0});
  for (let length = 2 ** Math.ceil(Math.log2(question.seq_len || shapeOf(question).seq_len) - 1); length >= 128; length /= 2) {
    if (consider('shorter', {seq_len: length, micro_batch: 0}, {n: length})) break;
  }
  const larger = data.devices.filter((d) => d.memory_bytes > deviceOf(question).memory_bytes).sort((a, b) => a.memory_bytes - b.memory_bytes);
  larger.some((device) => consider('card', {gpu: device.name}, {name: device.name}));
  return found.slice(0, most);
}

// One switch at a time, for the table of speed-ups; the micro batch is held, so that memory can be compared.
function switches(made) {
  const changes = [], {question, device} = made;
  const offer = (key, ...words) => words.filter((word) => word !== question[key]).forEach((word) => changes.push([key, word]));
  offer('attention', ...['eager', 'flash', 'flash3'].filter((name) => device.attentions.includes(name)));
  offer('kernels', 'plain', 'compiled');
  offer('precision', ...['fp32', 'bf16', 'fp16', 'fp8'].filter((name) => device.precisions.includes(name)));
  offer('checkpointing', 'none', 'full');
  offer('optimizer', 'adamw', 'adamw8bit', 'muon');
  offer('method', 'full', 'lora', 'qlora');
  if (question.n_devices > 1) offer('sharding', 'none', 'zero1', 'zero2', 'zero3');
  const held = {micro_batch: made.micro_batch, batch_tokens: made.c.global_batch_tokens};
  return changes.map(([key, word]) => ({key, word, made: answer(withChange(question, {...held, [key]: word}))})).filter((row) => !row.made.refused);
}

// What a claimed time (from low to high seconds) means beside the forecast.
function judgeClaim(made, low, high) {
  const [fast, slow] = [low, high].map((seconds) => claimed(made.c, made.device, made.tokens.trained, seconds));
  const bill = made.bill;
  let verdict = high < bill.seconds_low ? 'optimistic' : low > bill.seconds_high ? 'pessimistic' : 'plausible';
  if (slow.share > slow.products) verdict = 'beyond';
  if (fast.share > 1) verdict = 'partly';
  if (slow.share > 1) verdict = 'impossible';
  const ratios = verdict === 'pessimistic' ? [low / bill.seconds, high / bill.seconds] : [bill.seconds / high, bill.seconds / low];
  return {fast, slow, verdict, ratios};
}

// The model at work on the same cards: reading a prompt and writing an answer, by how its weights are stored.
function serving(made) {
  const {context, prompt, answer: written, memory_range: wide} = data.serving;
  return data.quants.map((quant) => {
    const c = {...made.shape, ...quant, context_tokens: context, prompt_tokens: prompt, answer_tokens: written, cache_bytes: 2, batch: 1,
      n_devices: made.question.n_devices, rag_passages: 0, rag_tokens: 0};
    const memory = inference_memory(c, data.serving_constants), room = made.device.memory_bytes * c.n_devices;
    return {quant: quant.name, memory, fits: room <= 0 || memory.total * Math.sqrt(wide) <= room, ...inference(c, made.device, data.serving_constants)};
  });
}
