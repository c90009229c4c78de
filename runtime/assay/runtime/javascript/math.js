/** What kernels call of C's mathematics, element by element: WebAssembly has no such instructions. */

const RECIPROCAL_ROOT = 2 / Math.sqrt(Math.PI);

/**
 * The error function, by Kummer's series of positive terms (Abramowitz and Stegun, 7.1.6).
 *
 * @param {number} x
 */
export function erf(x) {
  if (Number.isNaN(x)) return x;
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n += 1) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return RECIPROCAL_ROOT * Math.exp(-x * x) * sum;
}

/** @type {Record<string, (x: number, y: number) => number>} */
const FUNCTIONS = {
  acos: Math.acos,
  acosh: Math.acosh,
  asin: Math.asin,
  asinh: Math.asinh,
  atan: Math.atan,
  atan2: Math.atan2,
  atanh: Math.atanh,
  cos: Math.cos,
  cosh: Math.cosh,
  erf,
  exp: Math.exp,
  exp2: (x) => 2 ** x,
  expm1: Math.expm1,
  // JavaScript's own give NaN where one of the two is, and C's the other.
  fmax: (x, y) => (Number.isNaN(x) ? y : Number.isNaN(y) ? x : Math.max(x, y)),
  fmin: (x, y) => (Number.isNaN(x) ? y : Number.isNaN(y) ? x : Math.min(x, y)),
  fmod: (x, y) => x % y,
  hypot: Math.hypot,
  log: Math.log,
  log10: Math.log10,
  log1p: Math.log1p,
  log2: Math.log2,
  pow: (x, y) => (x === 1 || (x === -1 && Math.abs(y) === Infinity) ? 1 : x ** y),
  // Halves away from zero.
  round: (x) => Math.sign(x) * Math.floor(Math.abs(x) + 0.5),
  sin: Math.sin,
  sinh: Math.sinh,
  tan: Math.tan,
  tanh: Math.tanh,
};

/** The functions by the names that C has for them, of float64 and (with an f) of float32. */
export const MATH = Object.fromEntries(
  Object.entries(FUNCTIONS).flatMap(([name, f]) => [
    [name, f],
    [`${name}f`, f],
  ]),
);
