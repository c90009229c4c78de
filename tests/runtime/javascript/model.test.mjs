/** The loader on the artifact of wasm_case.py: `node --test model.test.mjs` with ARTIFACT and LOADER in the environment. */

import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";

const { ARTIFACT, LOADER } = process.env;
const part = (name) => import(pathToFileURL(join(LOADER, name)).href);
const { ArtifactError, AssayError, CapacityError, InterfaceError, load } = await part("index.js");
const { bind, evaluate, readPlan } = await part("plan.js");
const { erf, MATH } = await part("math.js");
const { Machine } = await part("machine.js");
const { missingFeatures } = await part("features.js");
const { sample } = await part("sample.js");

const SCALES = [2, -1, 0.5];

function inputs(rows, count) {
  return {
    x: { data: Float32Array.from({ length: 3 * rows }, (_, i) => i - 4), shape: [rows, 3] },
    ids: { data: BigInt64Array.from({ length: count }, (_, i) => BigInt(7 * i)), shape: [count] },
  };
}

const expected = (x) => Float32Array.from(x.data, (value, i) => value * SCALES[i % 3] + 1);

/** A copy of the artifact, changed by `change(folder)`. */
async function changed(t, change) {
  const folder = await mkdtemp(join(tmpdir(), "assay-"));
  t.after(() => rm(folder, { recursive: true }));
  await cp(ARTIFACT, folder, { recursive: true });
  await change(folder);
  return folder;
}

/** A change of the JSON file `name`. */
const edit = (name, change) => async (folder) => {
  const json = JSON.parse(await readFile(join(folder, name), "utf8"));
  change(json);
  await writeFile(join(folder, name), JSON.stringify(json));
};

describe("a run", () => {
  test("gives the outputs of the plan for every shape", async () => {
    const model = await load(ARTIFACT);
    assert.equal(model.name, "by-hand");
    for (const [rows, count] of [[1, 4], [40_000, 1], [5, 9], [5, 9]]) {
      const given = inputs(rows, count);
      const { y, last } = model.run(given);
      assert.deepEqual(y.shape, [rows, 3]);
      assert.equal(y.dtype, "float32");
      assert.deepEqual(y.data, expected(given.x));
      assert.deepEqual(last.data, BigInt64Array.of(BigInt(7 * (count - 1)) + 2n ** 40n));
      assert.equal(given.ids.data[0], -5n, "an input that kernels write");
    }
    assert.ok(model.memoryBytes >= 40_000 * 3 * 4 * 2);
  });

  test("leaves earlier outputs alone", async () => {
    const model = await load(ARTIFACT);
    const { y } = model.run(inputs(2, 4));
    const kept = y.data.slice();
    model.run({ ...inputs(2, 4), x: { data: new Float32Array(6).fill(9), shape: [2, 3] } });
    assert.deepEqual(y.data, kept);
  });

  test("keeps a resident input where it is", async () => {
    const model = await load(ARTIFACT);
    model.run(inputs(3, 4));
    const ids = model.resident("ids", [3]);
    assert.deepEqual(ids.read(), BigInt64Array.of(0n, 0n, 0n));
    ids.write(BigInt64Array.of(1n, 2n, 3n));
    const given = { ...inputs(3, 4), ids };
    assert.deepEqual(model.run(given).last.data, BigInt64Array.of(3n + 2n ** 40n));
    assert.deepEqual(ids.read(), BigInt64Array.of(-5n, 2n, 3n));
    assert.deepEqual(model.run(given).y.data, expected(given.x));
    assert.throws(() => ids.write(new BigInt64Array(2)), InterfaceError);
    assert.throws(() => model.resident("other", [3]), InterfaceError);
    assert.throws(() => model.resident("ids", [10]), /k 10, not 1 to 9/);
  });

  test("takes the samples of the page", async () => {
    const model = await load(ARTIFACT);
    const given = Object.fromEntries(model.inputs.map((input) => [input.name, sample(input)]));
    assert.deepEqual(model.run(given).y.shape, [2, 3]);
  });
});

