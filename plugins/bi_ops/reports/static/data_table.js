// A table that can be sorted, searched and paged, for rows that the page has as a whole.

import { createElement } from "./dom.js";
import { isUnknown } from "./format.js";

const PAGE_SIZES = [25, 50, 100];
const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
const fold = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase(); // "hopital" finds "Hôpital"

// Unknown values come last, in both directions.
function compareValues(left, right, sign) {
  if (isUnknown(left) || isUnknown(right)) return Number(isUnknown(left)) - Number(isUnknown(right));
  return sign * (typeof left === "string" ? collator.compare(left, right) : left - right);
}

// Options:
//   title, noun      the table's name, and its rows' in the plural
//   rows             any objects
//   columns          [{name, title, value(row), cell(row), type, isSearched, isHighFirst, hint}]; `value` sorts, and is shown
//                    without `cell`, which returns nodes or texts; `type` is "text", "number" or "wide" (text of several
//                    lines); `isHighFirst` makes the first click sort from high to low; the first column names the row
//   sort             the default order: a column's name, with a minus from high to low; without it that of the rows
//   hasSearch        whether there is a search field
//   choices          quick choices [{name, title, select(rows), sort}]; the first is the default
//   csvHref          the address of all rows as CSV
//   state, onState   {sort, search, choice, page, size} as texts, and what is called with the name and value of each change
export class DataTable {
  constructor(options) {
    this.options = { choices: [], hasSearch: true, state: {}, onState: () => {}, ...options };
    this.setState(this.options.state);
    this.element = createElement("div", undefined, { class: "data-table" });
    this.body = createElement("tbody");
    this.element.append(this.createTools(), this.createBox(), this.createPages());
    this.show();
  }

  setState({ sort, search = "", choice, page, size }) {
    const { columns, choices } = this.options;
    this.choice = choices.find(({ name }) => name === choice) ?? choices[0];
    const isKnown = columns.some(({ name }) => name === sort?.replace("-", ""));
    this.sort = isKnown ? sort : this.defaultSort();
    this.search = search;
    this.page = Math.max(1, Number(page) || 1);
    this.size = PAGE_SIZES.includes(Number(size)) ? Number(size) : PAGE_SIZES[0];
  }

  // What differs from the default, so that the address stays short.
  getState() {
    return {
      sort: this.sort === this.defaultSort() ? "" : this.sort,
      search: this.search,
      choice: this.choice === this.options.choices[0] ? "" : this.choice.name,
      page: this.page === 1 ? "" : String(this.page),
      size: this.size === PAGE_SIZES[0] ? "" : String(this.size),
    };
  }

  defaultSort() {
    return this.choice?.sort ?? this.options.sort;
  }

  createTools() {
    const { choices, csvHref, hasSearch, noun, title } = this.options;
    const tools = createElement("div", undefined, { class: "table-tools" });
    if (choices.length) {
      const group = createElement("div", undefined, { class: "choices", role: "group", "aria-label": `Quick choices of ${noun}` });
      this.choiceButtons = choices.map((choice) => {
        const button = createElement("button", choice.title, { type: "button" });
        button.addEventListener("click", () => {
          this.choice = choice;
          this.change({ sort: this.defaultSort() });
        });
        return button;
      });
      group.append(...this.choiceButtons);
      tools.append(group);
    }
    if (hasSearch) {
      const input = createElement("input", undefined, { type: "search", placeholder: `Search ${noun}`, "aria-label": `Search ${noun}`, autocomplete: "off" });
      input.value = this.search;
      input.addEventListener("input", () => this.change({ search: input.value }));
      tools.append(input);
    }
    if (csvHref) {
      const actions = createElement("p", undefined, { class: "actions" });
      actions.append(createElement("a", "CSV", { href: csvHref, download: "", "aria-label": `${title}: all rows as CSV` }));
      tools.append(actions);
    }
    return tools;
  }

  // The table scrolls in its own box, which the keyboard reaches too.
  createBox() {
    const { columns, title } = this.options;
    const box = createElement("div", undefined, { class: "table-box", role: "region", tabindex: "0", "aria-label": title });
    const table = createElement("table");
    const header = createElement("tr");
    this.headers = columns.map((column) => {
      const cell = createElement("th", undefined, { scope: "col", class: column.type ?? "text" });
      const button = createElement("button", column.title, { type: "button", ...(column.hint && { title: column.hint }) });
      button.addEventListener("click", () => this.change({ sort: this.nextSort(column) }));
      cell.append(button);
      return cell;
    });
    header.append(...this.headers);
    const head = createElement("thead");
    head.append(header);
    table.append(createElement("caption", title, { class: "visually-hidden" }), head, this.body);
    box.append(table);
    return box;
  }

