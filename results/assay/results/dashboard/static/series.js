// The page of one configuration: its newest figures, then a plot for each metric and for each ratio to a peer.
"use strict";

{
  const { element } = Assay;
  const byId = (id) => document.getElementById(id);
  const OURS = "assay";
  const last = (values) => values[values.length - 1];

  function tile(title, big, about, parts) {
    return element("div", { class: "tile" }, element("h2", {}, title), element("p", { class: "big" }, big),
      about ? element("p", { class: "about" }, about) : null, parts ? element("p", { class: "parts" }, parts) : null);
  }

  function figureTile(line) {
    const interval = line.low && last(line.low) !== null
      ? `95 %: ${Assay.figure(last(line.low), line.unit)} to ${Assay.figure(last(line.high), line.unit)}` : "too few rounds for an interval";
    return tile(Assay.metric(line.metric), Assay.figure(last(line.value), line.unit), interval);
  }

  function ratioTile(line) {
    const ratio = [last(line.value)];
    if (line.low && last(line.low) !== null) ratio.push(last(line.low), last(line.high));
    const kind = Assay.verdict(ratio);
    const words = { better: "better", worse: "worse", even: "no clear difference" }[kind];
    return tile(`${Assay.metric(line.metric)} vs ${Assay.engine(line.engine)}`, `${Assay.digits(ratio[0])}×`,
      ratio.length > 1 ? `95 %: ${Assay.digits(ratio[1])} to ${Assay.digits(ratio[2])}` : null,
      element("span", { class: "part" }, Assay.glyph(kind), words));
  }

  function buildTiles(build, threads) {
    const tiles = [];
    if (build?.size) tiles.push(tile("Artifact", Assay.figure(build.size, "bytes"), "weights, code and manifest"));
    if (build?.quality) {
      const { cosine, absolute_error: error, reference } = build.quality;
      const { perplexity } = build.quality;
      if (perplexity !== undefined && perplexity !== null) tiles.push(tile("Perplexity", Assay.digits(perplexity), "of the artifact, on the text of assay quantize"));
      tiles.push(tile("Quality", cosine >= 0.999995 ? "1.00000" : cosine.toFixed(5), `worst cosine similarity; max error ${error.toPrecision(2)}; ${reference}`));
    }
    const roof = build?.rooflines?.[threads];
    if (roof) tiles.push(tile("Roofline", `${Math.round(roof.fraction * 100)} %`, `of what the machine could do; bound by ${roof.bound}`));
    return tiles;
  }

  function heading(data) {
    const { configuration: c, build } = data;
    byId("name").textContent = c.model;
    document.title = `${c.model} · ${c.target} · ${c.scheme} · ${document.body.dataset.title}`;
    const threads = c.threads ? `${c.threads} thread${c.threads === 1 ? "" : "s"}` : null;
    const facts = [c.sizes, c.target, c.scheme, c.profile, threads, c.machine.cpu && Assay.machineName(c.machine),
      c.method ? Assay.method(c.method) : null];
    byId("labels").append(facts.filter(Boolean).join(" · "),
      ...Assay.labels({ executed: build?.executed, random: c.weights === "random" }));
  }

  /** Inks: ours is the first, and a peer has the same in every plot of a metric. */
  function inked(lines, peers) {
    return lines.map((line) => ({ ...line, ink: line.engine === OURS ? 0 : 1 + (peers.indexOf(line.engine) % 3) }))
      .sort((a, b) => a.ink - b.ink);
  }

  function plots(data) {
    const { runs, lines, ratios, commit_address: address } = data;
    const metrics = [...new Set([...data.headlines, ...lines.map((line) => line.metric)])];
    const peers = [...new Set([...lines, ...ratios].map((line) => line.engine))].filter((name) => name !== OURS).sort();
    const made = [];
    for (const metric of metrics) {
      const found = inked(lines.filter((line) => line.metric === metric), peers);
      if (!found.length) continue;
      const plot = Assay.plot(Assay.metric(metric), found, runs, address);
      plot.id = `metric-${metric}`;
      made.push(plot);
      const beside = inked(ratios.filter((line) => line.metric === metric), peers);
      if (beside.length) made.push(Assay.plot(`${Assay.metric(metric)}: times better than each peer`, beside, runs, address));
    }
    return made;
  }

  function show(data) {
    heading(data);
    const ours = data.lines.filter((line) => line.engine === OURS);
    const main = data.headlines.map((metric) => ours.find((line) => line.metric === metric)).filter(Boolean);
    const tiles = [...main.map(figureTile), ...data.ratios.filter((line) => data.headlines.includes(line.metric)).map(ratioTile),
      ...buildTiles(data.build, data.configuration.threads)];
    byId("key-figures").append(element("div", { class: "tiles" }, tiles));
    if (data.left_out) problem(`Of ${data.left_out + data.runs.length} runs the newest ${data.runs.length} are shown.`);
    if (!data.lines.length) {
      problem(data.build?.executed === "never"
        ? "Compiled, never executed: no machine has run this code yet. On one that has this target, run assay bench."
        : "No figures yet: run assay bench, then build this page again.");
    }
    byId("plots").append(...plots(data));
    const wanted = Assay.settings().get("metric");
    if (wanted) document.getElementById(`metric-${wanted}`)?.scrollIntoView({ block: "start" });
  }

  function problem(words) {
    byId("problem").textContent = words;
    byId("problem").hidden = false;
  }

  // Back to the table with the filters that led here.
  const back = Assay.settings().get("back");
  if (back) byId("back").href = `index.html#${back}`;
  addEventListener("hashchange", () => location.reload());
  Assay.load(Assay.settings().get("id") || "").then(show, () =>
    problem("This page has no such configuration. It may have been measured after the site was built, or its name was cut."));
}
