// The columns of the front page: how each is named, what it means, what it sorts by, what a cell shows.
"use strict";

{
  const { element, spoken } = Assay;
  const missing = (text) => [element("span", { class: "muted", "aria-hidden": "true" }, "–"), spoken(text)];

  /** Configurations of one model differ in these; each is a filter. */
  Assay.FACETS = [
    ["model", "Model"], ["target", "Target"], ["scheme", "Scheme"], ["profile", "Profile"],
    ["threads", "Threads"], ["metric", "Figure"], ["machine", "Machine"],
    ["method", "Measured by"],
  ];

  Assay.SHOWN = {
    slower: ["Slower than a peer", (row) => Object.values(row.peers || {}).some((r) => Assay.verdict(r) === "worse")],
    faster: ["Faster than every peer", (row) => {
      const ratios = Object.values(row.peers || {});
      return ratios.length > 0 && ratios.every((r) => Assay.verdict(r) === "better");
    }],
    regressed: ["Last change made worse", (row) => row.change !== undefined && !row.change.better],
    changed: ["With a change point", (row) => row.change !== undefined],
    never: ["Never executed", (row) => row.executed === "never"],
  };

  Assay.machineName = function (machine) {
    return `${machine.cpu}, ${machine.cpus} CPU${machine.cpus === 1 ? "" : "s"}` +
      (machine.name ? ` (${machine.name})` : "");
  };

  function modelCell(row) {
    const detail = [row.sizes, row.profile === "release" ? null : row.profile].filter(Boolean).join(" · ");
    return [
      element("a", { href: `series.html#id=${row.id}&back=${encodeURIComponent(location.hash.slice(1))}` }, row.model),
      detail ? element("small", {}, detail) : null,
      element("div", {}, Assay.labels(row)),
    ];
  }

  function figureCell(row) {
    if (row.value === undefined) return missing("no figure");
    const shown = [element("span", { class: "figure" }, Assay.figure(row.value, row.unit))];
    // Latency is what a row means unless it says otherwise.
    if (row.metric !== "latency") shown.push(element("small", {}, Assay.metric(row.metric)));
    else shown.push(spoken(` ${Assay.metric(row.metric)}`));
    return shown;
  }

  function qualityCell(row) {
    if (!row.quality) return missing("no verified error known");
    const { cosine, absolute_error: error, perplexity } = row.quality;
    return [
      element("span", {}, cosine >= 0.999995 ? "1.00000" : cosine.toFixed(5)),
      element("small", {}, `error ${error.toExponential(0)}`),
      perplexity === undefined ? null : element("small", {}, `perplexity ${Assay.digits(perplexity)}`),
    ];
  }

  /** The columns for data with these peers. `order`: the direction that sorting begins with. */
  Assay.columns = function (index) {
    const peers = index.peers.map((peer) => ({
      id: `peer-${peer}`,
      name: `vs ${Assay.engine(peer)}`,
      number: true,
      order: "asc",
      value: (row) => row.peers?.[peer]?.[0],
      cell: (row) => Assay.ratio(row.peers?.[peer], row.older?.[peer]),
      meaning: `How many times better ours is than ${Assay.engine(peer)} in the same run: its time over ours, ` +
        "or our rate over its. Above 1× ours is better. Below, the 95 % interval; ▲ and ▼ mean that it lies " +
        "wholly on one side of 1×, and the ratio more than 1 % away from it; ≈ means neither. A date: the newest run left it out. A dash: never measured beside it.",
    }));
    return [
      { id: "model", name: "Model", order: "asc", value: (row) => row.model, cell: modelCell, heading: true,
        meaning: "What was compiled, at which sizes of its symbolic dimensions, and its profile where it is not release. The link leads to all figures over commits." },
      { id: "target", name: "Target", order: "asc", value: (row) => row.target, cell: (row) => row.target,
        meaning: "The instruction set or device that the code was compiled for. “Compiled, never executed”: no machine has run it, so it has no figures." },
      { id: "scheme", name: "Scheme", order: "asc", value: (row) => row.scheme, cell: (row) => row.scheme,
        meaning: "How weights are stored and multiplied." },
      { id: "threads", name: "Threads", number: true, order: "asc", value: (row) => row.threads,
        cell: (row) => row.threads ? String(row.threads) : missing("never run"),
        meaning: "How many threads ran one call, ours and every peer's." },
      { id: "figure", name: "Figure", number: true, order: "asc", value: (row) => row.value, cell: figureCell,
        meaning: "The newest figure, the median over rounds in fresh processes: latency of one call; for language models tokens a second in decoding, and the time to the first token." },
      ...peers,
      { id: "trend", name: "Trend", order: "asc", value: (row) => row.trend?.length > 1 ? row.value / row.trend[0] : undefined,
        cell: Assay.sparkline,
        meaning: "The figure over commits, oldest left; the band is the 95 % interval, a vertical line the last change point. Less than 15 % does not fill the height. Sorts by the newest figure over the oldest." },
      { id: "change", name: "Last change", number: true, order: "desc", value: (row) => row.change?.time,
        cell: (row) => !row.runs ? missing("no figure")
          : !row.change && row.runs < index.fewest ? element("span", { class: "muted" }, "too few runs")
          : Assay.change(row.change, index.commit_address),
        meaning: `The last lasting step: how much the figure moved, where, and whether that is better (▲) or worse (▼). “None”: nothing but noise, as far as can be told. “Too few runs”: looked for from ${index.fewest} commits on. “Not confirmed yet”: it rests on the last one or two commits.` },
      { id: "roof", name: "Roofline", number: true, order: "asc", value: (row) => row.roof?.fraction, cell: (row) => Assay.roof(row.roof),
        meaning: "Time that this machine would need at best over the time of all kernels, and what bounds most of it. A dash: run assay profile ARTIFACT --json, and build this page with --kernel-profile." },
      { id: "size", name: "Size", number: true, order: "asc", value: (row) => row.size,
        cell: (row) => row.size === undefined ? missing("size unknown") : Assay.figure(row.size, "bytes"),
        meaning: "Files that are loaded: the artifact with its runtime library (MB: millions of bytes)." },
      { id: "quality", name: "Quality", number: true, order: "asc", value: (row) => row.quality?.cosine, cell: qualityCell,
        meaning: "The worst cosine similarity of an output with the reference's when the build was verified, and the largest absolute error of one; of language models the perplexity, where it was measured. A dash: build this page with --artifacts FOLDER." },
    ];
  };
}