  nextSort({ name, type, isHighFirst = type === "number" }) {
    if (this.sort === name) return `-${name}`;
    if (this.sort === `-${name}`) return name;
    return isHighFirst ? `-${name}` : name;
  }

  createPages() {
    const pages = createElement("div", undefined, { class: "table-pages" });
    this.status = createElement("p", undefined, { role: "status" });
    this.sizeSelect = createElement("select", undefined, { "aria-label": "Rows on a page" });
    this.sizeSelect.append(...PAGE_SIZES.map((size) => createElement("option", `${size} rows`, { value: String(size) })));
    this.sizeSelect.addEventListener("change", () => this.change({ size: Number(this.sizeSelect.value) }));
    [this.previous, this.next] = [["Previous", -1], ["Next", 1]].map(([text, step]) => {
      const button = createElement("button", text, { type: "button", "aria-label": `${text} page` });
      button.addEventListener("click", () => this.change({ page: this.page + step }));
      return button;
    });
    pages.append(this.status, this.sizeSelect, this.previous, this.next);
    return pages;
  }

  change(change) {
    const before = this.getState();
    Object.assign(this, { page: 1, ...change });
    this.show();
    for (const [name, value] of Object.entries(this.getState())) if (value !== before[name]) this.options.onState(name, value);
  }

  matchingRows() {
    const { columns, rows } = this.options;
    const words = fold(this.search).split(/\s+/).filter(Boolean);
    const searched = columns.filter(({ isSearched }) => isSearched);
    const texts = (row) => fold(searched.map(({ value }) => value(row) ?? "").join(" "));
    const chosen = this.choice ? this.choice.select(rows) : rows;
    const matching = words.length ? chosen.filter((row) => words.every((word) => texts(row).includes(word))) : chosen;
    const column = columns.find(({ name }) => name === this.sort?.replace("-", ""));
    if (!column) return matching;
    const sign = this.sort.startsWith("-") ? -1 : 1;
    return [...matching].sort((left, right) => compareValues(column.value(left), column.value(right), sign)
      || compareValues(columns[0].value(left), columns[0].value(right), 1));
  }

  show() {
    const { columns, rows } = this.options;
    const matching = this.matchingRows();
    const pages = Math.max(1, Math.ceil(matching.length / this.size));
    this.page = Math.min(this.page, pages);
    const start = (this.page - 1) * this.size;
    const shown = matching.slice(start, start + this.size);
    this.body.replaceChildren(...shown.map((row) => this.createRow(row)));
    columns.forEach(({ name }, index) => {
      const direction = { [name]: "ascending", [`-${name}`]: "descending" }[this.sort] ?? "none";
      this.headers[index].setAttribute("aria-sort", direction);
    });
    this.options.choices.forEach((choice, index) => this.choiceButtons[index].setAttribute("aria-pressed", String(choice === this.choice)));
    this.status.textContent = this.describeRows(matching.length, start, shown.length);
    this.sizeSelect.value = String(this.size);
    this.sizeSelect.hidden = rows.length <= PAGE_SIZES[0];
    this.previous.hidden = this.next.hidden = pages === 1;
    this.previous.disabled = this.page === 1;
    this.next.disabled = this.page === pages;
  }

  describeRows(matching, start, shown) {
    const { noun, rows: { length: all } } = this.options;
    if (!all) return `No ${noun} to show.`;
    if (!matching) return `None of ${all} ${noun} match.`;
    if (matching === shown) return `${shown} of ${all} ${noun}`;
    return `${start + 1} to ${start + shown} of ${matching} ${noun}${matching < all ? `, ${all} in all` : ""}`;
  }

  createRow(row) {
    const line = createElement("tr");
    line.append(...this.options.columns.map(({ value, cell, type }, index) => {
      const attributes = index ? { class: type ?? "text" } : { class: type ?? "text", scope: "row" };
      const node = createElement(index ? "td" : "th", undefined, attributes);
      const content = cell ? cell(row) : value(row);
      node.append(...[content ?? ""].flat().map((part) => (typeof part === "number" ? part.toLocaleString() : part)));
      return node;
    }));
    return line;
  }
}
