/** What the loader for WebGPU does without a device: sources, grids, uniforms, conversions, refusals. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

const module = (name) => import(pathToFileURL(`${process.env.LOADER}/${name}`).href);
const { Gpu, hasGpu, splitWgsl, spreadGrid, uniform } = await module("gpu.js");
const { converted } = await module("gpu_model.js");
const { bind, readPlan } = await module("plan.js");

test("kernels of a file are told apart by their headings", () => {
  const found = splitWgsl("// Function: a\nfn a() {}\n// Function: b_1\nfn b_1() {}\n");
  assert.deepEqual([...found.keys()], ["a", "b_1"]);
  assert.match(found.get("b_1"), /^\s*fn b_1\(\) \{\}\s*$/);
  assert.equal(splitWgsl("fn a() {}").size, 0);
});

test("a grid that is too wide goes on in z, where the kernel can", () => {
  assert.deepEqual(spreadGrid("k", [65535, 3, 2], false), [65535, 3, 2]);
  const [x, y, z] = spreadGrid("k", [200001, 1, 1], true);
  assert.ok(x <= 65535 && y === 1 && x * z >= 200001);
  assert.throws(() => spreadGrid("k", [200001, 1, 1], false), /k needs a grid of 200001x1x1; WebGPU has at most 65535/);
  assert.throws(() => spreadGrid("k", [70000, 1, 2], true), /needs a grid/);
});

test("a uniform holds the scalars and the last group", () => {
  const parameters = [{ dtype: "float32" }, { dtype: "int64", buffer: false }, { dtype: "uint32", buffer: false }];
  const made = (scalars) => uniform({ program: { kernel: { parameters } }, buffers: [], scalars, grid: [9, 1, 1] });
  const bytes = new DataView(made([-5, 2 ** 32 - 1]).buffer);
  assert.equal(bytes.byteLength, 16);
  assert.deepEqual([bytes.getInt32(0, true), bytes.getUint32(4, true), bytes.getUint32(8, true)], [-5, 2 ** 32 - 1, 8]);
  assert.throws(() => made([2 ** 31, 0]), /The size 2147483648 does not fit/);
  assert.throws(() => made([0, -1]), /does not fit/);
});

test("elements are converted between the dtypes of the model and of memory", () => {
  assert.deepEqual(converted(new Int32Array([1, -2]), "int32", "int64"), new BigInt64Array([1n, -2n]));
  assert.deepEqual(converted(new BigInt64Array([1n, -2n]), "int64", "int32"), new Int32Array([1, -2]));
  assert.equal(converted(new BigInt64Array([1n << 40n]), "int64", "int32"), null);
  assert.deepEqual(converted(new Uint8Array([0, 1]), "bool", "int32"), new Int32Array([0, 1]));
  const same = new Float32Array(2);
  assert.equal(converted(same, "float32", "float32"), same);
});

test("a plan of the other flavour is refused", () => {
  const text = JSON.stringify({ schema_version: 1, flavour: "cpu" });
  assert.throws(() => readPlan(text, "device"), /The launch plan is for a cpu/);
});

test("grids are sizes over the symbols", () => {
  const plan = readPlan(
    JSON.stringify({
      schema_version: 1, flavour: "device", symbols: [{ name: "n", input: 0, axis: 0 }], storages: [],
      tensors: [{ place: "input", index: 0, dtype: "float32", shape: ["n"] }],
      inputs: [0], weights: [], outputs: [0], kernels: [{ name: "k", file: "f", parameters: [] }],
      steps: [{ kernel: 0, arguments: [0, ["int64", "n"]], grid: [["//", ["+", "n", 63], 64], 1, 1] }],
    }),
    "device",
  );
  const { steps } = bind(plan, [[130]]);
  assert.deepEqual(steps, [{ kernel: "k", number: 0, arguments: [0, { value: 130 }], grid: [3, 1, 1] }]);
});

test("without WebGPU there is no device", async () => {
  if (globalThis.navigator?.gpu !== undefined) return;
  assert.equal(await hasGpu(), false);
  await assert.rejects(Gpu.open([]), { name: "DeviceError", message: /no WebGPU/ });
});
