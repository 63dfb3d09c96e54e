// A model file in Netron's own parser: `node netron.mjs SOURCE FILE` prints what it shows, SOURCE being the folder of the
// Python package `netron`. What its window and its server do is done here: files are read, errors thrown.

import { readFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [source, file] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(join(resolve(source), name)).href);
const { BinaryStream } = await load("base.js");
const { ModelFactoryService } = await load("view.js");

const problems = [];
const read = (path) => new BinaryStream(readFileSync(path));
const host = {
  require: (id) => load(`${id.replace("./", "")}.js`),
  environment: () => null,
  event: () => {},
  exception: (error) => problems.push(String(error)),
  version: "test",
};
const context = {
  identifier: basename(file),
  stream: read(file),
  entries: new Map(),
  asset: async (name) => readFileSync(join(source, name), "utf8"),
  fetch: async (name, encoding) => {
    const path = join(dirname(file), name);
    return encoding ? readFileSync(path, encoding) : read(path);
  },
  request: async (name, encoding, base) =>
    base === undefined ? readFileSync(join(source, name), encoding ?? "utf8") : read(join(dirname(file), name)),
  require: host.require,
  error: (error) => problems.push(String(error)),
};

const model = await new ModelFactoryService(host).open(context);
const graphs = [...(model.modules ?? model.graphs ?? []), ...(model.functions ?? [])];
const named = (values) => values.map((value) => value.name);
const metadata = (owner) => Object.fromEntries((owner.metadata ?? []).map(({ name, value }) => [name, String(value)]));
const inner = (nodes) => nodes.flatMap((node) => [node, ...(node.type?.nodes ? inner(node.type.nodes) : [])]);
console.log(
  JSON.stringify({
    format: model.format,
    producer: model.producer,
    metadata: metadata(model),
    graphs: graphs.map((graph) => ({
      name: graph.name,
      inputs: named(graph.inputs),
      outputs: named(graph.outputs),
      nodes: inner(graph.nodes).map((node) => node.type.name),
    })),
    problems,
  }),
);
