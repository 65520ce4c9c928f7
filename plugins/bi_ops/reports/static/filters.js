// The filters of the charts. No widget depends on one of the browser's own, which differ too much.

import { createElement } from "./dom.js";
import { MultiSelect } from "./multiselect.js";

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DEFAULT_MONTHS = 24;
const form = document.querySelector("#filters");
let selects = [];

// A month as two selects; a year alone means its first or last month.
function monthValue(name) {
  const year = form[`${name}_year`].value;
  if (!year) return "";
  return `${year}-${form[`${name}_part`].value || (name === "from_month" ? "01" : "12")}`;
}

function setMonth(name, month) {
  const [year, part] = month.split("-");
  form[`${name}_year`].value = year;
  form[`${name}_part`].value = part ?? "";
}

function fillMonthSelects(firstMonth) {
  const lastYear = new Date().getFullYear();
  const firstYear = Math.min(Number(firstMonth.slice(0, 4)) || lastYear, defaultStart().getFullYear());
  const years = Array.from({ length: lastYear - firstYear + 1 }, (_, index) => String(lastYear - index));
  for (const name of ["from_month", "to_month"]) {
    form[`${name}_part`].replaceChildren(createElement("option", "any month", { value: "" }),
      ...MONTHS.map((text, index) => createElement("option", text, { value: String(index + 1).padStart(2, "0") })));
    form[`${name}_year`].replaceChildren(createElement("option", "any year", { value: "" }),
      ...years.map((year) => createElement("option", year, { value: year })));
  }
}

function defaultStart() {
  const today = new Date();
  return new Date(today.getFullYear(), today.getMonth() - DEFAULT_MONTHS, 15);
}

function reset() {
  for (const select of selects) select.clear();
  setMonth("from_month", defaultStart().toISOString().slice(0, 7));
  setMonth("to_month", "");
}

export function filterParams() {
  const params = new URLSearchParams();
  for (const select of selects) for (const value of select.selected) params.append(select.name, value);
  for (const name of ["from_month", "to_month"]) if (monthValue(name)) params.append(name, monthValue(name));
  return params.toString();
}

// The filters in words, for exported images.
export function describeFilters() {
  const [from, to] = [monthValue("from_month"), monthValue("to_month")];
  const chosen = selects.map((select) => `${select.label}: ${[...select.selected].join(", ") || "all"}`);
  return { period: `Period: ${from || "the first month"} to ${to || "the last month"}`, values: chosen.join(" · ") };
}

export function createFilters(options, firstMonth, onChange) {
  selects = [...form.querySelectorAll(".multiselect")].map((container) => new MultiSelect(container, onChange));
  for (const select of selects) select.setOptions(options[select.name]);
  fillMonthSelects(firstMonth);
  reset();
  for (const select of form.querySelectorAll("select")) select.addEventListener("change", onChange);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.querySelector("#reset").addEventListener("click", () => { reset(); onChange(); });
}
