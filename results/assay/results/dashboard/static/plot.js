// One plot over commits: lines of ours and of peers, the 95 % interval of ours, change points, and the same in words.
"use strict";

{
  const { element, shape, spoken } = Assay;
  const DASHES = [[], [6, 4], [2, 3], [8, 3, 2, 3]];
  const HEIGHT = 260;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const COLOURS = ["--ours", "--peer-1", "--peer-2", "--peer-3"];

  /** Values by run, null where a line has none. */
  function spread(line, name, count) {
    const values = new Array(count).fill(null);
    line.at.forEach((place, index) => { values[place] = line[name] ? line[name][index] : null; });
    return values;
  }

  /** What the plot shows, in a sentence or two. */
  function story(line, runs) {
    const { value: values, unit } = line;
    const last = values[values.length - 1];
    const when = (place) => runs[line.at[place]];
    if (values.length === 1) return `One run: ${Assay.figure(last, unit)}. A trend needs runs at more commits.`;
    const words = [`${values.length} runs from ${Assay.day(when(0).time)} to ${Assay.day(when(values.length - 1).time)}: ` +
      `${Assay.figure(values[0], unit)} at first, ${Assay.figure(last, unit)} now, between ` +
      `${Assay.figure(Math.min(...values), unit)} and ${Assay.figure(Math.max(...values), unit)}.`];
    const changes = line.changes || [];
    if (changes.length) {
      const told = changes.map((change) => `${Assay.percent(change.ratio)} (${change.better ? "better" : "worse"}${change.unconfirmed ? ", not confirmed yet" : ""}) ` +
        `at ${change.commit ? Assay.short(change.commit) : "a run"} on ${Assay.day(change.time)}`);
      words.push(`Change point${changes.length === 1 ? "" : "s"}: ${told.join(", ")}.`);
    } else if (unit !== "ratio") words.push("No change point.");
    return words.join(" ");
  }

  function legend(lines, intervals, banded) {
    const entry = (words, mark) => element("li", {},
      shape("svg", { viewBox: "0 0 28 10", "aria-hidden": "true" }, mark), words);
    return element("ul", { class: "legend" },
      lines.map((line) => entry(Assay.engine(line.engine), shape("line",
        { x1: 0, x2: 28, y1: 5, y2: 5, stroke: `var(${COLOURS[line.ink % 4]})`, "stroke-width": 2.5, "stroke-dasharray": DASHES[line.ink % 4].join(" ") || null }))),
      intervals ? entry("95 % interval", banded
        ? shape("rect", { width: 28, height: 10, fill: "rgb(var(--band) / 0.22)" })
        : shape("line", { x1: 14, x2: 14, y1: 0, y2: 10, stroke: "var(--text)", "stroke-width": 1.5 })) : null);
  }

  /** The same figures as a table. */
  function figures(lines, runs, address, name) {
    const [first] = lines;
    const at = lines.map((line) => new Map(line.at.map((place, index) => [place, index])));
    const changes = new Map((first.changes || []).map((change) => [change.at, change]));
    const rows = runs.map((run, place) => {
      if (!at.some((found) => found.has(place))) return null;
      const change = changes.get(place);
      const cells = lines.map((line, index) => {
        const found = at[index].get(place);
        if (found === undefined) return element("td", { class: "number muted" }, "–");
        const interval = line.low && line.low[found] !== null
          ? ` (${Assay.figure(line.low[found], line.unit)} to ${Assay.figure(line.high[found], line.unit)})` : "";
        return element("td", { class: "number" }, Assay.figure(line.value[found], line.unit) + interval);
      });
      return element("tr", { class: change ? "changed" : null },
        element("th", { scope: "row" }, Assay.commit(run.commit, address, run.dirty)),
        element("td", {}, Assay.day(run.time)), cells,
        element("td", { class: "subject" }, run.subject || ""),
        element("td", {}, change ? [Assay.glyph(change.better ? "better" : "worse"), Assay.percent(change.ratio), spoken(change.better ? " better" : " worse")] : ""));
    }).filter(Boolean).reverse();
    const head = ["Commit", "Date", ...lines.map((line) => Assay.engine(line.engine)), "Message", "Change point"];
    return element("details", {},
      element("summary", {}, "Figures as a table"),
      element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${name}, figures as a table` },
        element("table", {},
          element("caption", { class: "hidden" }, `${name}, newest first, with 95 % intervals; * is a checkout that differed from its commit`),
          element("thead", {}, element("tr", {}, head.map((each, place) =>
            element("th", { scope: "col", class: place > 1 && place < head.length - 2 ? "number" : null }, each)))),
          element("tbody", {}, rows))));
  }

  /** Draws vertical lines at change points, above the curves. */
  function marker(changes) {
    return (plot) => {
      const { ctx, bbox } = plot;
      ctx.save();
      ctx.font = `${12 * devicePixelRatio}px system-ui, sans-serif`;
      for (const change of changes) {
        const x = Math.round(plot.valToPos(change.at - 0.5, "x", true));
        if (x < bbox.left || x > bbox.left + bbox.width) continue;
        ctx.strokeStyle = ctx.fillStyle = colour(change.better ? "--better" : "--worse");
        ctx.lineWidth = 1.5 * devicePixelRatio;
        ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
        const words = `${change.better ? "▲" : "▼"} ${Assay.percent(change.ratio)}`;
        const right = x + ctx.measureText(words).width + 8 * devicePixelRatio < bbox.left + bbox.width;
        ctx.textAlign = right ? "left" : "right";
        ctx.fillText(words, x + (right ? 4 : -4) * devicePixelRatio, bbox.top + 12 * devicePixelRatio);
      }
      ctx.restore();
    };
  }

  /** The interval of every figure that has one, as a vertical line. */
  function whiskers(lines) {
    return (plot) => {
      const { ctx } = plot;
      ctx.save();
      ctx.lineWidth = devicePixelRatio;
      lines.forEach((line) => {
        if (!line.low) return;
        ctx.strokeStyle = colour(COLOURS[line.ink % 4]);
        line.at.forEach((place, found) => {
          if (line.low[found] === null) return;
          const x = plot.valToPos(place, "x", true);
          ctx.beginPath();
          ctx.moveTo(x, plot.valToPos(line.low[found], "y", true));
          ctx.lineTo(x, plot.valToPos(line.high[found], "y", true));
          ctx.stroke();
        });
      });
      ctx.restore();
    };
  }

  /** The line at which both are even. */
  function even(plot) {
    const { ctx, bbox } = plot;
    const y = plot.valToPos(1, "y", true);
    ctx.save();
    ctx.strokeStyle = colour("--text");
    ctx.lineWidth = devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.restore();
  }

  function axes(lines, runs) {
    const largest = Math.max(...lines.flatMap((line) => line.value));
    const [scale, unit] = Assay.scale(largest, lines[0].unit);
    const line = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    return [
      { ...line, space: 90, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500],
        values: (_, places) => places.map((place) => Number.isInteger(place) && runs[place]
          ? `${runs[place].commit ? Assay.short(runs[place].commit) : "no commit"}\n${Assay.day(runs[place].time)}` : ""), size: 48 },
      { ...line, size: 64, label: unit === "ratio" ? "times better" : unit, labelSize: 18, labelGap: 0,
        values: (_, values) => values.map((value) => String(Number((value / scale).toPrecision(6)))) },
    ];
  }

  /** Of ratios: 1, where both are even, is always in sight. */
  const ratioRange = (plot, low, high) => range(plot, Math.min(low, 1), Math.max(high, 1));

  /** From 0 where that wastes little: a cut axis makes noise look like cliffs, and says so by its figures. */
  function range(_, low, high) {
    const margin = Math.max((high - low) * 0.15, Math.abs(high) * 0.04) || 1;
    return [low - margin > 0 && low < high * 0.5 ? 0 : Math.max(0, low - margin), high + margin];
  }

  /** A figure with a plot of `lines` (ours first, each with the number of its ink) over `runs`. */
  Assay.plot = function (name, lines, runs, address) {
    const [first] = lines;
    const intervals = lines.some((line) => line.low);
    const banded = first.low !== undefined && first.low.filter((low) => low !== null).length > 1;
    const canvas = element("div", { class: "canvas", tabindex: 0, role: "application", "aria-roledescription": "plot",
      "aria-label": `${name} over commits. Left and right arrow keys read figures; the table below has all.` });
    const readout = element("p", { class: "readout", "aria-live": "polite" }, " ");
    const figure = element("figure", { class: "plot" },
      element("figcaption", {}, element("h2", {}, name), legend(lines, intervals, banded),
        element("p", { class: "story" }, first.unit === "ratio"
          ? lines.map((line) => `${Assay.engine(line.engine)}: ${story(line, runs)}`).join(" ") : story(first, runs))),
      canvas, readout, figures(lines, runs, address, name));
    const drawn = new Drawing({ lines, runs, banded, canvas, readout, name });
    Assay.whenShown(canvas, () => drawn.draw());
    return figure;
  };

  /** The canvas of a plot; drawn again when the theme or the width changes. */
  class Drawing {
    constructor(parts) {
      Object.assign(this, parts);
      this.place = null;
      const count = this.runs.length;
      this.data = [this.runs.map((_, place) => place), ...this.lines.map((line) => spread(line, "value", count))];
      if (this.banded) this.data.push(spread(this.lines[0], "low", count), spread(this.lines[0], "high", count));
      this.canvas.addEventListener("keydown", (event) => this.key(event));
      document.addEventListener("assay-theme", () => this.plot && this.draw());
    }

    draw() {
      this.plot?.destroy();
      const count = this.lines.length;
      const ratio = this.lines[0].unit === "ratio";
      const series = this.lines.map((line) => ({
        stroke: colour(COLOURS[line.ink % 4]), width: line.ink ? 1.5 : 2, dash: DASHES[line.ink % 4], spanGaps: true,
        points: { show: true, size: line.ink ? 4 : 5 },
      }));
      const bounds = this.banded ? [{ stroke: "transparent", points: { show: false } }, { stroke: "transparent", points: { show: false } }] : [];
      this.plot = new uPlot({
        width: this.canvas.clientWidth, height: HEIGHT, legend: { show: false },
        padding: [8, 24, 0, 0],
        cursor: { drag: { x: true, y: false }, points: { size: 8 } },
        scales: { x: { time: false, range: (_, low, high) => [low - 0.5, high + 0.5] }, y: { range: ratio ? ratioRange : range } },
        series: [{}, ...series, ...bounds],
        bands: this.banded ? [{ series: [count + 2, count + 1], fill: `rgb(${colour(this.lines[0].ink ? "--band-peer" : "--band")} / 0.18)` }] : [],
        axes: axes(this.lines, this.runs),
        hooks: { draw: [whiskers(this.lines), ...(ratio ? [even] : []), marker(this.lines[0].changes || [])], setCursor: [(plot) => this.read(plot.cursor.idx)] },
      }, this.data, this.canvas);
      this.plot.root.setAttribute("aria-hidden", "true");
      if (!this.watched) {
        this.watched = new ResizeObserver(() => {
          const width = this.canvas.clientWidth;
          if (width && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
        });
        this.watched.observe(this.canvas);
      }
    }

    read(place) {
      if (place === null || place === undefined || !this.runs[place]) return;
      this.place = place;
      const run = this.runs[place];
      const told = this.lines.map((line, index) => {
        const value = this.data[index + 1][place];
        return value === null ? null : `${Assay.engine(line.engine)} ${Assay.figure(value, line.unit)}`;
      }).filter(Boolean);
      if (this.banded && this.data[this.lines.length + 1][place] !== null) {
        const [low, high] = [1, 2].map((step) => this.data[this.lines.length + step][place]);
        told.splice(1, 0, `(${Assay.figure(low, this.lines[0].unit)} to ${Assay.figure(high, this.lines[0].unit)})`);
      }
      const change = (this.lines[0].changes || []).find((each) => each.at === place);
      const commit = run.commit ? Assay.short(run.commit) : "no commit";
      this.readout.textContent = `${commit} ${Assay.day(run.time)}${run.subject ? ` “${run.subject}”` : ""}: ${told.join(", ")}` +
        (change ? `. Change point: ${Assay.percent(change.ratio)}, ${change.better ? "better" : "worse"}.` : "");
    }

    key(event) {
      const last = this.runs.length - 1;
      const now = this.place ?? last + (event.key === "ArrowLeft" ? 1 : 0);
      const to = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
      if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      const place = Math.min(last, Math.max(0, to));
      this.plot?.setCursor({ left: this.plot.valToPos(place, "x"), top: HEIGHT / 2 });
      this.read(place);
    }
  }

  /** Calls once `target` is about to be seen: a page of many plots draws those that are looked at. */
  Assay.whenShown = function (target, call) {
    const watcher = new IntersectionObserver((seen) => {
      if (!seen.some((each) => each.isIntersecting)) return;
      watcher.disconnect();
      call();
    }, { rootMargin: "300px" });
    watcher.observe(target);
  };
}
