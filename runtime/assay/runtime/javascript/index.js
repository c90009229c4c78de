/** Run models that Assay compiled to WebAssembly, in browsers and in Node.js. Types are in index.d.ts. */

export { ArtifactError, AssayError, CapacityError, InterfaceError } from "./errors.js";
export { load, Model, ResidentTensor } from "./model.js";
