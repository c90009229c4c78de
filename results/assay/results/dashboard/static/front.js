// The front page: filters and order live in the address, and every change of them draws the page anew.
"use strict";

{
  const { element } = Assay;
  const byId = (id) => document.getElementById(id);
  const WAIT = 120; // ms after the last key before a search is drawn

  function facet(name, title, index) {
    const values = [...new Set(index.rows.map((row) => row[name]))].filter((value) => value !== undefined);
    if (values.length < 2) return null;
    const numeric = values.every((value) => typeof value === "number");
    values.sort(numeric ? (a, b) => a - b : (a, b) => String(a).localeCompare(String(b), "en", { numeric: true }));
    const words = (value) => name === "machine" ? Assay.machineName(index.machines[value])
      : name === "metric" ? Assay.metric(value) : name === "method" ? Assay.method(value) : String(value);
    return choice(name, title, values.map((value) => [String(value), words(value)]));
  }

  function choice(name, title, options) {
    return element("label", {}, `${title} `,
      element("select", { name },
        element("option", { value: "" }, "All"),
        options.map(([value, words]) => element("option", { value }, words))));
  }

  class Front {
    constructor(index) {
      this.index = index;
      this.columns = Assay.columns(index);
      this.table = new Assay.Table(index, this.columns, (id) => this.sort(id));
      byId("facets").append(...Assay.FACETS.map(([name, title]) => facet(name, title, index)).filter(Boolean),
        choice("show", "Show", Object.entries(Assay.SHOWN).map(([value, [words]]) => [value, words])));
      byId("sort").append(...this.columns.flatMap((column) => [["", "ascending"], ["-", "descending"]].map(
        ([sign, words]) => element("option", { value: sign + column.id }, `${column.name}, ${words}`))));
      byId("table").append(this.table.element);
      byId("meanings").append(...this.columns.flatMap((column) =>
        [element("dt", {}, column.name), element("dd", {}, column.meaning)]));
      byId("notes").append(...index.notes.map((note) => element("li", {}, note)));
      byId("notes").hidden = index.notes.length === 0;
      const changes = Assay.newestChanges(index);
      byId("summary").append(element("div", { id: "tiles" }), ...(changes ? [changes] : []));
      byId("explorer").hidden = false;
      this.listen();
      this.read();
    }

    listen() {
      const form = byId("filters");
      let timer = 0;
      byId("search").addEventListener("input", () => {
        clearTimeout(timer);
        timer = setTimeout(() => this.change(() => this.set("q", byId("search").value.trim())), WAIT);
      });
      for (const select of byId("facets").querySelectorAll("select")) {
        select.addEventListener("change", () => this.change(() => this.set(select.name, select.value)));
      }
      byId("sort").addEventListener("change", () => this.change(() => this.set("sort", byId("sort").value)));
      form.addEventListener("submit", (event) => event.preventDefault());
      form.addEventListener("reset", (event) => {
        event.preventDefault();
        this.settings = new Map();
        this.show();
        byId("search").focus();
      });
      byId("copy").addEventListener("click", () => this.copy());
      byId("more").addEventListener("click", () => this.unfold(!byId("facets").classList.contains("open")));
      addEventListener("hashchange", () => this.read());
    }

    set(name, value) {
      if (value) this.settings.set(name, value);
      else this.settings.delete(name);
    }

    /** On a narrow page filters are folded away until they are asked for, or set. */
    unfold(open) {
      byId("facets").classList.toggle("open", open);
      byId("more").setAttribute("aria-expanded", String(open));
    }

    /** Another filter or order begins at the first page. */
    change(edit) {
      edit();
      this.settings.delete("page");
      this.show();
    }

    read() {
      this.settings = Assay.settings();
      if (Assay.FACETS.some(([name]) => this.settings.has(name)) || this.settings.has("show")) this.unfold(true);
      this.show();
    }

    order() {
      const text = this.settings.get("sort") || "model";
      const id = text.replace(/^-/, "");
      return this.columns.some((column) => column.id === id) ? [id, text.startsWith("-")] : ["model", false];
    }

    sort(id) {
      const [now, descending] = this.order();
      const begins = this.columns.find((column) => column.id === id).order === "desc";
      const down = id === now ? !descending : begins;
      this.change(() => this.set("sort", id === "model" && !down ? "" : (down ? "-" : "") + id));
    }

    show() {
      Assay.setSettings(this.settings);
      const settings = this.settings;
      const [sort, descending] = this.order();
      byId("search").value = document.activeElement === byId("search") ? byId("search").value : settings.get("q") || "";
      if (!settings.has("q") && document.activeElement !== byId("search")) byId("search").value = "";
      const facets = [];
      for (const select of byId("facets").querySelectorAll("select")) {
        const value = settings.get(select.name) || "";
        select.value = value;
        select.closest("label").classList.toggle("set", value !== "");
        if (value && select.name !== "show") facets.push([select.name, value]);
      }
      byId("sort").value = (descending ? "-" : "") + sort;
      byId("reset").disabled = settings.size === 0;
      const words = (settings.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
      const shown = Assay.SHOWN[settings.get("show")]?.[1];
      const page = Number.parseInt(settings.get("page") || "1", 10) - 1 || 0;
      const found = this.table.draw({ filter: { words, facets, shown }, sort, descending, page });
      byId("tiles").replaceChildren(Assay.tiles(this.index, found.rows));
      byId("count").textContent = this.counted(found);
      byId("table").hidden = found.rows.length === 0;
      byId("pages").replaceChildren(...this.pages(found));
    }

    counted({ rows, first, size }) {
      const all = this.index.rows.length;
      if (!rows.length) return "No configuration matches. Reset the filters to see all.";
      const part = rows.length > size ? `${first + 1}–${Math.min(first + size, rows.length)} of ` : "";
      const of = rows.length === all ? "" : ` (of ${all})`;
      return `${part}${rows.length} row${rows.length === 1 ? "" : "s"}${of}`;
    }

    pages({ page, pages }) {
      if (pages < 2) return [];
      const go = (to, id) => () => {
        this.set("page", to ? String(to + 1) : "");
        this.show();
        document.getElementById(id)?.focus();
        byId("count").scrollIntoView({ block: "start" });
      };
      const button = (id, words, to) => element("button",
        { type: "button", id, onclick: go(to, id), disabled: to < 0 || to >= pages }, words);
      return [button("previous", "Previous", page - 1),
        element("span", {}, `Page ${page + 1} of ${pages}`),
        button("next", "Next", page + 1)];
    }

    async copy() {
      const button = byId("copy");
      try {
        await navigator.clipboard.writeText(location.href);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Copy the address above";
      }
      setTimeout(() => { button.textContent = "Copy link"; }, 2000);
    }
  }

  Assay.data("index").then((index) => {
    if (index.rows.length) Assay.front = new Front(index);
    else byId("empty").hidden = false;
  });
}
