// A bundle in transformers.js: `node transformers_js.mjs BUNDLE TASK < asked.json` prints what its pipeline answers.

import { readFileSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { env, pipeline } from "@huggingface/transformers";

const [bundle, task] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = dirname(resolve(bundle));
const ask = await pipeline(task, basename(bundle));

const ways = {
  "text-classification": (text) => ask(text, { top_k: null }),
  "token-classification": (text) => ask(text, { ignore_labels: [] }),
  "question-answering": ([question, context]) => ask(question, context),
  "fill-mask": (text) => ask(text),
  "zero-shot-classification": ([text, labels]) => ask(text, labels),
  "feature-extraction": async ([text, how]) => (await ask(text, how)).tolist(),
};
const answers = [];
for (const one of JSON.parse(readFileSync(0, "utf8"))) answers.push(await ways[task](one));
console.log(JSON.stringify(answers));
