/**
 * An instance of a compiled module: its memory, tensors in it, and calls of kernels.
 *
 * A kernel is `__tvm_ffi_NAME(self, arguments, count, result) -> status`. An argument is 16 bytes (TVMFFIAny of
 * tvm-ffi's c_api.h): an int32 type index, 4 bytes of padding, 8 bytes of value. A tensor is a DLTensor of 40
 * bytes (dlpack.h, 32-bit pointers) whose shape and strides are int64.
 *
 * Memory from the bottom: the linker's stack and constants, what `keep` gave for good, what `allocate` gave
 * until the next `release`, and above all that the workspaces of the kernel that runs.
 */

import { DTYPES } from "./dtypes.js";
import { ArtifactError, CapacityError } from "./errors.js";
import { MATH } from "./math.js";

const ALIGNMENT = 64;
const PAGE = 65536;
const LIMIT = 2 ** 32;
const PREFIX = "__tvm_ffi_";
// tvm-ffi's type indices, and DLPack's number of the CPU.
const INT = 1;
const DLTENSOR = 7;
const CPU = 1;

const aligned = (/** @type {number} */ address) => Math.ceil(address / ALIGNMENT) * ALIGNMENT;

export class Machine {
  /**
   * @param {WebAssembly.Module} module
   * @returns {Promise<Machine>}
   */
  static async start(module) {
    const machine = new Machine();
    const functions = machine.functions();
    /** @type {Record<string, Record<string, any>>} */
    const imports = {};
    for (const { module: space, name } of WebAssembly.Module.imports(module)) {
      if (functions[name] === undefined) {
        throw new ArtifactError(`The module imports ${name}, which this loader does not have.`);
      }
      (imports[space] ??= {})[name] = functions[name];
    }
    /** @type {any} */
    const exports = (await WebAssembly.instantiate(module, imports)).exports;
    if (!(exports.memory instanceof WebAssembly.Memory) || exports.__heap_base === undefined) {
      throw new ArtifactError("The module has no memory: it is not one of Assay's.");
    }
    machine.exports = exports;
    machine.memory = exports.memory;
    machine.kept = machine.top = machine.work = aligned(exports.__heap_base.value);
    machine.result = machine.keep(16);
    return machine;
  }

  /** @private */
  constructor() {
    /** @type {any} */
    this.exports = null;
    /** @type {any} */
    this.memory = null;
    this.kept = 0;
    this.top = 0;
    this.work = 0;
    this.result = 0;
    this.message = "";
  }

  /** The address of `size` bytes that are there for good. What `allocate` gave before is lost. */
  keep(/** @type {number} */ size) {
    const address = this.kept;
    this.kept = this.top = this.work = this.reserve(address, size);
    return address;
  }

  /** The address of `size` bytes, aligned, until the next `release`. */
  allocate(/** @type {number} */ size) {
    const address = this.top;
    this.top = this.work = this.reserve(address, size);
    return address;
  }

  /** Give back all that `allocate` gave. */
  release() {
    this.top = this.work = this.kept;
  }

  /**
   * Make sure that `size` bytes from `address` on are there; the first aligned address behind them.
   *
   * @param {number} address
   * @param {number} size
   */
  reserve(address, size) {
    const end = aligned(address + size);
    const room = this.memory.buffer.byteLength;
    if (end <= room) return end;
    const mebibytes = Math.ceil(end / 2 ** 20);
    if (end > LIMIT) {
      throw new CapacityError(
        `WebAssembly addresses 4096 MiB; ${mebibytes} MiB are needed.`,
        "Choose smaller inputs, or build with a scheme whose weights are smaller.",
      );
    }
    try {
      this.memory.grow(Math.ceil((end - room) / PAGE));
    } catch (error) {
      throw new CapacityError(`There are no ${mebibytes} MiB of memory: ${error}`);
    }
    return end;
  }

  /**
   * The elements at `address`, until memory is reserved again.
   *
   * @param {number} address
   * @param {string} dtype
   * @param {number} count
   */
  view(address, dtype, count) {
    return new DTYPES[dtype].array(this.memory.buffer, address, count);
  }

