/** Weights: one safetensors file, read straight into the memory of the model. */

import { DTYPES } from "./dtypes.js";
import { ArtifactError } from "./errors.js";

export const WEIGHTS = "weights.safetensors";

const ALIGNMENT = 64;

/** Names of element types in safetensors, by the manifest's. */
const CODES = /** @type {Record<string, string>} */ ({
  bool: "BOOL", int8: "I8", int16: "I16", int32: "I32", int64: "I64", uint8: "U8", uint16: "U16",
  float16: "F16", bfloat16: "BF16", float32: "F32", float64: "F64",
}); // prettier-ignore

/**
 * Addresses of tensors by name, in a safetensors file that lies at `address` of the memory
 * (https://huggingface.co/docs/safetensors: a length of 8 bytes, a header in JSON, the data).
 *
 * @param {Uint8Array} file
 * @param {number} address
 * @param {readonly { name: string, dtype: string, shape: readonly number[], bytes: number }[]} weights
 */
export function locateWeights(file, address, weights) {
  const damaged = (/** @type {string} */ what) => new ArtifactError(`The weights are damaged: ${what}.`);
  if (file.length < 8) throw damaged("the header is longer than the file");
  const length = Number(new DataView(file.buffer, file.byteOffset, 8).getBigUint64(0, true));
  if (length > file.length - 8) throw damaged("the header is longer than the file");
  let header;
  try {
    header = JSON.parse(new TextDecoder().decode(file.slice(8, 8 + length)));
  } catch (error) {
    throw damaged(`${error}`);
  }
  const start = 8 + length;
  /** @type {Map<string, number>} */
  const found = new Map();
  for (const { name, dtype, shape, bytes } of weights) {
    const entry = header[name];
    const [begin, end] = entry?.data_offsets ?? [];
    if (entry?.dtype !== CODES[dtype] || `${entry.shape}` !== `${shape}` || end - begin !== bytes) {
      throw damaged(`${name} is not what the manifest says`);
    }
    if (!(begin >= 0 && start + end <= file.length)) throw damaged(`${name} lies outside the file`);
    if ((address + start + begin) % Math.min(ALIGNMENT, DTYPES[dtype].bits / 8)) {
      throw damaged(`${name} is not aligned`);
    }
    found.set(name, address + start + begin);
  }
  return found;
}

/**
 * The manifest's descriptions of the weights called `names`, in their order.
 *
 * @param {any} manifest
 * @param {readonly string[]} names
 */
export function describedWeights(manifest, names) {
  const described = new Map(manifest.weights.map((/** @type {any} */ each) => [each.name, each]));
  return names.map((name) => {
    const weight = described.get(name);
    if (weight === undefined) throw new ArtifactError(`The manifest has no weight ${name}.`);
    return weight;
  });
}
