/**
 * The launch plan: which kernels run, on which memory, in which order (docs/launch-plan.md). A plan is bound
 * to the shapes of the inputs, after which every size is a number and every access was checked.
 */

import { byteSize, DTYPES } from "./dtypes.js";
import { ArtifactError, InterfaceError } from "./errors.js";

const SCHEMA_VERSION = 1;
const OPERANDS = {
  "+": 2, "-": 2, "*": 2, "//": 2, "%": 2, min: 2, max: 2,
  "<": 2, "<=": 2, "==": 2, "!=": 2, select: 3,
}; // prettier-ignore

/** @typedef {number | string | [string, ...any[]]} Expression */
/** @typedef {{ place: "storage" | "input" | "weight", index: number, offset: number, dtype: string, shape: number[] }} BoundTensor */
/** @typedef {{ storages: number[], tensors: BoundTensor[], steps: { kernel: string, number: number, arguments: (number | { value: number })[], grid: number[] }[] }} BoundPlan */

const damaged = (/** @type {string} */ what) => new ArtifactError(`The launch plan is damaged: ${what}.`);

/**
 * A plan of a flavour, `cpu` or `device`, from its JSON.
 *
 * @param {string} text
 * @param {string} [flavour]
 * @returns {any}
 */
export function readPlan(text, flavour = "cpu") {
  let plan;
  try {
    plan = JSON.parse(text);
  } catch (error) {
    throw damaged(`${error}`);
  }
  if (plan?.schema_version !== SCHEMA_VERSION) {
    throw new ArtifactError(
      `The launch plan has schema ${plan?.schema_version}; this loader reads schema ${SCHEMA_VERSION} only.`,
      "Build the artifact again, or use the loader that came with it.",
    );
  }
  if (plan.flavour !== flavour) throw new ArtifactError(`The launch plan is for a ${plan.flavour}.`);
  for (const name of ["symbols", "storages", "tensors", "inputs", "weights", "outputs", "kernels", "steps"]) {
    if (!Array.isArray(plan[name])) throw damaged(`it has no ${name}`);
  }
  return { written_inputs: [], ...plan };
}

/**
 * The value of an expression where the symbols have these values.
 *
 * @param {Expression} expression
 * @param {ReadonlyMap<string, number>} symbols
 * @returns {number}
 */
export function evaluate(expression, symbols) {
  if (typeof expression === "number") {
    if (!Number.isSafeInteger(expression)) throw damaged(`${expression} is no size`);
    return expression;
  }
  if (typeof expression === "string") {
    const value = symbols.get(expression);
    if (value === undefined) throw damaged(`there is no symbol ${expression}`);
    return value;
  }
  const [name, ...operands] = Array.isArray(expression) ? expression : [""];
  if (/** @type {any} */ (OPERANDS)[name] !== operands.length) {
    throw damaged(`${JSON.stringify(expression)} is no expression`);
  }
  if (name === "select") {
    return evaluate(operands[evaluate(operands[0], symbols) ? 1 : 2], symbols);
  }
  const value = combined(name, evaluate(operands[0], symbols), evaluate(operands[1], symbols));
  if (!Number.isSafeInteger(value)) throw damaged("a size is beyond 53 bits, or divided by zero");
  return value;
}

/**
 * Division and remainder round down; comparisons give 0 or 1.
 *
 * @param {string} name
 * @param {number} a
 * @param {number} b
 */
function combined(name, a, b) {
  switch (name) {
    case "+": return a + b;
    case "-": return a - b;
    case "*": return a * b;
    case "//": return Math.floor(a / b);
    case "%": return a - b * Math.floor(a / b);
    case "min": return Math.min(a, b);
    case "max": return Math.max(a, b);
    case "<": return Number(a < b);
    case "<=": return Number(a <= b);
    case "==": return Number(a === b);
    default: return Number(a !== b);
  } // prettier-ignore
}

/**
 * `plan` for inputs of these shapes.
 *
 * @param {any} plan
 * @param {readonly (readonly number[])[]} shapes
 * @returns {BoundPlan}
 */
export function bind(plan, shapes) {
  /** @type {Map<string, number>} */
  const symbols = new Map();
  for (const { name, input, axis } of plan.symbols) {
    const size = shapes[input]?.[axis];
    if (size === undefined) throw damaged(`symbol ${name} is of a dimension that is not there`);
    symbols.set(name, size);
  }
  const size = (/** @type {Expression} */ expression) => evaluate(expression, symbols);
  const tensors = plan.tensors.map((/** @type {any} */ each) => ({
    place: each.place,
    index: each.index,
    offset: size(each.offset ?? 0),
    dtype: each.dtype,
    shape: each.shape.map(size),
  }));
  const storages = plan.storages.map((/** @type {any} */ each) => size(each.bytes));
  const steps = plan.steps.map((/** @type {any} */ step) => ({
    kernel: plan.kernels[step.kernel]?.name,
    number: step.kernel,
    arguments: step.arguments.map((/** @type {any} */ each) =>
      typeof each === "number" ? each : { value: size(each[1]) },
    ),
    grid: (step.grid ?? []).map(size),
  }));
  const bound = { storages, tensors, steps };
  check(plan, bound, shapes);
  return bound;
}

/**
 * @param {any} plan
 * @param {BoundPlan} bound
 * @param {readonly (readonly number[])[]} shapes
 */
function check(plan, bound, shapes) {
  const at = (/** @type {number} */ number) => {
    const tensor = bound.tensors[number];
    if (tensor === undefined) throw damaged(`tensor ${number} is not there`);
    return tensor;
  };
  const bytes = (/** @type {number} */ number) => byteSize(at(number).dtype, at(number).shape);
  bound.tensors.forEach((each, number) => {
    if (DTYPES[each.dtype] === undefined) throw damaged(`there is no dtype ${each.dtype}`);
    if (each.offset < 0 || each.shape.some((extent) => extent < 0)) {
      throw damaged(`tensor ${number} has a negative size`);
    }
  });
  plan.inputs.forEach((/** @type {number} */ number, /** @type {number} */ i) => {
    if (`${at(number).shape}` !== `${shapes[i]}`) {
      throw new InterfaceError(`Input ${i} has shape [${shapes[i]}], expected [${at(number).shape}].`);
    }
  });
  /** @type {Record<string, number[]>} */
  const room = { storage: bound.storages, input: plan.inputs.map(bytes), weight: plan.weights.map(bytes) };
  bound.tensors.forEach((each, number) => {
    const limit = room[each.place]?.[each.index];
    if (limit === undefined || each.offset + byteSize(each.dtype, each.shape) > limit) {
      throw damaged(`tensor ${number} reaches beyond ${each.place} ${each.index}`);
    }
  });
  plan.outputs.forEach(at);
  for (const step of bound.steps) {
    if (step.kernel === undefined) throw damaged("a step runs a kernel that is not there");
    for (const each of step.arguments) if (typeof each === "number") at(each);
  }
}
