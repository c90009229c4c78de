// What a person reads first: speed against each peer over the rows shown, and what changed last.
"use strict";

{
  const { element, spoken } = Assay;
  const NEWEST = 6;

  function geometricMean(values) {
    return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
  }

  function peerTile(peer, rows) {
    const ratios = rows.map((row) => row.peers?.[peer]).filter((ratio) => ratio && ratio[0] > 0);
    if (!ratios.length) return null;
    const count = { better: 0, worse: 0, even: 0 };
    for (const ratio of ratios) count[Assay.verdict(ratio)] += 1;
    const mean = geometricMean(ratios.map(([value]) => value));
    const part = (kind, words) => count[kind] === 0 ? null
      : element("span", { class: "part" }, Assay.glyph(kind), `${count[kind]} ${words}`);
    return element("div", { class: "tile" },
      element("h2", {}, `vs ${Assay.engine(peer)}`),
      element("p", { class: "big" }, `${Assay.digits(mean)}×`),
      element("p", { class: "about" }, `geometric mean of ${ratios.length}`),
      element("p", { class: "parts" }, part("better", "faster"), part("even", "unclear"), part("worse", "slower")));
  }

  function changeTile(rows, fewest) {
    const measured = rows.filter((row) => row.change || row.runs >= fewest);
    const changes = measured.map((row) => row.change).filter(Boolean);
    const worse = changes.filter((change) => !change.better).length;
    const part = (count, words, glyph) =>
      count ? element("span", { class: "part" }, glyph ? Assay.glyph(glyph) : null, `${count} ${words}`) : null;
    return element("div", { class: "tile" },
      element("h2", {}, "Change points"),
      element("p", { class: "big" }, changes.length ? [worse ? Assay.glyph("worse") : null, `${worse} worse`] : "None"),
      element("p", { class: "about" }, changes.length ? "by the last of each configuration"
        : measured.length ? "no figure has moved for good" : `looked for from ${fewest} commits on`),
      element("p", { class: "parts" }, part(changes.length - worse, "better", "better"),
        part(measured.length - changes.length, "never moved")));
  }

  function stateTile(rows, index) {
    const measured = rows.filter((row) => row.time);
    const newest = measured.reduce((best, row) => (!best || row.time > best.time ? row : best), null);
    const never = rows.filter((row) => row.executed === "never").length;
    return element("div", { class: "tile" },
      element("h2", {}, "Newest figure"),
      element("p", { class: "big" }, newest ? Assay.day(newest.time) : "None"),
      element("p", { class: "about" }, newest ? ["at ", Assay.commit(newest.commit, index.commit_address)] : "run assay bench"),
      element("p", { class: "parts" },
        element("span", { class: "part" }, `${measured.length} measured`),
        never ? element("span", { class: "part" }, `${never} never executed`) : null));
  }

  /** The tiles, for the rows that the filters leave. */
  Assay.tiles = function (index, rows) {
    return element("div", { class: "tiles" },
      index.peers.map((peer) => peerTile(peer, rows)), changeTile(rows, index.fewest), stateTile(rows, index));
  };

  /** The newest change points of all metrics, as links. */
  Assay.newestChanges = function (index) {
    if (!index.changes.length) return null;
    const lines = index.changes.slice(0, NEWEST).map((change) => {
      const kind = change.better ? "better" : "worse";
      return element("li", {},
        element("span", { class: `ratio ${kind}` }, Assay.glyph(kind), Assay.percent(change.ratio),
          spoken(change.better ? " better" : " worse")),
        element("a", { href: `series.html#id=${change.id}&metric=${encodeURIComponent(change.metric)}` }, change.model),
        element("span", { class: "where" }, `${Assay.metric(change.metric)} · ${change.target} · ${change.scheme} · ` +
          `${change.threads} thread${change.threads === 1 ? "" : "s"}`,
          change.subject ? element("span", { class: "subject" }, change.subject) : null),
        element("span", { class: "when" }, Assay.commit(change.commit, index.commit_address), ` ${Assay.day(change.time)}`));
    });
    return element("div", { class: "changes" },
      element("h2", {}, "Newest change points"), element("ol", {}, lines),
      element("p", { class: "all" }, element("a", { href: "#show=changed&sort=-change" }, "All configurations with one")));
  };
}
