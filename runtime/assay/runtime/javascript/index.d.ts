/** Run models that Assay compiled to WebAssembly (target `wasm32-simd`) or WebGPU, in browsers and in Node.js. */

/** Names of element types, as the manifest has them. */
export type DType =
  | "float16"
  | "float32"
  | "float64"
  | "int8"
  | "int16"
  | "int32"
  | "int64"
  | "uint8"
  | "bool";

/** What holds elements: `int64` is a BigInt64Array, `float16` the bits in a Uint16Array, `bool` a Uint8Array. */
export type TensorData =
  | Float32Array
  | Float64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Uint8Array
  | Uint16Array;

/** A dense tensor, rows last. */
export interface Tensor {
  readonly data: TensorData;
  readonly shape: readonly number[];
}

/** A tensor that `Model.run` gives: a copy, the caller's to keep. */
export interface OutputTensor extends Tensor {
  readonly dtype: DType;
}

/** A dimension that is given at run time, within `minimum` and `maximum` (inclusive). */
export interface SymbolicSize {
  readonly name: string;
  readonly default: number;
  readonly minimum: number;
  readonly maximum: number;
}

export interface Input {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly (number | SymbolicSize)[];
}

/** A dimension of an output is a size, or an expression over the symbolic ones such as `2*batch`. */
export interface Output {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly (number | string)[];
}

/** The base of all errors: what is wrong, and in `hint` what to do. */
export class AssayError extends Error {
  constructor(message: string, hint?: string);
  readonly hint: string | undefined;
}

/** An artifact that is damaged, incomplete, of another version, or not for WebAssembly. */
export class ArtifactError extends AssayError {}

/** An input whose name, dtype or shape does not fit the interface. */
export class InterfaceError extends AssayError {}

/** Memory that does not suffice: WebAssembly addresses 4 GiB, and a device binds what it says. */
export class CapacityError extends AssayError {}

/** No device of WebGPU, one that lacks what kernels need, or one that was lost. */
export class DeviceError extends AssayError {}

export interface LoadOptions {
  /** Check the digest of every file that is read. True by default. */
  readonly verify?: boolean;
  /** Called while the weights are read: bytes so far, bytes of all. */
  readonly progress?: (loaded: number, total: number) => void;
}

/**
 * Load the artifact at `location`: a URL (string or URL) of its folder, or in Node.js also the path of one.
 *
 * @throws ArtifactError, CapacityError
 */
export function load(location: string | URL, options?: LoadOptions): Promise<Model>;

/** An input that stays in the memory of the model, so that a run copies nothing: the cache of a decoder. */
export class ResidentTensor {
  private constructor();
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** A copy of the elements. */
  read(): TensorData;
  /** Set all elements. */
  write(data: TensorData): void;
}

/** A loaded model; `load` makes one. */
export class Model {
  private constructor();
  readonly name: string;
  readonly scheme: string;
  readonly inputs: readonly Input[];
  readonly outputs: readonly Output[];
  /** Bytes of memory that it has reserved: weights, intermediate results and all. */
  readonly memoryBytes: number;
  /**
   * The outputs by name for inputs by name. Runs on the calling thread until it is done. An input that the
   * model writes (the cache of a decoder) is written where it is.
   *
   * @throws InterfaceError naming the input that does not fit; CapacityError
   */
  run(inputs: Readonly<Record<string, Tensor | ResidentTensor>>): Record<string, OutputTensor>;
  /** Memory for the input called `name`, zeros at first. @throws InterfaceError, CapacityError */
  resident(name: string, shape: readonly number[]): ResidentTensor;
}

/**
 * Load the code for WebGPU of the artifact at `location`, on the device that the browser prefers. Node.js has no
 * WebGPU.
 *
 * @throws ArtifactError, CapacityError, DeviceError
 */
export function loadOnGpu(location: string | URL, options?: LoadOptions): Promise<GpuModel>;

/** A model on a device; `loadOnGpu` makes one. */
export class GpuModel {
  private constructor();
  readonly name: string;
  readonly scheme: string;
  readonly inputs: readonly Input[];
  readonly outputs: readonly Output[];
  /** What the browser says of the device. */
  readonly device: string;
  /** Bytes of the device's memory that it has taken: weights, inputs and intermediate results. */
  readonly memoryBytes: number;
  /**
   * The outputs by name for inputs by name, once the device is done. Calls take turns. An input that the model
   * writes (the cache of a decoder) is written where it is.
   *
   * @throws InterfaceError naming the input that does not fit; CapacityError, DeviceError
   */
  run(inputs: Readonly<Record<string, Tensor>>): Promise<Record<string, OutputTensor>>;
  /** Give back the device's memory; nothing may be called afterwards. */
  close(): void;
}
