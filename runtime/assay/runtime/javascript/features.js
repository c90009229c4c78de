/** Which extensions of WebAssembly this engine has: each is asked for by a smallest module that uses it. */

/**
 * A module of one function `() -> ()` with this body.
 *
 * @param {readonly number[]} body
 */
const module = (body) => {
  const code = [0, ...body, 0x0b];
  return new Uint8Array([
    0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, // magic and version
    0x01, 0x04, 0x01, 0x60, 0x00, 0x00, // one type
    0x03, 0x02, 0x01, 0x00, // one function
    0x05, 0x03, 0x01, 0x00, 0x00, // one memory
    0x0a, code.length + 2, 0x01, code.length, ...code,
  ]); // prettier-ignore
};

const constant = [0xfd, 0x0c, ...new Array(16).fill(0)];

/** @type {Record<string, Uint8Array<ArrayBuffer>>} */
const MODULES = {
  "bulk-memory": module([0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 0x0b, 0x00]), // memory.fill
  simd128: module([...constant, 0x1a]), // v128.const, drop
  // f32x4.relaxed_madd: 0xfd, 0x105 as LEB128
  "relaxed-simd": module([...constant, ...constant, ...constant, 0xfd, 0x85, 0x02, 0x1a]),
};

/**
 * Those of `features` that this engine lacks, or that this loader does not know.
 *
 * @param {readonly string[]} features
 */
export function missingFeatures(features) {
  return features.filter((name) => MODULES[name] === undefined || !WebAssembly.validate(MODULES[name]));
}
