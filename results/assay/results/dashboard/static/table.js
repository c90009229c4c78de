// The table of the front page: TanStack Table decides which rows, in which order; this draws them.
"use strict";

{
  const { element } = Assay;
  const PAGE = 50;

  /** What a search looks through. */
  const haystack = (row, machines) => [
    row.model, row.target, row.scheme, row.profile, row.sizes, row.metric, row.commit, row.change?.commit,
    row.machine === undefined ? "" : Assay.machineName(machines[row.machine]),
  ].join("\n").toLowerCase();

  /** A table over the index; `onSort(id)` is called when a heading is pressed. */
  Assay.Table = class {
    constructor(index, columns, onSort) {
      this.columns = columns;
      this.onSort = onSort;
      this.texts = new Map(index.rows.map((row) => [row, haystack(row, index.machines)]));
      this.engine = TableCore.createTable({
        data: index.rows,
        columns: columns.map((column) => ({
          id: column.id, accessorFn: column.value, sortUndefined: "last",
          sortingFn: column.number ? "basic" : "alphanumeric",
        })),
        state: {},
        onStateChange: () => {},
        renderFallbackValue: null,
        globalFilterFn: (row, _, wanted) => this.wanted(row.original, wanted),
        getColumnCanGlobalFilter: () => true,
        getCoreRowModel: TableCore.getCoreRowModel(),
        getFilteredRowModel: TableCore.getFilteredRowModel(),
        getSortedRowModel: TableCore.getSortedRowModel(),
        getPaginationRowModel: TableCore.getPaginationRowModel(),
      });
      this.heads = new Map();
      this.body = element("tbody", { role: "rowgroup" });
      this.element = element("table", { role: "table", "aria-rowcount": index.rows.length + 1 },
        element("caption", { class: "hidden" }, "Newest figures of each configuration; headings sort"),
        element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, columns.map((each) => this.head(each)))),
        this.body);
    }

    head(column) {
      const kind = column.number ? "number" : "";
      const made = element("th", { scope: "col", role: "columnheader", class: `${kind} c-${column.id.split("-")[0]}` },
        element("button", { type: "button", onclick: () => this.onSort(column.id) },
          column.name, element("span", { class: "arrow", "aria-hidden": "true" })));
      this.heads.set(column.id, made);
      return made;
    }

    wanted(row, { words, facets, shown }) {
      for (const [name, value] of facets) if (String(row[name]) !== value) return false;
      if (shown && !shown(row)) return false;
      const text = this.texts.get(row);
      return words.every((word) => text.includes(word));
    }

    /** Draws the page of rows that the settings ask for; gives all rows that they leave, and the pages. */
    draw({ filter, sort, descending, page }) {
      const state = (pageIndex) => ({
        ...this.engine.initialState,
        globalFilter: filter,
        sorting: [{ id: sort, desc: descending }, ...(sort === "model" ? [] : [{ id: "model", desc: false }])],
        pagination: { pageIndex, pageSize: PAGE },
      });
      const set = (pageIndex) => this.engine.setOptions((options) => ({ ...options, state: state(pageIndex) }));
      set(0);
      const rows = this.engine.getSortedRowModel().rows;
      const pages = Math.max(1, Math.ceil(rows.length / PAGE));
      const shown = Math.min(Math.max(0, page), pages - 1);
      set(shown);
      const first = shown * PAGE;
      this.body.replaceChildren(...this.engine.getRowModel().rows.map((row, place) => this.row(row.original, first + place)));
      for (const [id, head] of this.heads) {
        if (id === sort) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      }
      return { rows: rows.map((row) => row.original), pages, page: shown, first, size: PAGE };
    }

    row(row, place) {
      return element("tr", { role: "row", "aria-rowindex": place + 2 }, this.columns.map((column) => {
        const cell = element(column.heading ? "th" : "td", {
          scope: column.heading ? "row" : null,
          role: column.heading ? "rowheader" : "cell",
          class: `${column.number ? "number" : ""} c-${column.id.split("-")[0]}`,
          "data-name": column.name,
        }, column.cell(row));
        // Cards of narrow pages show what there is.
        cell.classList.toggle("absent", cell.textContent.startsWith("–"));
        return cell;
      }));
    }
  };
}
