/** Made-up inputs, to try a model with. */

import { DTYPES } from "./dtypes.js";

/**
 * An input of its default size: a sawtooth from 0 to 1 (real numbers), or 0 and 1 in turn (integers).
 *
 * @param {import("./model.js").Input} input
 */
export function sample(input) {
  const shape = input.shape.map((dim) => (typeof dim === "number" ? dim : dim.default));
  const data = new DTYPES[input.dtype].array(shape.reduce((product, extent) => product * extent, 1));
  if (input.dtype === "float32" || input.dtype === "float64") {
    for (let i = 0; i < data.length; i += 1) data[i] = (i % 256) / 256;
  } else if (input.dtype === "int64") {
    for (let i = 0; i < data.length; i += 1) data[i] = BigInt(i % 2);
  } else if (input.dtype !== "float16") {
    for (let i = 0; i < data.length; i += 1) data[i] = i % 2;
  }
  return { data, shape };
}
