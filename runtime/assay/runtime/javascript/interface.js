/** What a model takes: names, dtypes and shapes of inputs, checked. */

import { DTYPES } from "./dtypes.js";
import { InterfaceError } from "./errors.js";

/** @typedef {{ name: string, default: number, minimum: number, maximum: number }} SymbolicSize */
/** @typedef {{ name: string, dtype: string, shape: (number | SymbolicSize)[] }} Input */

/**
 * The values in the order of the interface. Throws an InterfaceError for what does not fit.
 *
 * @param {Input[]} interface_
 * @param {Record<string, any>} inputs
 * @param {(value: any) => boolean} isResident of a value that has dtype and shape, and no data
 * @returns {any[]}
 */
export function checkedInputs(interface_, inputs, isResident = () => false) {
  for (const name of Object.keys(inputs)) {
    if (!interface_.some((each) => each.name === name)) throw unknown(name, interface_);
  }
  /** @type {Map<string, { size: number, input: string }>} */
  const sizes = new Map();
  return interface_.map((input) => {
    const value = inputs[input.name];
    if (value === undefined) {
      throw new InterfaceError(`Input "${input.name}" is missing.`, `Expected ${describe(input)}.`);
    }
    checkValue(input, value, isResident);
    checkShape(input, value.shape, sizes);
    return value;
  });
}

/**
 * @param {string} name
 * @param {Input[]} inputs
 */
export function unknown(name, inputs) {
  return new InterfaceError(
    `The model has no input "${name}".`,
    `Inputs: ${inputs.map((each) => each.name).join(", ") || "none"}.`,
  );
}

/**
 * @param {Input} input
 * @param {any} value
 * @param {(value: any) => boolean} isResident
 */
function checkValue(input, value, isResident) {
  const expected = `Expected ${describe(input)}.`;
  if (isResident(value)) {
    if (value.dtype === input.dtype) return;
    throw new InterfaceError(`Input "${input.name}" is ${value.dtype}, not ${input.dtype}.`, expected);
  }
  const array = DTYPES[input.dtype].array;
  if (!(value?.data instanceof array)) {
    const found = value?.data?.constructor?.name ?? typeof value;
    throw new InterfaceError(`Input "${input.name}" is a ${found}, not a ${array.name}.`, expected);
  }
  if (!Array.isArray(value.shape)) {
    throw new InterfaceError(`Input "${input.name}" has no shape.`, expected);
  }
  const count = value.shape.reduce((/** @type {number} */ product, /** @type {number} */ each) => product * each, 1);
  if (count !== value.data.length) {
    throw new InterfaceError(
      `Input "${input.name}" has ${value.data.length} elements; its shape [${value.shape}] has ${count}.`,
      expected,
    );
  }
}

/**
 * @param {Input} input
 * @param {readonly number[]} shape
 * @param {Map<string, { size: number, input: string }>} sizes
 */
export function checkShape(input, shape, sizes) {
  const fail = (/** @type {string} */ problem) => {
    throw new InterfaceError(
      `Input "${input.name}" ${problem}.`,
      `Expected ${describe(input)}, got ${input.dtype}[${shape.join(", ")}].`,
    );
  };
  if (shape.length !== input.shape.length) fail(`has ${shape.length} dimensions, not ${input.shape.length}`);
  input.shape.forEach((dim, axis) => {
    const size = shape[axis];
    if (!Number.isInteger(size) || size < 0) fail(`has the size ${size} in dimension ${axis}`);
    if (typeof dim === "number") {
      if (size !== dim) fail(`has size ${size} in dimension ${axis}, not ${dim}`);
      return;
    }
    if (size < dim.minimum || size > dim.maximum) {
      fail(`has ${dim.name} ${size}, not ${dim.minimum} to ${dim.maximum}`);
    }
    const first = sizes.get(dim.name);
    if (first === undefined) sizes.set(dim.name, { size, input: input.name });
    else if (first.size !== size) fail(`has ${dim.name} ${size}, but input "${first.input}" has ${first.size}`);
  });
}

/**
 * The interface of an input in words.
 *
 * @param {Input} input
 */
function describe(input) {
  const dims = input.shape.map((dim) => (typeof dim === "number" ? dim : dim.name));
  const ranges = input.shape.flatMap((dim) =>
    typeof dim === "number" ? [] : [`${dim.name} from ${dim.minimum} to ${dim.maximum}`],
  );
  const text = `${input.dtype}[${dims.join(", ")}]`;
  return ranges.length ? `${text} with ${ranges.join(", ")}` : text;
}
