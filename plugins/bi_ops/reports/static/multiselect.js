// A choice of several values: a button that opens a list of checkboxes with a search field.

import { createElement } from "./dom.js";

const MAX_SHOWN = 200; // checkboxes at once; the search finds the rest

export class MultiSelect {
  constructor(container, onChange) {
    this.name = container.dataset.name;
    this.label = container.dataset.label;
    this.onChange = onChange;
    this.options = [];
    this.selected = new Set();
    const listId = `${this.name}-list`;
    this.button = createElement("button", undefined, { type: "button", "aria-expanded": "false", "aria-controls": listId });
    this.panel = createElement("div", undefined, { class: "panel", id: listId, role: "group", "aria-label": this.label });
    this.search = createElement("input", undefined, { type: "text", "aria-label": `Search ${this.label.toLowerCase()}`, placeholder: "Search", autocomplete: "off" });
    this.list = createElement("div", undefined, { class: "options" });
    this.panel.append(this.search, this.list);
    this.panel.hidden = true;
    container.append(createElement("span", this.label, { "aria-hidden": "true" }), this.button, this.panel);
    this.button.addEventListener("click", () => this.toggle(this.panel.hidden));
    this.search.addEventListener("input", () => this.fillList());
    container.addEventListener("keydown", (event) => this.handleKey(event));
    document.addEventListener("pointerdown", ({ target }) => { if (!container.contains(target)) this.toggle(false); });
    container.addEventListener("focusout", ({ relatedTarget }) => { if (relatedTarget && !container.contains(relatedTarget)) this.toggle(false); });
    this.showSelection();
  }

  setOptions(options) {
    const isFirst = !this.options.length;
    this.options = options;
    if (this.panel.hidden || isFirst) this.fillList();
  }

  select(values) {
    this.selected = new Set(values);
    if (this.panel.hidden) this.fillList(); // an open list keeps its order and focus
    this.showSelection();
  }

  toggle(open) {
    if (open === !this.panel.hidden) return;
    this.panel.hidden = !open;
    this.button.setAttribute("aria-expanded", String(open));
    if (open) {
      this.search.value = "";
      this.fillList();
      this.search.focus();
    }
  }

  // Selected values come first, so that they can be seen and removed.
  fillList() {
    const text = this.search.value.trim().toLowerCase();
    const matches = this.options.filter((value) => value.toLowerCase().includes(text));
    const ordered = [...matches.filter((value) => this.selected.has(value)), ...matches.filter((value) => !this.selected.has(value))];
    this.list.replaceChildren(...ordered.slice(0, MAX_SHOWN).map((value) => this.createOption(value)));
    if (ordered.length > MAX_SHOWN) this.list.append(createElement("p", `${ordered.length - MAX_SHOWN} more: search to find them.`));
    if (!ordered.length) this.list.append(createElement("p", "No match."));
  }

  createOption(value) {
    const option = createElement("label");
    const box = createElement("input", undefined, { type: "checkbox", value });
    box.checked = this.selected.has(value);
    box.addEventListener("change", () => {
      if (box.checked) this.selected.add(value);
      else this.selected.delete(value);
      this.showSelection();
      this.onChange(this.name);
    });
    option.append(box, value);
    return option;
  }

  showSelection() {
    const [first, ...others] = this.selected;
    const text = first === undefined ? "All" : others.length ? `${first} and ${others.length} more` : first;
    this.button.replaceChildren(createElement("span", text));
    this.button.setAttribute("aria-label", `${this.label}: ${text}`);
  }

  handleKey(event) {
    if (this.panel.hidden) {
      if (event.key !== "ArrowDown") return;
      this.toggle(true);
    } else if (event.key === "Escape") {
      this.toggle(false);
      this.button.focus();
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const stops = [this.search, ...this.list.querySelectorAll("input")];
      const step = event.key === "ArrowDown" ? 1 : -1;
      stops[Math.min(stops.length - 1, Math.max(0, stops.indexOf(document.activeElement) + step))].focus();
    } else return;
    event.preventDefault();
  }
}
