// all-MiniLM-L6-v2 in plain JavaScript, written from CONFORMANCE.md: text to ids, ids to vector, in float32.
//
//     node port.mjs CONFORMANCE_FILE MODEL_FOLDER OUTPUT.safetensors [most tokens of a text]
//
// Writes the ids of all texts and lines, the intermediates of the texts that have them, and the vectors of texts with at
// most so many tokens (default 32). Sums are in double precision, each array is rounded to float32.

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";

// ---- safetensors ----------------------------------------------------------------------------------------------------

const TYPES = { I64: BigInt64Array, F32: Float32Array, F64: Float64Array };

function readTensors(path) {
  const bytes = readFileSync(path);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString("utf8"));
  const tensors = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [start, stop] = entry.data_offsets;
    const copy = bytes.buffer.slice(bytes.byteOffset + 8 + length + start, bytes.byteOffset + 8 + length + stop);
    tensors[name] = { shape: entry.shape, data: new TYPES[entry.dtype](copy) };
  }
  return { tensors, metadata: header.__metadata__ ?? {} };
}

function writeTensors(path, tensors) {
  const header = {};
  const parts = [];
  let offset = 0;
  for (const [name, { shape, data }] of Object.entries(tensors)) {
    const dtype = Object.keys(TYPES).find((key) => data instanceof TYPES[key]);
    header[name] = { dtype, shape, data_offsets: [offset, offset + data.byteLength] };
    parts.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
    offset += data.byteLength;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(path, Buffer.concat([length, text, ...parts]));
}

function digest(weights, parameters) {
  const hash = createHash("sha256");
  for (const { name, shape } of parameters) {
    hash.update(`${name} (${shape.length === 1 ? `${shape[0]},` : shape.join(", ")})\n`);
    const { data } = weights[name];
    hash.update(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  }
  return hash.digest("hex");
}

// ---- text to ids ----------------------------------------------------------------------------------------------------

const SPECIAL = /(\[(?:CLS|SEP|MASK|UNK|PAD)\])/;
const PUNCTUATION = /[\p{P}$+<=>^`|~]/u;
const IDEOGRAPHS = [
  [0x3400, 0x4dbf], [0x4e00, 0x9fff], [0xf900, 0xfaff], [0x20000, 0x2a6df], [0x2a700, 0x2b73f], [0x2b740, 0x2b81f],
  [0x2b920, 0x2ceaf], [0x2f800, 0x2fa1f],
];

function readVocabulary(path) {
  const lines = readFileSync(path, "utf8").split("\n");
  return new Map(lines.map((line, number) => [line.replace(/\r$/, ""), number]));
}

function normalized(text) {
  let out = "";
  for (const character of text) {
    const code = character.codePointAt(0);
    if ("\t\n\r".includes(character)) out += " ";
    else if (/[\p{Cc}\p{Cf}\p{Co}\ufffd]/u.test(character)) continue;
    else if (/\p{White_Space}/u.test(character)) out += " ";
    else if (IDEOGRAPHS.some(([first, last]) => first <= code && code <= last)) out += ` ${character} `;
    else out += character;
  }
  let lower = "";
  for (const character of out.normalize("NFD")) {
    if (!/\p{Mn}/u.test(character)) lower += character.toLowerCase();
  }
  return lower;
}

function words(text) {
  const found = [];
  let word = "";
  const end = () => {
    if (word) found.push(word);
    word = "";
  };
  for (const character of text) {
    if (character === " ") end();
    else if (PUNCTUATION.test(character)) {
      end();
      found.push(character);
    } else word += character;
  }
  end();
  return found;
}

function pieces(word, vocabulary) {
  const characters = [...word];
  const unknown = [vocabulary.get("[UNK]")];
  if (characters.length > 100) return unknown;
  const ids = [];
  for (let start = 0; start < characters.length; ) {
    let stop = characters.length;
    let id;
    for (; stop > start; stop--) {
      id = vocabulary.get((start ? "##" : "") + characters.slice(start, stop).join(""));
      if (id !== undefined) break;
    }
    if (stop === start) return unknown;
    ids.push(id);
    start = stop;
  }
  return ids;
}

function tokenize(text, vocabulary, limit) {
  const ids = [];
  for (const part of text.split(SPECIAL)) {
    if (SPECIAL.test(part)) ids.push(vocabulary.get(part));
    else for (const word of words(normalized(part))) ids.push(...pieces(word, vocabulary));
  }
  return [vocabulary.get("[CLS]"), ...ids.slice(0, limit - 2), vocabulary.get("[SEP]")];
}

// ---- the model ------------------------------------------------------------------------------------------------------

// erf with an absolute error of 1.5e-7: Abramowitz and Stegun, formula 7.1.26.
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return Math.sign(x) * (1 - p * Math.exp(-x * x));
}

const gelu = (x) => Float32Array.from(x, (value) => 0.5 * value * (1 + erf(value / Math.SQRT2)));
const add = (x, y) => x.map((value, i) => value + y[i]);

function encode(ids, weights, config, see) {
  const [T, D, H] = [ids.length, config.hidden_size, config.num_attention_heads];
  const E = D / H;
  const weight = (name) => weights[name].data;

  function rows(name, numbers) {
    const table = weight(`${name}.weight`);
    const out = new Float32Array(T * D);
    numbers.forEach((number, t) => out.set(table.subarray(number * D, (number + 1) * D), t * D));
    return see(name, [T, D], out);
  }

  function dense(name, x) {
    const [outputs, inputs] = weights[`${name}.weight`].shape;
    const [W, b] = [weight(`${name}.weight`), weight(`${name}.bias`)];
    const out = new Float32Array(T * outputs);
    for (let t = 0; t < T; t++)
      for (let n = 0; n < outputs; n++) {
        let sum = 0;
        for (let k = 0; k < inputs; k++) sum += x[t * inputs + k] * W[n * inputs + k];
        out[t * outputs + n] = sum + b[n];
      }
    return see(name, [T, outputs], out);
  }

  function layerNorm(name, x) {
    const [g, b] = [weight(`${name}.weight`), weight(`${name}.bias`)];
    const out = new Float32Array(T * D);
    for (let t = 0; t < T; t++) {
      const row = x.subarray(t * D, (t + 1) * D);
      const mean = row.reduce((sum, value) => sum + value, 0) / D;
      const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / D;
      const root = Math.sqrt(variance + config.layer_norm_eps);
      for (let d = 0; d < D; d++) out[t * D + d] = ((row[d] - mean) / root) * g[d] + b[d];
    }
    return see(name, [T, D], out);
  }

  function attention(at, query, key, value) {
    const [scores, probs, context] = [new Float32Array(H * T * T), new Float32Array(H * T * T), new Float32Array(T * D)];
    for (let h = 0; h < H; h++)
      for (let q = 0; q < T; q++) {
        const row = scores.subarray((h * T + q) * T, (h * T + q + 1) * T);
        for (let k = 0; k < T; k++) {
          let sum = 0;
          for (let e = h * E; e < (h + 1) * E; e++) sum += query[q * D + e] * key[k * D + e];
          row[k] = sum / Math.sqrt(E);
        }
        const largest = Math.max(...row);
        const exponentials = Array.from(row, (score) => Math.exp(score - largest));
        const total = exponentials.reduce((sum, x) => sum + x, 0);
        exponentials.forEach((x, k) => (probs[(h * T + q) * T + k] = x / total));
        for (let e = h * E; e < (h + 1) * E; e++) {
          let sum = 0;
          for (let k = 0; k < T; k++) sum += probs[(h * T + q) * T + k] * value[k * D + e];
          context[q * D + e] = sum;
        }
      }
    see(`${at}attention.self.scores`, [H, T, T], scores);
    see(`${at}attention.self.probs`, [H, T, T], probs);
    return see(`${at}attention.self.context`, [T, D], context);
  }

  const words = rows("embeddings.word_embeddings", ids);
  const positions = rows("embeddings.position_embeddings", ids.map((_, t) => t));
  const types = rows("embeddings.token_type_embeddings", ids.map(() => 0));
  let x = layerNorm("embeddings.LayerNorm", add(add(words, positions), types));
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const at = `encoder.layer.${layer}.`;
    const [query, key, value] = ["query", "key", "value"].map((name) => dense(`${at}attention.self.${name}`, x));
    const context = attention(at, query, key, value);
    const attended = layerNorm(`${at}attention.output.LayerNorm`, add(dense(`${at}attention.output.dense`, context), x));
    const inner = dense(`${at}intermediate.dense`, attended);
    const active = see(`${at}intermediate.intermediate_act_fn`, [T, inner.length / T], gelu(inner));
    x = layerNorm(`${at}output.LayerNorm`, add(dense(`${at}output.dense`, active), attended));
  }
  if (config.pooling_mode !== "mean") throw new Error(`this port has no pooling ${config.pooling_mode}`);
  let vector = new Float32Array(D);
  for (let d = 0; d < D; d++) {
    let sum = 0;
    for (let t = 0; t < T; t++) sum += x[t * D + d];
    vector[d] = sum / T;
  }
  see("pooling", [D], vector);
  if (config.normalize) {
    const length = Math.max(Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0)), 1e-12);
    vector = see("normalize", [D], vector.map((value) => value / length));
  }
  return vector;
}

// ---- the conformance file -------------------------------------------------------------------------------------------

const [file, folder, output, most = "32"] = process.argv.slice(2);
const { tensors: expected, metadata } = readTensors(file);
const manifest = JSON.parse(metadata.minilm_np);
if (manifest.format !== "minilm_np conformance 2") throw new Error(`another layout: ${manifest.format}`);
const { config, parameters, weights_sha256 } = manifest.model;
const { tensors: weights } = readTensors(`${folder}/model.safetensors`);
if (digest(weights, parameters) !== weights_sha256) throw new Error("the weights are not those of the file");
const vocabulary = readVocabulary(`${folder}/vocab.txt`);

const out = {};
const integers = (numbers) => ({ shape: [numbers.length], data: BigInt64Array.from(numbers, BigInt) });
const lines = manifest.tokenizer_lines.map((line) => tokenize(line, vocabulary, config.max_seq_length));
const offsets = [0];
for (const line of lines) offsets.push(offsets.at(-1) + line.length);
out["tokenizer_lines.ids"] = integers(lines.flat());
out["tokenizer_lines.offsets"] = integers(offsets);
let vectors = 0;
manifest.texts.forEach(({ text, intermediates }, i) => {
  out[`texts.${i}.ids`] = integers(tokenize(text, vocabulary, config.max_seq_length));
  const ids = Array.from(expected[`texts.${i}.ids`].data, Number);
  if (!intermediates && ids.length > Number(most)) return;
  const see = (name, shape, data) => {
    if (intermediates) out[`texts.${i}.float32.${name}`] = { shape, data };
    return data;
  };
  const vector = encode(ids, weights, config, see);
  const right = expected["vectors.float64"].data.subarray(i * vector.length, (i + 1) * vector.length);
  const largest = Math.max(...right.map(Math.abs));
  const error = Math.max(...vector.map((value, d) => Math.abs(value - right[d]))) / largest;
  if (!(error <= manifest.tolerance.float32)) throw new Error(`text ${i}: the vector has an error of ${error}`);
  vectors++;
});
writeTensors(output, out);
console.log(`${output}: ids of ${manifest.texts.length} texts and ${lines.length} lines; ${vectors} vectors are right`);
