// Small marks within text: sparklines, bars, ratios, changes, labels. Each has words beside its colour.
"use strict";

{
  const { element, shape, spoken } = Assay;
  const WIDTH = 112;
  const HEIGHT = 26;
  const EDGE = 3;
  const LEAST = 0.01; // the relative difference that matters, as for change points
  const FLAT = 0.15; // a smaller part of the figure does not fill the height

  /** A line through the newest figures, its last point and its last change marked. */
  Assay.sparkline = function (row) {
    const values = row.trend || [];
    if (values.length < 2) return element("span", { class: "muted" }, values.length ? "1 run" : "–");
    // The spread comes in thousandths of the figure: below, above, and so on.
    const spread = row.spread || [];
    const below = values.map((value, place) => value * (1 - (spread[2 * place] || 0) / 1000));
    const above = values.map((value, place) => value * (1 + (spread[2 * place + 1] || 0) / 1000));
    const low = Math.min(...below);
    const high = Math.max(...above);
    // A trend that moves by little is drawn nearly flat: noise is not to look like a cliff.
    const span = Math.max(high - low, Math.abs(high) * FLAT) || 1;
    const middle = (low + high) / 2;
    const x = (place) => EDGE + (place / (values.length - 1)) * (WIDTH - 2 * EDGE);
    const y = (value) => HEIGHT / 2 - ((value - middle) / span) * (HEIGHT - 2 * EDGE);
    const at = (value, place) => `${x(place).toFixed(1)},${y(value).toFixed(1)}`;
    const last = values.length - 1;
    const band = [...above.map(at), ...below.map(at).reverse()];
    const marks = spread.length ? [shape("polygon", { class: "band", points: band.join(" ") })] : [];
    marks.push(shape("polyline", { class: "line", points: values.map(at).join(" ") }));
    if (row.change) {
      const step = EDGE + row.change.at * (WIDTH - 2 * EDGE);
      const kind = row.change.better ? "better" : "worse";
      marks.push(shape("line", { class: `step ${kind}`, x1: step, x2: step, y1: 1, y2: HEIGHT - 1 }));
    }
    marks.push(shape("circle", { class: "dot", cx: x(last), cy: y(values[last]), r: 2.5 }));
    const label = `${row.runs} runs, ${Assay.figure(values[0], row.unit)} to ` +
      `${Assay.figure(values[last], row.unit)}, lowest ${Assay.figure(Math.min(...values), row.unit)}, ` +
      `highest ${Assay.figure(Math.max(...values), row.unit)}` +
      (spread.length ? `, newest interval ${Assay.figure(below[last], row.unit)} to ${Assay.figure(above[last], row.unit)}` : "");
    return shape("svg",
      { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label }, marks);
  };

  /** Better or worse where the interval tells and it matters, or neither. */
  Assay.verdict = function (ratio) {
    const [value, low = value, high = value] = ratio;
    if (low > 1 && value > 1 + LEAST) return "better";
    if (high < 1 && value < 1 / (1 + LEAST)) return "worse";
    return "even";
  };

  const GLYPHS = { better: "▲", worse: "▼", even: "≈" };
  const WORDS = { better: "better", worse: "worse", even: "no clear difference" };

  Assay.glyph = (kind) =>
    element("span", { class: `glyph ${kind}`, "aria-hidden": "true" }, GLYPHS[kind]);

  /** How many times better than a peer, with the interval below, or the day of an older run. */
  Assay.ratio = function (ratio, older) {
    if (!ratio) return element("span", { class: "muted" }, "–");
    const kind = Assay.verdict(ratio);
    const [value, low, high] = ratio;
    return [
      element("span", { class: `ratio ${kind}` }, Assay.glyph(kind), `${Assay.digits(value)}×`, spoken(` ${WORDS[kind]}`)),
      older ? element("small", {}, `on ${Assay.day(older)}`) : null,
      low === undefined ? null
        : element("small", {}, spoken("interval "), `${Assay.digits(low)}–${Assay.digits(high)}`),
    ];
  };

  /** A change point: by how much, and at which commit. */
  Assay.change = function (change, address) {
    if (!change) return element("span", { class: "muted" }, "none");
    const kind = change.better ? "better" : "worse";
    return [
      element("span", { class: `ratio ${kind}` }, Assay.glyph(kind), Assay.percent(change.ratio),
        spoken(` ${WORDS[kind]}`)),
      element("small", {}, Assay.commit(change.commit, address), ` ${Assay.day(change.time)}`),
      change.unconfirmed ? element("small", {}, "not confirmed yet") : null,
    ];
  };

  /** How near the machine's roof kernels run, as a bar with its figure. */
  Assay.roof = function (roof) {
    if (!roof) return element("span", { class: "muted" }, "–");
    const part = Math.max(0, Math.min(1, roof.fraction));
    return [
      element("span", {}, `${Math.round(roof.fraction * 100)} %`),
      shape("svg", { class: "bar", viewBox: "0 0 64 4", preserveAspectRatio: "none", "aria-hidden": "true" },
        shape("rect", { class: "track", width: 64, height: 4, rx: 2 }),
        shape("rect", { class: "fill", width: 64 * part, height: 4, rx: 2 })),
      element("small", {}, roof.bound),
    ];
  };

  /** What must be known of a configuration beside its name. */
  Assay.labels = function (row) {
    const labels = [];
    const add = (text, kind, title) => labels.push(element("span", { class: `label ${kind}`, title }, text));
    if (row.executed === "never") add("compiled, never executed", "warn", "No machine has run this code yet.");
    if (row.executed === "emulated") add("ran emulated", "warn", "Verified under an emulator, never timed.");
    if (row.method && row.method !== "bench") add(Assay.method(row.method), "", "Measured by another command than assay bench, in its own way: figures of the two do not compare.");
    if (row.random) add("random weights", "", "Real shapes and random weights: speed counts, answers mean nothing.");
    return labels;
  };
}
