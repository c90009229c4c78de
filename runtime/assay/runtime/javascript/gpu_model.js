/** Loading an artifact's code for WebGPU, and running it. */

import { byteSize, DTYPES } from "./dtypes.js";
import { ArtifactError, InterfaceError } from "./errors.js";
import { Files, readManifest } from "./files.js";
import { Gpu, splitWgsl } from "./gpu.js";
import { checkedInputs } from "./interface.js";
import { bind, readPlan } from "./plan.js";
import { describedWeights, locateWeights, WEIGHTS } from "./weights.js";

/** @typedef {import("./interface.js").Input} Input */
/** @typedef {{ data: any, shape: readonly number[] }} Value */
/** @typedef {{ bound: import("./plan.js").BoundPlan, inputs: any[], own: any[], uniforms: any, dispatches: any[], buffer: (number: number) => any }} Ready */

const isWide = (/** @type {string} */ dtype) => dtype === "int64" || dtype === "uint64";

/**
 * Elements of one dtype in the memory of another: devices hold some wider, some narrower. Integers that do not
 * fit give null.
 *
 * @param {any} data
 * @param {string} from
 * @param {string} to
 */
export function converted(data, from, to) {
  if (from === to) return data;
  const array = DTYPES[to].array;
  if (isWide(to)) return array.from(data, (/** @type {number} */ each) => BigInt(each));
  if (!isWide(from)) return array.from(data);
  const result = array.from(data, Number);
  return result.every((/** @type {number} */ each, /** @type {number} */ i) => BigInt(each) === data[i]) ? result : null;
}

/**
 * @param {string | URL} location
 * @param {{ verify?: boolean, progress?: (loaded: number, total: number) => void }} [options]
 */
export async function loadOnGpu(location, { verify = true, progress } = {}) {
  const files = new Files(location, verify);
  const manifest = await readManifest(files);
  const level = gpuLevel(manifest);
  if (level === undefined) {
    throw new ArtifactError(
      "The artifact has no code for WebGPU.",
      "Build it for that: assay build MODEL --target webgpu.",
    );
  }
  const text = async (/** @type {string} */ name) => new TextDecoder().decode(await files.read(name));
  const plan = readPlan(await text(level.entry.plan), "device");
  if (plan.weights.length !== level.entry.weights.length || plan.inputs.length !== manifest.inputs.length) {
    throw new ArtifactError("The launch plan does not fit the manifest.");
  }
  const folder = level.entry.library.slice(0, level.entry.library.lastIndexOf("/") + 1);
  /** @type {Map<string, Map<string, string>>} */
  const sources = new Map();
  for (const { file } of plan.kernels) {
    if (!sources.has(file)) sources.set(file, splitWgsl(await text(`${folder}${file}`)));
  }
  const gpu = await Gpu.open(level.target.features);
  const programs = await gpu.compile(plan.kernels, sources);
  const weights = await uploadedWeights(gpu, files, manifest, level.entry.weights, progress);
  return new GpuModel(gpu, plan, programs, manifest, weights);
}

/**
 * The level of an artifact for WebGPU, if it has one.
 *
 * @param {any} manifest
 */
export function gpuLevel(manifest) {
  return manifest.levels?.findLast((/** @type {any} */ each) => each.target.api === "webgpu" && each.entry.plan);
}

/**
 * The weights in the memory of the device, in order.
 *
 * @param {Gpu} gpu
 * @param {Files} files
 * @param {any} manifest
 * @param {string[]} names
 * @param {((loaded: number, total: number) => void) | undefined} progress
 * @returns {Promise<any[]>}
 */
async function uploadedWeights(gpu, files, manifest, names, progress) {
  if (names.length === 0) return [];
  const file = await files.read(WEIGHTS, undefined, progress);
  const wanted = describedWeights(manifest, names);
  const places = locateWeights(file, 0, wanted);
  return gpu.guarded(() =>
    wanted.map(({ name, bytes }) => {
      const buffer = gpu.allocate(bytes);
      gpu.upload(buffer, file.subarray(places.get(name), /** @type {number} */ (places.get(name)) + bytes));
      return buffer;
    }),
  );
}

export class GpuModel {
  /**
   * @param {Gpu} gpu
   * @param {any} plan
   * @param {import("./gpu.js").Program[]} programs
   * @param {any} manifest
   * @param {any[]} weights
   */
  constructor(gpu, plan, programs, manifest, weights) {
    this.gpu = gpu;
    this.plan = plan;
    this.programs = programs;
    this.weights = weights;
    /** @type {string} */
    this.name = manifest.model.name;
    /** @type {string} */
    this.scheme = manifest.scheme;
    /** @type {Input[]} */
    this.inputs = manifest.inputs;
    /** @type {{ name: string, dtype: string, shape: (number | string)[] }[]} */
    this.outputs = manifest.outputs;
    this.key = "";
    /** @type {Ready | null} */
    this.ready = null;
    /** Runs take turns. @type {Promise<unknown>} */
    this.last = Promise.resolve();
  }