describe("what does not fit", () => {
  const good = () => inputs(2, 4);
  const cases = [
    [() => ({ ids: good().ids }), /Input "x" is missing[^]*Expected float32\[n, 3\] with n from 1/],
    [() => ({ ...good(), X: 1 }), /no input "X"[^]*Inputs: x, ids/],
    [() => ({ ...good(), x: { data: new Float64Array(6), shape: [2, 3] } }), /Float64Array, not a Float32Array/],
    [() => ({ ...good(), ids: { data: new Int32Array(4), shape: [4] } }), /Int32Array, not a BigInt64Array/],
    [() => ({ ...good(), x: [1, 2, 3] }), /Input "x" is a object, not a Float32Array/],
    [() => ({ ...good(), x: { data: new Float32Array(6) } }), /no shape/],
    [() => ({ ...good(), x: { data: new Float32Array(6), shape: [3, 3] } }), /6 elements; its shape \[3,3\] has 9/],
    [() => ({ ...good(), x: { data: new Float32Array(8), shape: [2, 4] } }), /size 4 in dimension 1, not 3/],
    [() => ({ ...good(), x: { data: new Float32Array(6), shape: [6] } }), /1 dimensions, not 2/],
    [() => ({ ...good(), x: { data: new Float32Array(0), shape: [0, 3] } }), /n 0, not 1 to/],
    [() => ({ ...good(), ids: { data: new BigInt64Array(10), shape: [10] } }), /k 10, not 1 to 9/],
  ];
  for (const [make, message] of cases) {
    test(`${message}`, async () => {
      const model = await load(ARTIFACT);
      assert.throws(() => model.run(make()), (error) => {
        assert.ok(error instanceof InterfaceError && error instanceof AssayError);
        assert.match(error.message, message);
        assert.ok(error.hint.length > 0);
        return true;
      });
      assert.deepEqual(model.run(good()).y.data, expected(good().x), "the model still runs");
    });
  }

  test("more memory than WebAssembly addresses", async () => {
    const model = await load(ARTIFACT);
    const data = { length: 1.2e9 };
    Object.setPrototypeOf(data, Float32Array.prototype);
    Object.defineProperty(data, "length", { value: 1.2e9 });
    assert.throws(() => model.run({ ...good(), x: { data, shape: [4e8, 3] } }), CapacityError);
    assert.deepEqual(model.run(good()).y.data, expected(good().x));
  });
});

