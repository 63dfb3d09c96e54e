// A bundle's file in ONNX Runtime's packages for JavaScript: `node onnxruntime.mjs PACKAGE FILE < rows.json` prints
// each output of rows of inputs by name, as { dims, data }. PACKAGE is onnxruntime-node or onnxruntime-web.

import { readFileSync } from "node:fs";

const [name, file] = process.argv.slice(2);
const ort = await import(name);
const session = await ort.InferenceSession.create(readFileSync(file));
const given = JSON.parse(readFileSync(0, "utf8"));
const feeds = {};
for (const [input, rows] of Object.entries(given)) {
  const numbers = BigInt64Array.from(rows.flat(), BigInt);
  feeds[input] = new ort.Tensor("int64", numbers, [rows.length, rows[0].length]);
}
const outputs = {};
for (const [output, { dims, data }] of Object.entries(await session.run(feeds))) {
  outputs[output] = { dims, data: Array.from(data) };
}
console.log(JSON.stringify(outputs));
