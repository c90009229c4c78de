/** Time of a run in Node.js: `node javascript/benchmark.js [ARTIFACT] [RUNS]`. Prints one object of JSON. */

import { fileURLToPath } from "node:url";
import { load } from "./index.js";
import { sample } from "./sample.js";

const WARM_UP = 5;

const [artifact = fileURLToPath(new URL("../", import.meta.url)), runs = "50"] = process.argv.slice(2);
const started = performance.now();
const model = await load(artifact);
const loading = performance.now() - started;
const inputs = Object.fromEntries(model.inputs.map((input) => [input.name, sample(input)]));
for (let i = 0; i < WARM_UP; i += 1) model.run(inputs);
const times = [];
for (let i = 0; i < Number(runs); i += 1) {
  const start = performance.now();
  model.run(inputs);
  times.push(performance.now() - start);
}
times.sort((a, b) => a - b);
const report = {
  model: model.name,
  scheme: model.scheme,
  engine: `node ${process.version}`,
  runs: times.length,
  load_milliseconds: Number(loading.toFixed(1)),
  minimum_milliseconds: Number(times[0].toFixed(3)),
  median_milliseconds: Number(times[times.length >> 1].toFixed(3)),
  memory_bytes: model.memoryBytes,
};
console.log(JSON.stringify(report, null, 2));
