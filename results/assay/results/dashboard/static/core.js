// What every page needs: elements without markup from strings, figures with units, the address, the theme.
"use strict";

const Assay = {};

// --- elements -----------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; text goes in as text, so that no name can become markup. */
Assay.element = function (name, attributes = {}, ...children) {
  const made = document.createElement(name);
  return Assay.fill(made, attributes, children);
};

/** As `element`, for SVG. */
Assay.shape = function (name, attributes = {}, ...children) {
  return Assay.fill(document.createElementNS(SVG, name), attributes, children);
};

Assay.fill = function (made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
};

/** Text that only screen readers get. */
Assay.spoken = (text) => Assay.element("span", { class: "hidden" }, text);

// --- figures ------------------------------------------------------------------------------------------

const STEPS = {
  s: [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]],
  bytes: [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]],
  instructions: [[1e9, "G instructions"], [1e6, "M instructions"], [1e3, "k instructions"], [1, "instructions"]],
  1: [[1, ""]],
};

/** Three digits, as the command line prints them. */
Assay.digits = function (value) {
  const size = Math.abs(value);
  if (size >= 1e5 || (size > 0 && size < 1e-3)) return value.toExponential(2);
  return value.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
};

/** The scale and the prefix in which `value` has one to three digits before the point. */
Assay.scale = function (value, unit) {
  const steps = STEPS[unit];
  if (!steps) return [1, unit];
  return steps.find(([step]) => Math.abs(value) >= 0.9995 * step) || steps[steps.length - 1];
};

/** A figure with its unit, such as `1.23 ms`. */
Assay.figure = function (value, unit) {
  const [scale, name] = Assay.scale(value, unit);
  if (unit === "ratio") return `${Assay.digits(value)}×`;
  return `${Assay.digits(value / scale)} ${name}`.trim();
};

/** A change as a percentage of what was before: 1.25 is `+25 %`. */
Assay.percent = function (ratio) {
  const part = (ratio - 1) * 100;
  const text = Math.abs(part) < 9.95 ? part.toFixed(1) : part.toFixed(0);
  return `${part > 0 ? "+" : ""}${text.replace("-", "−")} %`;
};

Assay.day = (time) => String(time).slice(0, 10);
Assay.short = (commit) => String(commit).slice(0, 8);

const NAMES = {
  assay: "Assay", onnxruntime: "ONNX Runtime", numpy: "NumPy", torch: "PyTorch",
  "torch-compile": "torch.compile",
};
Assay.engine = (name) => NAMES[name] || name;

const METRICS = {
  latency: "Latency", decode: "Decode", ttft: "Time to first token", prefill: "Prefill",
  load_time: "Load time", first_run_time: "First run", peak_memory: "Peak memory",
  artifact_size: "Size on disk", compile_time: "Compile time", instructions: "Instructions", kernels: "Kernels",
  workspace: "Workspace", weights: "Weights", error: "Largest error, as a part of the tolerance",
  absolute_error: "Largest absolute error", relative_error: "Largest relative error",
  cosine_distance: "1 − cosine similarity", perplexity: "Perplexity",
};
Assay.metric = (name) => METRICS[name] || String(name).replaceAll("_", " ");

/** The command that measured. */
Assay.method = (name) => name === "asv" ? "by asv" : `by assay ${name}`;

/** A link to a commit, or its name alone where no repository is known or the commit is not. */
Assay.commit = function (commit, address, dirty = false) {
  if (!commit) return Assay.element("span", { class: "muted" }, "no commit");
  const name = Assay.element("code", {}, Assay.short(commit) + (dirty ? "*" : ""));
  if (!address || !/^https?:\/\//.test(address)) return name;
  return Assay.element("a", { href: address.replace("{commit}", encodeURIComponent(commit)) }, name);
};

// --- the address --------------------------------------------------------------------------------------

/** What the address says after `#`: settings by name. A fragment works on any host and from a folder. */
Assay.settings = function () {
  const text = location.hash.slice(1);
  return new Map(text.includes("=") ? new URLSearchParams(text) : []);
};

/** Writes settings into the address, without those that are empty. */
Assay.setSettings = function (settings) {
  const kept = [...settings].filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const text = new URLSearchParams(kept).toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
};

// --- data ---------------------------------------------------------------------------------------------

const received = new Map();
const waiting = new Map();

/** Called by data files. */
Assay.receive = function (name, data) {
  received.set(name, data);
  (waiting.get(name) || []).forEach((resolve) => resolve(data));
};

/** The data of that name, now or as soon as its script has run. */
Assay.data = function (name) {
  if (received.has(name)) return Promise.resolve(received.get(name));
  return new Promise((resolve) => waiting.set(name, [...(waiting.get(name) || []), resolve]));
};

/** Loads the data file of one configuration; fails where there is none. */
Assay.load = function (name) {
  if (!/^[0-9a-f]{16}$/.test(name)) return Promise.reject(new Error("no such configuration"));
  return new Promise((resolve, reject) => {
    Assay.data(name).then(resolve);
    const script = Assay.element("script", { src: `data/${name}.js` });
    script.addEventListener("error", () => reject(new Error("no such configuration")));
    document.head.append(script);
  });
};

// --- theme --------------------------------------------------------------------------------------------

const THEMES = ["auto", "light", "dark"];

// A browser may refuse storage to pages from a folder: the choice then lasts for the page.
function remembered() {
  try {
    return localStorage.getItem("assay-theme");
  } catch {
    return null;
  }
}

function applyTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  document.dispatchEvent(new Event("assay-theme"));
}

applyTheme(THEMES.includes(remembered()) ? remembered() : "auto");

document.addEventListener("DOMContentLoaded", () => {
  const choice = document.getElementById("theme");
  choice.value = document.documentElement.dataset.theme || "auto";
  choice.addEventListener("change", () => {
    applyTheme(choice.value);
    try {
      localStorage.setItem("assay-theme", choice.value);
    } catch {
      // the choice lasts for this page
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    document.dispatchEvent(new Event("assay-theme")));
  // The fragment holds settings, so the link may not write it.
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("content").focus();
  });
});