  get memoryBytes() {
    return this.gpu.bytes;
  }

  /** What the browser says of the device. */
  get device() {
    return this.gpu.description;
  }

  /**
   * @param {Record<string, Value>} inputs
   * @returns {Promise<Record<string, { dtype: string, shape: number[], data: any }>>}
   */
  run(inputs) {
    const turn = this.last.then(() => this.gpu.guarded(() => this.runNow(inputs)));
    this.last = turn.catch(() => undefined);
    return turn;
  }

  /**
   * @private
   * @param {Record<string, Value>} inputs
   */
  async runNow(inputs) {
    const values = checkedInputs(this.inputs, inputs);
    const stored = values.map((value, i) => this.narrowed(value, i));
    const ready = this.prepared(values.map((each) => each.shape));
    stored.forEach((data, i) => this.gpu.upload(ready.inputs[i], data));
    this.gpu.submit(ready.dispatches);
    const numbers = [...this.plan.outputs, ...this.plan.written_inputs.map((/** @type {number} */ i) => this.plan.inputs[i])];
    const tensors = numbers.map((number) => ready.bound.tensors[number]);
    const copies = await this.gpu.download(
      tensors.map(({ dtype, shape }, i) => ({ buffer: ready.buffer(numbers[i]), bytes: byteSize(dtype, shape) })),
    );
    const arrays = tensors.map(({ dtype }, i) => new DTYPES[dtype].array(copies[i]));
    this.plan.written_inputs.forEach((/** @type {number} */ input, /** @type {number} */ i) => {
      const k = this.plan.outputs.length + i;
      values[input].data.set(converted(arrays[k], tensors[k].dtype, this.inputs[input].dtype));
    });
    return Object.fromEntries(
      this.outputs.map(({ name, dtype }, i) => {
        return [name, { dtype, shape: [...tensors[i].shape], data: converted(arrays[i], tensors[i].dtype, dtype) }];
      }),
    );
  }

  /**
   * The elements of an input in the dtype that the device's memory has for it.
   *
   * @private
   * @param {Value} value
   * @param {number} i
   */
  narrowed(value, i) {
    const { name, dtype } = this.inputs[i];
    const memory = this.plan.tensors[this.plan.inputs[i]].dtype;
    const data = converted(value.data, dtype, memory);
    if (data === null) throw new InterfaceError(`Input "${name}" has integers that do not fit the device's ${memory}.`);
    return data;
  }

  /**
   * Memory and launches for inputs of these shapes, kept until others come.
   *
   * @private
   * @param {readonly (readonly number[])[]} shapes
   * @returns {Ready}
   */
  prepared(shapes) {
    const key = shapes.join(";");
    if (this.ready !== null && this.key === key) return this.ready;
    const { gpu, plan } = this;
    const bound = bind(plan, shapes);
    this.release();
    /** @type {any[]} */
    const own = [];
    const allocate = (/** @type {number} */ bytes) => {
      own.push(gpu.allocate(bytes));
      return own[own.length - 1];
    };
    try {
      const storages = usedBytes(bound).map(allocate);
      const inputs = plan.inputs.map((/** @type {number} */ number) =>
        allocate(byteSize(bound.tensors[number].dtype, bound.tensors[number].shape)),
      );
      const places = { storage: storages, input: inputs, weight: this.weights };
      const buffer = (/** @type {number} */ number) => {
        const { place, index, offset } = bound.tensors[number];
        if (offset) throw new ArtifactError("The launch plan is damaged: a tensor starts inside the memory of a device.");
        return places[place][index];
      };
      const launches = bound.steps.map((step) => ({
        program: this.programs[step.number],
        buffers: step.arguments.flatMap((each) => (typeof each === "number" ? [buffer(each)] : [])),
        scalars: step.arguments.flatMap((each) => (typeof each === "number" ? [] : [each.value])),
        grid: step.grid,
      }));
      this.ready = { bound, inputs, own, buffer, ...gpu.record(launches) };
    } catch (error) {
      for (const each of own) gpu.free(each);
      throw error;
    }
    this.key = key;
    return this.ready;
  }

  /** @private */
  release() {
    if (this.ready === null) return;
    for (const each of this.ready.own) this.gpu.free(each);
    this.ready.uniforms.destroy();
    this.ready = null;
  }

  /** Give back the memory of the device; nothing may be called afterwards. */
  close() {
    this.release();
    this.gpu.device.destroy();
  }
}

/**
 * Bytes of each storage that its tensors take at these shapes; plans have room for the largest.
 *
 * @param {import("./plan.js").BoundPlan} bound
 */
function usedBytes(bound) {
  const used = bound.storages.map(() => 0);
  for (const { place, index, offset, dtype, shape } of bound.tensors) {
    if (place === "storage") used[index] = Math.max(used[index], offset + byteSize(dtype, shape));
  }
  return used;
}
