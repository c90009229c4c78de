/** Loading an artifact, and running it. */

import { DTYPES, byteSize } from "./dtypes.js";
import { ArtifactError, InterfaceError } from "./errors.js";
import { missingFeatures } from "./features.js";
import { Files, readManifest } from "./files.js";
import { checkedInputs, checkShape, unknown } from "./interface.js";
import { Machine } from "./machine.js";
import { bind, readPlan } from "./plan.js";
import { describedWeights, locateWeights, WEIGHTS } from "./weights.js";


/** @typedef {import("./interface.js").Input} Input */
/** @typedef {{ data: any, shape: readonly number[] } | ResidentTensor} Value */
/** @typedef {{ calls: (() => void)[], inputs: number[], outputs: { address: number, dtype: string, shape: number[] }[] }} Ready */

/**
 * @param {string | URL} location
 * @param {{ verify?: boolean, progress?: (loaded: number, total: number) => void }} [options]
 */
export async function load(location, { verify = true, progress } = {}) {
  const files = new Files(location, verify);
  const manifest = await readManifest(files);
  const level = chooseLevel(manifest.levels ?? []);
  const plan = readPlan(new TextDecoder().decode(await files.read(level.entry.plan)));
  const code = await files.read(level.entry.library);
  let module;
  try {
    module = await WebAssembly.compile(code);
  } catch (error) {
    throw new ArtifactError(`${level.entry.library} cannot be compiled: ${error}`);
  }
  const machine = await Machine.start(module);
  const weights = await readWeights(files, machine, manifest, level.entry.weights, progress);
  if (plan.weights.length !== weights.length || plan.inputs.length !== manifest.inputs.length) {
    throw new ArtifactError("The launch plan does not fit the manifest.");
  }
  return new Model(machine, plan, manifest, weights);
}

/**
 * The most capable level for WebAssembly that this engine runs.
 *
 * @param {any[]} levels
 */
function chooseLevel(levels) {
  const known = levels.filter((each) => each.entry.driver === "wasm" && each.entry.plan);
  if (known.length === 0) {
    throw new ArtifactError(
      "The artifact has no code for WebAssembly.",
      "Build it for that: assay build MODEL --target wasm32-simd.",
    );
  }
  const level = known.findLast((each) => missingFeatures(each.target.features).length === 0);
  if (level === undefined) {
    const missing = missingFeatures(known[0].target.features).join(", ");
    throw new ArtifactError(
      `This engine has no WebAssembly ${missing}, which the artifact needs.`,
      "Use a newer engine, or build for wasm32-simd.",
    );
  }
  return level;
}

/**
 * The addresses of the weights, in order.
 *
 * @param {Files} files
 * @param {Machine} machine
 * @param {any} manifest
 * @param {string[]} names
 * @param {((loaded: number, total: number) => void) | undefined} progress
 */
async function readWeights(files, machine, manifest, names, progress) {
  if (names.length === 0) return [];
  let address = 0;
  const file = await files.read(
    WEIGHTS,
    (size) => {
      address = machine.keep(size);
      return machine.view(address, "uint8", size);
    },
    progress,
  );
  const found = locateWeights(file, address, describedWeights(manifest, names));
  return names.map((name) => /** @type {number} */ (found.get(name)));
}

/** An input that stays in the memory of the model. */
export class ResidentTensor {
  /**
   * @param {Machine} machine
   * @param {string} dtype
   * @param {readonly number[]} shape
   */
  constructor(machine, dtype, shape) {
    this.machine = machine;
    this.dtype = dtype;
    this.shape = [...shape];
    this.count = byteSize(dtype, shape) / (DTYPES[dtype].bits / 8);
    this.address = machine.keep(byteSize(dtype, shape));
    machine.view(this.address, dtype, this.count).fill(dtype.endsWith("int64") ? 0n : 0);
  }

  read() {
    return this.machine.view(this.address, this.dtype, this.count).slice();
  }

