/** A device of WebGPU (https://www.w3.org/TR/webgpu/): memory, kernels in WGSL, launches. */

import { ArtifactError, CapacityError, DeviceError } from "./errors.js";

const HEADING = /^\/\/ Function: (\w+)\s*$/m;
/** How a kernel finds its group when x, of up to 65535 groups, goes on in z. */
const SPREAD = "blockIdx.z * gridDim.x + blockIdx.x";
const MOST_GROUPS = 65535;
/** Limits that are asked for as the adapter has them: without, a device has the least that all have. */
const LIMITS = [
  "maxBufferSize", "maxStorageBufferBindingSize", "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize", "maxComputeInvocationsPerWorkgroup", "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY", "maxComputeWorkgroupSizeZ",
]; // prettier-ignore

/** @typedef {{ name: string, file: string, parameters: { dtype: string, buffer?: boolean, written?: boolean }[] }} Kernel */
/** @typedef {{ pipeline: any, spread: boolean, kernel: Kernel }} Program */
/** @typedef {{ program: Program, buffers: any[], scalars: number[], grid: number[] }} Launch */
/** @typedef {{ pipeline: any, group: any, grid: number[] }} Dispatch */

const padded = (/** @type {number} */ bytes) => Math.max(4, Math.ceil(bytes / 4) * 4);

/** Whether this engine has an adapter of WebGPU. */
export async function hasGpu() {
  return Boolean(await globalThis.navigator?.gpu?.requestAdapter());
}

/**
 * The kernels of a file of WGSL by name: each is a module of its own, behind a line with its name.
 *
 * @param {string} source
 */
export function splitWgsl(source) {
  const pieces = source.split(new RegExp(HEADING, "gm"));
  /** @type {Map<string, string>} */
  const kernels = new Map();
  for (let i = 1; i + 1 < pieces.length; i += 2) {
    kernels.set(pieces[i], (kernels.get(pieces[i]) ?? "") + pieces[i + 1]);
  }
  return kernels;
}

/**
 * A grid with at most 65535 groups in each dimension, more in x going on in z.
 *
 * @param {string} name
 * @param {readonly number[]} grid
 * @param {boolean} possible
 */
export function spreadGrid(name, grid, possible) {
  let [x, y, z] = grid;
  if (x > MOST_GROUPS && z === 1 && possible) {
    z = Math.ceil(x / MOST_GROUPS);
    x = Math.ceil(x / z);
  }
  if (Math.max(x, y, z) > MOST_GROUPS) {
    throw new DeviceError(`The kernel ${name} needs a grid of ${x}x${y}x${z}; WebGPU has at most ${MOST_GROUPS}.`);
  }
  return [x, y, z];
}

/**
 * The uniform of a launch: scalars of 32 bits, then the number of the last group in x, padded to 16 bytes.
 *
 * @param {Launch} launch
 */
export function uniform({ program, scalars, grid }) {
  const kinds = program.kernel.parameters.filter((each) => each.buffer === false).map((each) => each.dtype);
  const bytes = new DataView(new ArrayBuffer(Math.ceil((4 * scalars.length + 4) / 16) * 16));
  scalars.forEach((value, i) => {
    const unsigned = kinds[i].startsWith("u");
    const [least, most] = unsigned ? [0, 2 ** 32] : [-(2 ** 31), 2 ** 31];
    if (value < least || value >= most) throw new DeviceError(`The size ${value} does not fit into the 32 bits of WGSL.`);
    if (unsigned) bytes.setUint32(4 * i, value, true);
    else bytes.setInt32(4 * i, value, true);
  });
  bytes.setUint32(4 * scalars.length, grid[0] - 1, true);
  return new Uint8Array(bytes.buffer);
}

