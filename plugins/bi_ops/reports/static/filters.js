// The filters of all views, which the address holds. No widget depends on one of the browser's own, which differ too much.

import { createElement, showError } from "./dom.js";
import { MultiSelect } from "./multiselect.js";
import { fetchPage } from "./requests.js";
import { apiParams, DEFAULT_MONTHS, MONTH_CHOICES, readRoute, setFilters } from "./state.js";

const CUSTOM = "custom"; // the choice that shows From and To in force
const form = document.querySelector("#filters");
const chips = document.querySelector("#chips");
const toggle = document.querySelector("#toggle-filters");
const selects = [...form.querySelectorAll(".multiselect")].map((container) => new MultiSelect(container, changeFilters));
const findSelect = (name) => selects.find((select) => select.name === name);
let institutions = [];

function setOptions(select, values, first) {
  select.replaceChildren(createElement("option", first, { value: "" }));
  const years = Map.groupBy(values, (value) => value.slice(0, 4));
  for (const [year, months] of years) {
    const group = createElement("optgroup", undefined, { label: year });
    group.append(...months.map((month) => createElement("option", month, { value: month })));
    select.append(group);
  }
}

// The months from the first one loaded, or the first of the widest choice, to this one, the latest first.
function listMonths(firstMonth) {
  const start = [firstMonth, new URLSearchParams(apiParams(new URLSearchParams())).get("from_month")].filter(Boolean).sort()[0];
  const months = [];
  const today = new Date();
  for (let [year, month] = [today.getFullYear(), today.getMonth() + 1]; ; [year, month] = month > 1 ? [year, month - 1] : [year - 1, 12]) {
    const name = `${year}-${String(month).padStart(2, "0")}`;
    if (name < start) return months;
    months.push(name);
  }
}

// A select has only what it offers: a month of the address is added where it is missing.
function setMonth(name, month) {
  const select = form[name];
  if (month && ![...select.options].some(({ value }) => value === month)) select.append(createElement("option", month, { value: month }));
  select.value = month;
}

function showMonths(filters) {
  const params = new URLSearchParams(apiParams(filters));
  const isCustom = filters.has("from_month") || filters.has("to_month");
  const choice = filters.get("months");
  form.months.value = isCustom ? CUSTOM : MONTH_CHOICES.has(choice) ? choice : DEFAULT_MONTHS;
  for (const name of ["from_month", "to_month"]) setMonth(name, params.get(name) ?? "");
}

function createChip(select, value) {
  const item = createElement("li");
  const chip = createElement("button", `${select.label}: ${value}`, { type: "button", class: "chip", "aria-label": `Remove ${select.label}: ${value}` });
  chip.addEventListener("click", () => {
    const index = [...chips.children].indexOf(item);
    select.selected.delete(value);
    select.showSelection();
    changeFilters();
    (chips.children[Math.min(index, chips.children.length - 1)]?.firstChild ?? select.button).focus();
  });
  item.append(chip);
  return item;
}

function showChips() {
  const chosen = selects.flatMap((select) => [...select.selected].map((value) => [select, value]));
  const key = JSON.stringify(chosen.map(([{ name }, value]) => [name, value]));
  if (key === chips.dataset.key) return; // the same chips keep the focus
  chips.dataset.key = key;
  const items = chosen.map(([select, value]) => createChip(select, value));
  chips.replaceChildren(...items);
  chips.hidden = !items.length;
  toggle.textContent = items.length ? `Filters (${items.length})` : "Filters";
}

// The institutions of the chosen regions; a chosen one that another region has is no longer a choice.
function narrowInstitutions() {
  const regions = findSelect("region").selected;
  const select = findSelect("institution");
  const names = institutions.filter(({ region }) => !regions.size || regions.has(region)).map(({ name }) => name);
  select.setOptions([...new Set(names)]);
}

function dropOtherInstitutions() {
  const select = findSelect("institution");
  for (const name of select.selected) if (institutions.length && !select.options.includes(name)) select.selected.delete(name);
  select.showSelection();
}

function readFilters(changed) {
  const filters = new URLSearchParams();
  for (const select of selects) for (const value of select.selected) filters.append(select.name, value);
  const isCustom = ["from_month", "to_month"].includes(changed) || form.months.value === CUSTOM;
  if (isCustom) {
    const months = ["from_month", "to_month"].filter((name) => form[name].value);
    for (const name of months) filters.set(name, form[name].value);
    if (!months.length) filters.set("months", "all");
  } else if (form.months.value !== DEFAULT_MONTHS) filters.set("months", form.months.value);
  return filters;
}

function changeFilters(changed) {
  if (changed === "region") {
    narrowInstitutions();
    dropOtherInstitutions();
  }
  showChips();
  setFilters(readFilters(changed));
}

// Shows the filters of the address.
export function showFilters(filters) {
  for (const select of selects) select.select(filters.getAll(select.name));
  narrowInstitutions();
  showMonths(filters);
  showChips();
}

// The filters in words, for exported files.
export function describeFilters() {
  const params = new URLSearchParams(apiParams(readRoute().filters));
  const [from, to] = [params.get("from_month"), params.get("to_month")];
  const chosen = selects.map(({ name, label }) => `${label}: ${params.getAll(name).join(", ") || "all"}`);
  return { period: `Period: ${from || "the first month"} to ${to || "the last month"}`, values: chosen.join(" · ") };
}

async function offerOptions() {
  const page = await fetchPage();
  institutions = page.institutions;
  for (const select of selects) select.setOptions(page.filter_options[select.name]);
  for (const [name, first] of [["from_month", "first"], ["to_month", "last"]]) setOptions(form[name], listMonths(page.first_month), first);
  showFilters(readRoute().filters);
}

function connectToggle() {
  toggle.addEventListener("click", () => {
    const isOpen = form.classList.toggle("open");
    toggle.setAttribute("aria-expanded", String(isOpen));
  });
}

export function createFilters() {
  const choices = [...MONTH_CHOICES, [CUSTOM, "From and to"]];
  form.months.replaceChildren(...choices.map(([value, text]) => createElement("option", text, { value })));
  for (const name of ["months", "from_month", "to_month"]) form[name].addEventListener("change", () => changeFilters(name));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.querySelector("#reset").addEventListener("click", () => setFilters(new URLSearchParams()));
  connectToggle();
  offerOptions().catch(showError);
}
