/** The page that comes with an artifact: loads it, runs it on made-up inputs, shows the outputs and the time. */

import { Files, readManifest } from "./files.js";
import { hasGpu } from "./gpu.js";
import { gpuLevel } from "./gpu_model.js";
import { load, loadOnGpu } from "./index.js";
import { sample } from "./sample.js";

const RUNS = 10;
const SHOWN = 8;

const element = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));

/**
 * The artifact on a GPU where it has code for one and there is one, else in WebAssembly. `?device=webgpu` or
 * `?device=wasm` decides.
 *
 * @param {URL} location
 * @param {{ progress: (loaded: number, total: number) => void }} options
 */
async function loadHere(location, options) {
  const wanted = new URLSearchParams(globalThis.location.search).get("device");
  const manifest = await readManifest(new Files(location, true));
  const without = !manifest.levels.some((/** @type {any} */ each) => each.entry.driver === "wasm");
  const onGpu = wanted === null ? gpuLevel(manifest) !== undefined && (without || (await hasGpu())) : wanted === "webgpu";
  return onGpu ? loadOnGpu(location, options) : load(location, options);
}

async function main() {
  const started = performance.now();
  const model = await loadHere(new URL("../", import.meta.url), {
    progress: (loaded, total) => {
      element("status").textContent = `${(loaded / 2 ** 20).toFixed(1)} of ${(total / 2 ** 20).toFixed(1)} MiB`;
    },
  });
  const loading = performance.now() - started;
  const inputs = Object.fromEntries(model.inputs.map((input) => [input.name, sample(input)]));
  let outputs = await model.run(inputs);
  const times = [];
  for (let i = 0; i < RUNS; i += 1) {
    const start = performance.now();
    outputs = await model.run(inputs);
    times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  element("name").textContent = model.name;
  const memory = (model.memoryBytes / 2 ** 20).toFixed(1);
  const where = "device" in model ? `WebGPU (${model.device})` : "WebAssembly";
  element("status").textContent =
    `${where}, scheme ${model.scheme}. Loaded in ${loading.toFixed(0)} ms; a run takes ${times[RUNS / 2].toFixed(2)} ms ` +
    `(median of ${RUNS}); ${memory} MiB of memory.`;
  const rows = [["output", "shape", "first elements"]];
  for (const [name, { data, dtype, shape }] of Object.entries(outputs)) {
    const first = [...data.slice(0, SHOWN)].map((each) => (typeof each === "number" ? each.toPrecision(7) : `${each}`));
    rows.push([name, `${dtype}[${shape.join(", ")}]`, first.join(" ") + (data.length > SHOWN ? " …" : "")]);
  }
  rows.forEach((cells, i) => {
    const row = document.createElement("tr");
    cells.forEach((cell) => {
      const place = document.createElement(i === 0 ? "th" : "td");
      place.textContent = cell;
      row.append(place);
    });
    element("outputs").append(row);
  });
  // For programs that read the page.
  Object.assign(globalThis, { result: { outputs, times, loading, where }, model });
}

main().catch((error) => {
  element("name").textContent = "This model cannot be run here";
  element("error").textContent = error.message ?? String(error);
  Object.assign(globalThis, { result: { error: element("error").textContent } });
});
