/** Run models that Assay compiled to WebAssembly or WebGPU, in browsers and in Node.js. Types are in index.d.ts. */

export { ArtifactError, AssayError, CapacityError, DeviceError, InterfaceError } from "./errors.js";
export { GpuModel, loadOnGpu } from "./gpu_model.js";
export { load, Model, ResidentTensor } from "./model.js";
