// Write rows as a Parquet file without a network: one row group, no compression; lists of titles by a dictionary.
// Source: github.com/apache/parquet-format (README, Encodings.md, parquet.thrift) and Thrift's compact protocol.
const parquetFile = (() => {
  const PARQUET = {BOOLEAN: 0, INT64: 2, DOUBLE: 5, TEXT: 6, PLAIN: 0, RLE: 3, BY_DICTIONARY: 8, OPTIONAL: 1, REPEATED: 2, UTF8: 0, LIST: 3};
  const utf8 = new TextEncoder();

  class Bytes {
    constructor() { this.array = new Uint8Array(1 << 12); this.length = 0; }
    room(n) {
      if (this.length + n <= this.array.length) return;
      const larger = new Uint8Array(Math.max(2 * this.array.length, this.length + n));
      larger.set(this.array.subarray(0, this.length));
      this.array = larger;
    }
    byte(value) { this.room(1); this.array[this.length++] = value; }
    all(bytes) { this.room(bytes.length); this.array.set(bytes, this.length); this.length += bytes.length; }
    int32(value) { this.room(4); new DataView(this.array.buffer).setInt32(this.length, value, true); this.length += 4; }
    varint(value) {
      for (; value >= 128; value = Math.floor(value / 128)) this.byte((value % 128) + 128);
      this.byte(value);
    }
    done() { return this.array.subarray(0, this.length); }
  }

  // Thrift, compact: fields come as [id, kind, value] in rising order of id; only what Parquet's headers need.
  const THRIFT = {int: 5, long: 6, text: 8, list: 9, struct: 12};

  function thriftValue(out, kind, value) {
    if (kind === 'struct') thriftStruct(out, value);
    else if (kind === 'text') { const bytes = utf8.encode(value); out.varint(bytes.length); out.all(bytes); }
    else if (kind === 'list') {
      const [inner, items] = value;
      if (items.length < 15) out.byte(items.length * 16 + THRIFT[inner]);
      else { out.byte(240 + THRIFT[inner]); out.varint(items.length); }
      for (const item of items) thriftValue(out, inner, item);
    } else out.varint(value * 2); // zigzag of a number that is not negative
  }

  function thriftStruct(out, fields) {
    let last = 0;
    for (const [id, kind, value] of fields) {
      out.byte((id - last) * 16 + THRIFT[kind]);
      thriftValue(out, kind, value);
      last = id;
    }
    out.byte(0);
  }

  // Levels of at most two bits as runs of equal values, behind their length in bytes.
  function levels(out, values) {
    const runs = new Bytes();
    for (let start = 0, end; start < values.length; start = end) {
      end = start + 1;
      while (end < values.length && values[end] === values[start]) end++;
      runs.varint((end - start) * 2);
      runs.byte(values[start]);
    }
    out.int32(runs.length);
    out.all(runs.done());
  }

  function bitPacked(out, values, width) {
    const groups = Math.ceil(values.length / 8), packed = new Uint8Array(groups * width);
    values.forEach((value, i) => {
      for (let bit = 0, at = i * width; bit < width; bit++, at++) if ((value >> bit) & 1) packed[at >> 3] |= 1 << (at & 7);
    });
    out.varint(groups * 2 + 1);
    out.all(packed);
  }

  function text(out, value) {
    const bytes = utf8.encode(value);
    out.int32(bytes.length);
    out.all(bytes);
  }

  function plainValues(out, type, values) {
    if (type === PARQUET.TEXT) { values.forEach((value) => text(out, String(value))); return; }
    if (type === PARQUET.BOOLEAN) {
      const packed = new Uint8Array(Math.ceil(values.length / 8));
      values.forEach((value, i) => { if (value) packed[i >> 3] |= 1 << (i & 7); });
      out.all(packed);
      return;
    }
    const view = new DataView(new ArrayBuffer(8 * values.length));
    values.forEach((value, i) => (type === PARQUET.INT64 ? view.setBigInt64(8 * i, BigInt(value), true) : view.setFloat64(8 * i, value, true)));
    out.all(new Uint8Array(view.buffer));
  }

  function page(out, kind, header, body) {
    const at = out.length;
    thriftStruct(out, [[1, 'int', kind], [2, 'int', body.length], [3, 'int', body.length], header]);
    out.all(body.done());
    return at;
  }

  function dataPage(out, n, encoding, body) {
    return page(out, 0, [5, 'struct', [[1, 'int', n], [2, 'int', encoding], [3, 'int', PARQUET.RLE], [4, 'int', PARQUET.RLE]]], body);
  }

  // Write one column; returns the fields of its ColumnMetaData.
  function column(out, {name, type, values, dictionary}) {
    const start = out.length, body = new Bytes();
    let path = [name], encoding = PARQUET.PLAIN, n = values.length, data, first;
    if (dictionary) {
      path = [name, 'list', 'element'];
      encoding = PARQUET.BY_DICTIONARY;
      const words = new Bytes(), repeats = [], depths = [], places = [];
      dictionary.forEach((word) => text(words, word));
      for (const list of values) {
        if (list === null || !list.length) { repeats.push(0); depths.push(list === null ? 0 : 1); }
        else list.forEach((place, i) => { repeats.push(i ? 1 : 0); depths.push(2); places.push(place); });
      }
      n = depths.length;
      levels(body, repeats);
      levels(body, depths);
      const width = Math.max(1, 32 - Math.clz32(Math.max(0, dictionary.length - 1)));
      body.byte(width);
      bitPacked(body, places, width);
      first = page(out, 2, [7, 'struct', [[1, 'int', dictionary.length], [2, 'int', PARQUET.PLAIN]]], words);
    } else {
      levels(body, values.map((value) => (value === null ? 0 : 1)));
      plainValues(body, type, values.filter((value) => value !== null));
    }
    data = dataPage(out, n, encoding, body);
    const size = out.length - start;
    return [[1, 'int', type], [2, 'list', ['int', [PARQUET.RLE, encoding, PARQUET.PLAIN]]], [3, 'list', ['text', path]], [4, 'int', 0],
      [5, 'long', n], [6, 'long', size], [7, 'long', size], [9, 'long', data], ...(first === undefined ? [] : [[11, 'long', first]])];
  }

  function schemaOf({name, type, dictionary}) {
    const kind = type === PARQUET.TEXT ? [[6, 'int', PARQUET.UTF8]] : [];
    const leaf = (own, repetition) => [[1, 'int', type], [3, 'int', repetition], [4, 'text', own], ...kind];
    if (!dictionary) return [leaf(name, PARQUET.OPTIONAL)];
    return [[[3, 'int', PARQUET.OPTIONAL], [4, 'text', name], [5, 'int', 1], [6, 'int', PARQUET.LIST]],
      [[3, 'int', PARQUET.REPEATED], [4, 'text', 'list'], [5, 'int', 1]], leaf('element', 0)];
  }

  // Columns are {name, type, values, dictionary}: values hold null where there is none, lists hold places in the dictionary.
  return function parquetFile(columns, nRows) {
    const out = new Bytes(), magic = utf8.encode('PAR1');
    out.all(magic);
    const chunks = columns.map((one) => {
      const meta = column(out, one);
      return [[2, 'long', meta.find(([id]) => id === 9)[2]], [3, 'struct', meta]];
    });
    const root = [[4, 'text', 'ltm'], [5, 'int', columns.length]];
    const size = out.length - 4, footer = new Bytes();
    thriftStruct(footer, [
      [1, 'int', 1], [2, 'list', ['struct', [root, ...columns.flatMap(schemaOf)]]], [3, 'long', nRows],
      [4, 'list', ['struct', [[[1, 'list', ['struct', chunks]], [2, 'long', size], [3, 'long', nRows]]]]], [6, 'text', 'ltm dashboard'],
    ]);
    out.all(footer.done());
    out.int32(footer.length);
    out.all(magic);
    return out.done();
  };
})();