  /**
   * The address of a DLTensor, allocated, for data at `data`.
   *
   * @param {number} data
   * @param {string} dtype
   * @param {readonly number[]} shape
   */
  tensor(data, dtype, shape) {
    const rank = shape.length;
    const header = this.allocate(40 + 16 * rank);
    const bytes = new DataView(this.memory.buffer, header);
    const { code, bits } = DTYPES[dtype];
    bytes.setUint32(0, data, true);
    bytes.setInt32(4, CPU, true);
    bytes.setInt32(8, 0, true);
    bytes.setInt32(12, rank, true);
    bytes.setUint8(16, code);
    bytes.setUint8(17, bits);
    bytes.setUint16(18, 1, true);
    bytes.setUint32(20, header + 40, true);
    bytes.setUint32(24, header + 40 + 8 * rank, true);
    bytes.setBigUint64(32, 0n, true);
    let stride = 1;
    for (let axis = rank - 1; axis >= 0; axis -= 1) {
      bytes.setBigInt64(40 + 8 * axis, BigInt(shape[axis]), true);
      bytes.setBigInt64(40 + 8 * (rank + axis), BigInt(stride), true);
      stride *= shape[axis];
    }
    return header;
  }

  /**
   * A call of `kernel` with DLTensors and integers, ready to be made again and again.
   *
   * @param {string} kernel
   * @param {readonly ({ tensor: number } | { value: number })[]} values
   * @returns {() => void}
   */
  prepare(kernel, values) {
    const call = this.exports[PREFIX + kernel];
    if (typeof call !== "function") throw new ArtifactError(`The module has no kernel ${kernel}.`);
    const place = this.allocate(16 * values.length);
    const bytes = new DataView(this.memory.buffer, place);
    values.forEach((each, i) => {
      const isTensor = "tensor" in each;
      bytes.setInt32(16 * i, isTensor ? DLTENSOR : INT, true);
      bytes.setUint32(16 * i + 4, 0, true);
      bytes.setBigInt64(16 * i + 8, BigInt(isTensor ? each.tensor : each.value), true);
    });
    return () => {
      if (call(0, place, values.length, this.result) !== 0) {
        throw new ArtifactError(`Kernel ${kernel} failed: ${this.message}`);
      }
    };
  }

  /** A string of C. */
  text(/** @type {number} */ address) {
    const bytes = new Uint8Array(this.memory.buffer, address >>> 0);
    return new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
  }

  /**
   * What a module may import, by name.
   *
   * @returns {Record<string, (...values: any[]) => any>}
   */
  functions() {
    return {
      ...MATH,
      TVMFFIErrorSetRaisedFromCStr: (kind, message) => {
        this.message = `${this.text(kind)}: ${this.text(message)}`;
      },
      TVMFFIErrorSetRaisedFromCStrParts: (kind, parts, count) => {
        const addresses = [...this.view(parts >>> 0, "uint32", count)];
        this.message = `${this.text(kind)}: ${addresses.map((each) => this.text(each)).join("")}`;
      },
      TVMBackendAllocWorkspace: (_device, _number, size) => {
        const address = this.work;
        this.work = this.reserve(address, Number(size));
        return address;
      },
      // Kernels give back what they took last first.
      TVMBackendFreeWorkspace: (_device, _number, address) => {
        this.work = address >>> 0;
        return 0;
      },
      // A parallel loop, in one task; TVMParallelGroupEnv is a handle and the number of tasks.
      TVMBackendParallelLaunch: (lambda, data) => {
        const group = this.work;
        this.work = this.reserve(group, 8);
        this.view(group, "uint32", 2).set([0, 1]);
        const status = this.exports.__indirect_function_table.get(lambda)(0, group, data);
        this.work = group;
        return status;
      },
      // Of TVM's start-up code, which is linked in and never runs.
      TVMFFIEnvModRegisterSystemLibSymbol: () => 0,
    };
  }
}
