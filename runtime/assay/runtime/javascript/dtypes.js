/** Element types: their sizes, DLPack's codes for them, and the typed arrays that hold them. */

/** @typedef {{ code: number, bits: number, array: any }} DTypeInfo */

/** @type {Readonly<Record<string, DTypeInfo>>} By the manifest's names; codes are those of dlpack.h. */
export const DTYPES = {
  bool: { code: 6, bits: 8, array: Uint8Array },
  int8: { code: 0, bits: 8, array: Int8Array },
  int16: { code: 0, bits: 16, array: Int16Array },
  int32: { code: 0, bits: 32, array: Int32Array },
  int64: { code: 0, bits: 64, array: BigInt64Array },
  uint8: { code: 1, bits: 8, array: Uint8Array },
  uint16: { code: 1, bits: 16, array: Uint16Array },
  uint32: { code: 1, bits: 32, array: Uint32Array },
  uint64: { code: 1, bits: 64, array: BigUint64Array },
  float16: { code: 2, bits: 16, array: Uint16Array },
  float32: { code: 2, bits: 32, array: Float32Array },
  float64: { code: 2, bits: 64, array: Float64Array },
  bfloat16: { code: 4, bits: 16, array: Uint16Array },
};

/**
 * Bytes of a tensor.
 *
 * @param {string} dtype
 * @param {readonly number[]} shape
 */
export function byteSize(dtype, shape) {
  return shape.reduce((product, extent) => product * extent, DTYPES[dtype].bits / 8);
}