  write(/** @type {any} */ data) {
    if (data?.length !== this.count) {
      throw new InterfaceError(`There are ${data?.length} elements; ${this.count} fit.`);
    }
    this.machine.view(this.address, this.dtype, this.count).set(data);
  }
}

export class Model {
  /**
   * @param {Machine} machine
   * @param {any} plan
   * @param {any} manifest
   * @param {number[]} weights
   */
  constructor(machine, plan, manifest, weights) {
    this.machine = machine;
    this.plan = plan;
    this.weights = weights;
    /** @type {string} */
    this.name = manifest.model.name;
    /** @type {string} */
    this.scheme = manifest.scheme;
    /** @type {Input[]} */
    this.inputs = manifest.inputs;
    /** @type {{ name: string, dtype: string, shape: (number | string)[] }[]} */
    this.outputs = manifest.outputs;
    /** What the memory is laid out for: shapes, and where inputs are resident. */
    this.key = "";
    /** @type {Ready | null} */
    this.ready = null;
  }

  get memoryBytes() {
    return this.machine.memory.buffer.byteLength;
  }

  /**
   * @param {Record<string, Value>} inputs
   */
  run(inputs) {
    const values = checkedInputs(this.inputs, inputs, (value) => value instanceof ResidentTensor);
    const ready = this.prepared(values);
    const { machine } = this;
    values.forEach((value, i) => {
      if (value instanceof ResidentTensor) return;
      machine.view(ready.inputs[i], this.inputs[i].dtype, value.data.length).set(value.data);
    });
    for (const call of ready.calls) call();
    for (const i of this.plan.written_inputs) {
      const value = values[i];
      if (value instanceof ResidentTensor) continue;
      value.data.set(machine.view(ready.inputs[i], this.inputs[i].dtype, value.data.length));
    }
    return Object.fromEntries(
      ready.outputs.map(({ address, dtype, shape }, i) => {
        const count = shape.reduce((product, extent) => product * extent, 1);
        return [this.outputs[i].name, { dtype, shape: [...shape], data: machine.view(address, dtype, count).slice() }];
      }),
    );
  }

  /**
   * @param {string} name
   * @param {readonly number[]} shape
   */
  resident(name, shape) {
    const input = this.inputs.find((each) => each.name === name);
    if (input === undefined) throw unknown(name, this.inputs);
    checkShape(input, shape, new Map());
    // What was laid out above it is lost.
    this.ready = null;
    return new ResidentTensor(this.machine, input.dtype, shape);
  }

  /**
   * Memory and calls for inputs of these shapes, kept until others come.
   *
   * @private
   * @param {Value[]} values
   * @returns {Ready}
   */
  prepared(values) {
    const key = values
      .map((each) => `${each.shape}@${each instanceof ResidentTensor ? each.address : ""}`)
      .join(";");
    if (this.ready !== null && this.key === key) return this.ready;
    const { machine, plan } = this;
    const bound = bind(plan, values.map((each) => each.shape));
    machine.release();
    this.ready = null;
    const inputs = values.map((each, i) =>
      each instanceof ResidentTensor ? each.address : machine.allocate(byteSize(this.inputs[i].dtype, each.shape)),
    );
    const places = {
      input: inputs,
      weight: this.weights,
      storage: bound.storages.map((size) => machine.allocate(size)),
    };
    const addresses = bound.tensors.map(({ place, index, offset }) => places[place][index] + offset);
    const headers = bound.tensors.map((each, i) => machine.tensor(addresses[i], each.dtype, each.shape));
    const calls = bound.steps.map((step) =>
      machine.prepare(
        step.kernel,
        step.arguments.map((each) => (typeof each === "number" ? { tensor: headers[each] } : each)),
      ),
    );
    const outputs = plan.outputs.map((/** @type {number} */ number) => ({
      address: addresses[number],
      dtype: bound.tensors[number].dtype,
      shape: bound.tensors[number].shape,
    }));
    this.key = key;
    this.ready = { calls, inputs, outputs };
    return this.ready;
  }
}