export class Gpu {
  /**
   * The device that this engine prefers. Throws a DeviceError where there is none that has `features`.
   *
   * @param {readonly string[]} features of the manifest's target
   */
  static async open(features) {
    const gpu = globalThis.navigator?.gpu;
    if (gpu === undefined) {
      throw new DeviceError(
        "This engine has no WebGPU.",
        "Use a browser that has it, on a page of HTTPS or localhost; or build for wasm32-simd.",
      );
    }
    const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
    if (!adapter) {
      throw new DeviceError("WebGPU finds no device.", "Allow it in the browser's settings, or build for wasm32-simd.");
    }
    if (features.includes("f16") && !adapter.features.has("shader-f16")) {
      throw new DeviceError("The model computes in float16, which this device does not.", "Build with a scheme of float32.");
    }
    const device = await adapter.requestDevice({
      requiredFeatures: ["shader-f16"].filter((name) => adapter.features.has(name)),
      requiredLimits: Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]])),
    });
    return new Gpu(device, adapter.info);
  }

  /**
   * @private
   * @param {any} device
   * @param {any} info
   */
  constructor(device, info) {
    this.device = device;
    this.description = [info?.vendor, info?.architecture, info?.device, info?.description].filter(Boolean).join(" ");
    this.bytes = 0;
    /** @type {string | null} */
    this.lost = null;
    device.lost.then((/** @type {any} */ why) => {
      this.lost = why.message || why.reason || "no reason is given";
    });
  }

  /**
   * What `work` gives, with the errors of WebGPU as ours.
   *
   * @template T
   * @param {() => T | Promise<T>} work
   * @returns {Promise<T>}
   */
  async guarded(work) {
    if (this.lost !== null) throw new DeviceError(`The device was lost: ${this.lost}.`, "Load the model again.");
    this.device.pushErrorScope("out-of-memory");
    this.device.pushErrorScope("validation");
    let result;
    let failure = null;
    try {
      result = await work();
    } catch (error) {
      failure = error;
    }
    const invalid = await this.device.popErrorScope();
    const full = await this.device.popErrorScope();
    if (this.lost !== null) throw new DeviceError(`The device was lost: ${this.lost}.`, "Load the model again.");
    if (full) throw new CapacityError(`The device has no room: ${full.message}.`);
    if (invalid) throw new DeviceError(`WebGPU refuses the code: ${invalid.message}`);
    if (failure !== null) throw failure;
    return /** @type {T} */ (result);
  }

  /** Memory that kernels read and write. */
  allocate(/** @type {number} */ bytes) {
    const { maxBufferSize, maxStorageBufferBindingSize } = this.device.limits;
    const most = Math.min(maxBufferSize, maxStorageBufferBindingSize);
    if (bytes > most) {
      throw new CapacityError(`The device binds ${most} bytes at most; ${bytes} are needed.`, "Choose smaller inputs.");
    }
    const usage = globalThis.GPUBufferUsage;
    const buffer = this.device.createBuffer({
      size: padded(bytes),
      usage: usage.STORAGE | usage.COPY_DST | usage.COPY_SRC,
    });
    this.bytes += buffer.size;
    return buffer;
  }

  free(/** @type {any} */ buffer) {
    this.bytes -= buffer.size;
    buffer.destroy();
  }

  /**
   * Copy in.
   *
   * @param {any} buffer
   * @param {ArrayBufferView} data
   */
  upload(buffer, data) {
    if (data.byteLength === 0) return;
    let bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    if (bytes.length % 4) {
      const whole = new Uint8Array(padded(bytes.length));
      whole.set(bytes);
      bytes = whole;
    }
    this.device.queue.writeBuffer(buffer, 0, bytes);
  }

  /**
   * Copies of the first bytes of some buffers, behind all launches.
   *
   * @param {readonly { buffer: any, bytes: number }[]} wanted
   * @returns {Promise<ArrayBuffer[]>}
   */
  async download(wanted) {
    const usage = globalThis.GPUBufferUsage;
    const encoder = this.device.createCommandEncoder();
    const copies = wanted.map(({ buffer, bytes }) => {
      const copy = this.device.createBuffer({ size: padded(bytes), usage: usage.MAP_READ | usage.COPY_DST });
      encoder.copyBufferToBuffer(buffer, 0, copy, 0, padded(bytes));
      return copy;
    });
    this.device.queue.submit([encoder.finish()]);
    try {
      await Promise.all(copies.map((copy) => copy.mapAsync(globalThis.GPUMapMode.READ)));
      return copies.map((copy, i) => copy.getMappedRange().slice(0, wanted[i].bytes));
    } finally {
      for (const copy of copies) copy.destroy();
    }
  }

  /**
   * A program for each kernel, from the sources by name of file.
   *
   * @param {readonly Kernel[]} kernels
   * @param {ReadonlyMap<string, Map<string, string>>} sources
   * @returns {Promise<Program[]>}
   */
  compile(kernels, sources) {
    return this.guarded(() =>
      Promise.all(
        kernels.map(async (kernel) => {
          const code = sources.get(kernel.file)?.get(kernel.name);
          if (code === undefined) throw new ArtifactError(`There is no kernel ${kernel.name} in ${kernel.file}.`);
          const module = this.device.createShaderModule({ label: kernel.name, code });
          const compute = { module, entryPoint: kernel.name };
          const pipeline = await this.device.createComputePipelineAsync({ label: kernel.name, layout: "auto", compute });
          return { pipeline, spread: code.includes(SPREAD), kernel };
        }),
      ),
    );
  }

  /**
   * Launches made ready, in order, and the buffer of their uniforms. Empty grids are left out.
   *
   * @param {readonly Launch[]} launches
   * @returns {{ dispatches: Dispatch[], uniforms: any }}
   */
  record(launches) {
    const ready = launches.filter(({ grid }) => grid.every((extent) => extent > 0));
    const packed = ready.map(uniform);
    const alignment = this.device.limits.minUniformBufferOffsetAlignment;
    const stride = Math.ceil(Math.max(16, ...packed.map((each) => each.length)) / alignment) * alignment;
    const usage = globalThis.GPUBufferUsage;
    const uniforms = this.device.createBuffer({
      size: Math.max(stride, stride * ready.length),
      usage: usage.UNIFORM | usage.COPY_DST,
    });
    const dispatches = ready.map(({ program, buffers, grid }, i) => {
      this.device.queue.writeBuffer(uniforms, stride * i, packed[i]);
      const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
      const resource = { buffer: uniforms, offset: stride * i, size: packed[i].length };
      const group = this.device.createBindGroup({
        layout: program.pipeline.getBindGroupLayout(0),
        entries: [...entries, { binding: buffers.length, resource }],
      });
      return { pipeline: program.pipeline, group, grid: spreadGrid(program.kernel.name, grid, program.spread) };
    });
    return { dispatches, uniforms };
  }

  /** Start launches, in order. */
  submit(/** @type {readonly Dispatch[]} */ dispatches) {
    const encoder = this.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const { pipeline, group, grid } of dispatches) {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(...grid);
    }
    pass.end();
    this.device.queue.submit([encoder.finish()]);
  }
}
