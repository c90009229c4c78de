/** `node run_artifact.mjs ARTIFACT`: inputs as JSON on stdin, outputs as JSON on stdout; {name: {dtype, shape, data}}. */

import { join } from "node:path";
import { pathToFileURL } from "node:url";

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, int8: Int8Array, uint8: Uint8Array, int16: Int16Array,
  int32: Int32Array, int64: BigInt64Array, bool: Uint8Array, float16: Uint16Array,
};

const folder = process.argv[2];
const { load } = await import(pathToFileURL(join(folder, "javascript", "index.js")).href);
let text = "";
for await (const part of process.stdin) text += part;
const inputs = Object.fromEntries(
  Object.entries(JSON.parse(text)).map(([name, { dtype, shape, data }]) => {
    const array = ARRAYS[dtype];
    return [name, { shape, data: array.from(dtype === "int64" ? data.map(BigInt) : data) }];
  }),
);
const model = await load(folder);
const outputs = model.run(inputs);
console.log(JSON.stringify(
  Object.fromEntries(
    Object.entries(outputs).map(([name, { dtype, shape, data }]) => [name, { dtype, shape, data: [...data].map(Number) }]),
  ),
));