describe("an artifact", () => {
  test("is served from a folder as it is", async (t) => {
    const server = createServer(async (request, response) => {
      try {
        response.end(await readFile(join(ARTIFACT, decodeURIComponent(request.url))));
      } catch {
        response.writeHead(404).end();
      }
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    t.after(() => server.close());
    const base = `http://127.0.0.1:${server.address().port}`;
    const steps = [];
    const model = await load(base, { progress: (...step) => steps.push(step) });
    assert.deepEqual(model.run(inputs(2, 4)).y.data, expected(inputs(2, 4).x));
    assert.equal(steps.at(-1)[0], steps.at(-1)[1]);
    await assert.rejects(load(new URL(`${base}/nothing/`)), /cannot be fetched: status 404/);
  });

  for (const name of ["manifest.json", "lib/model.wasm", "lib/model.plan.json", "weights.safetensors"]) {
    test(`with a changed ${name} is refused`, async (t) => {
      const folder = await changed(t, async (place) => {
        const bytes = await readFile(join(place, name));
        bytes[bytes.length - 3] ^= 1;
        await writeFile(join(place, name), bytes);
      });
      await assert.rejects(load(folder), /is damaged/);
    });
    test(`with a truncated ${name} is refused`, async (t) => {
      const folder = await changed(t, async (place) => {
        const bytes = await readFile(join(place, name));
        await writeFile(join(place, name), bytes.subarray(0, bytes.length - 5));
      });
      await assert.rejects(load(folder), ArtifactError);
      await assert.rejects(load(folder, { verify: false }), ArtifactError);
    });
  }

  test("that is not there is refused", async () => {
    await assert.rejects(load("/nowhere"), /manifest.json cannot be read from \/nowhere/);
  });

  for (const [what, change, message] of [
    ["of another schema", (m) => (m.schema_version = 99), /schema 99/],
    ["for a CPU", (m) => (m.levels[0].entry.driver = "tvm-vm"), /no code for WebAssembly[^]*--target wasm32-simd/],
    ["for a later engine", (m) => m.levels[0].target.features.push("later"), /no WebAssembly later/],
    ["whose weight is another", (m) => (m.weights[0].shape = [4]), /w is not what the manifest says/],
    ["without a file", (m) => delete m.files["lib/model.wasm"], /no file lib\/model.wasm/],
    ["of more inputs than the plan", (m) => m.inputs.push(m.inputs[0]), /does not fit the manifest/],
  ]) {
    test(`${what} is refused`, async (t) => {
      const folder = await changed(t, edit("manifest.json", change));
      await assert.rejects(load(folder, { verify: false }), (error) => {
        assert.ok(error instanceof ArtifactError);
        assert.match(error.message, message);
        return true;
      });
    });
  }
});

describe("a plan", () => {
  let plan;
  before(async () => {
    plan = readPlan(await readFile(join(ARTIFACT, "lib/model.plan.json"), "utf8"));
  });

  test("has expressions like Python's", () => {
    const symbols = new Map([["n", 7], ["m", -7]]);
    for (const [expression, value] of [
      [["//", "m", 2], -4], [["%", "m", 3], 2], [["//", "n", 2], 3], [["%", "n", 3], 1],
      [["min", 3, ["max", "n", 9]], 3], [["select", ["<", "n", 8], 1, ["//", 1, 0]], 1],
      [["+", ["*", "n", "n"], ["-", 1, "m"]], 57], [["==", "n", 7], 1], [["!=", "n", 7], 0], [["<=", 7, "n"], 1],
    ]) assert.equal(evaluate(expression, symbols), value, JSON.stringify(expression));
    for (const bad of ["k", ["//", 1, 0], ["^", 1, 2], ["+", 1], [], null, 0.5, {}, ["*", 2 ** 40, 2 ** 40]]) {
      assert.throws(() => evaluate(bad, symbols), ArtifactError, JSON.stringify(bad));
    }
  });

  for (const [what, change] of [
    ["of another schema", (p) => (p.schema_version = 2)],
    ["for a device", (p) => (p.flavour = "device")],
    ["without steps", (p) => delete p.steps],
  ]) test(`${what} is refused`, () => {
    const copy = structuredClone(plan);
    change(copy);
    assert.throws(() => readPlan(JSON.stringify(copy)), ArtifactError);
  });

  for (const [what, change] of [
    ["a tensor that reaches beyond its storage", (p) => (p.tensors[3].offset = 4)],
    ["a tensor of a storage that is not there", (p) => (p.tensors[3].index = 9)],
    ["a tensor in no known place", (p) => (p.tensors[3].place = "disk")],
    ["a negative offset", (p) => (p.tensors[3].offset = -4)],
    ["an unknown dtype", (p) => (p.tensors[3].dtype = "float7")],
    ["a step of a kernel that is not there", (p) => (p.steps[0].kernel = 9)],
    ["an argument that is not there", (p) => (p.steps[0].arguments[0] = 99)],
    ["a symbol of no dimension", (p) => (p.symbols[0].axis = 5)],
  ]) test(`with ${what} is refused`, () => {
    const copy = structuredClone(plan);
    change(copy);
    assert.throws(() => bind(copy, [[2, 3], [4]]), ArtifactError);
  });

  test("for other shapes is refused", () => {
    assert.throws(() => bind(plan, [[2, 4], [4]]), InterfaceError);
  });

  test("that is no JSON is refused", () => assert.throws(() => readPlan("{"), ArtifactError));
});

test("a kernel that fails says why", async (t) => {
  for (const [kernel, message] of [["refuse", /refuse failed: ValueError: too /], ["scale", /ValueError: too bad/], ["none", /no kernel none/]]) {
    const folder = await changed(t, edit("lib/model.plan.json", (plan) => {
      plan.kernels = [{ name: kernel }];
      plan.steps = [{ kernel: 0, arguments: [0, 3] }];
    }));
    const path = join(folder, "manifest.json");
    const manifest = JSON.parse(await readFile(path, "utf8"));
    manifest.files["lib/model.plan.json"].bytes = (await readFile(join(folder, "lib/model.plan.json"))).length;
    await writeFile(path, JSON.stringify(manifest));
    const model = await load(folder, { verify: false });
    assert.throws(() => model.run(inputs(2, 4)), message);
  }
});

test("a module that imports what is not known is refused", async () => {
  // (module (import "env" "system" (func)))
  const bytes = Buffer.from("0061736d01000000010401600000020e0103656e760673797374656d0000", "hex");
  await assert.rejects(Machine.start(await WebAssembly.compile(bytes)), /imports system/);
});

test("mathematics is C's", () => {
  // Abramowitz and Stegun, table 7.1.
  for (const [x, value] of [[0, 0], [0.5, 0.5204998778], [1, 0.8427007929], [2, 0.995322265], [-1, -0.8427007929], [9, 1]]) {
    assert.ok(Math.abs(erf(x) - value) < 5e-10, `erf(${x})`);
  }
  assert.ok(Number.isNaN(erf(NaN)));
  assert.equal(MATH.round(-2.5), -3);
  assert.equal(MATH.fmax(NaN, 1), 1);
  assert.equal(MATH.fminf(1, NaN), 1);
  assert.equal(MATH.pow(1, NaN), 1);
  assert.equal(MATH.fmod(-7, 3), -1);
});

test("the functions that modules may import are those of the other driver", async () => {
  const machine = await Machine.start(await WebAssembly.compile(await readFile(join(ARTIFACT, "lib/model.wasm"))));
  assert.deepEqual(Object.keys(machine.functions()).sort(), process.env.IMPORTED.split(" ").sort());
});

test("features are asked for", () => {
  assert.deepEqual(missingFeatures(["simd128", "bulk-memory"]), []);
  assert.deepEqual(missingFeatures(["simd128", "unheard-of"]), ["unheard-of"]);
});
