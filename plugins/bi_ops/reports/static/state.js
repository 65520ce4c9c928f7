// The page's address. View, path, filters and a view's own options are all in the hash, so that reload, back and a copied
// link show the same: #/clients/eu/12?region=eu&months=12&sort=name

import { createElement } from "./dom.js";

const FILTER_NAMES = ["region", "institution", "form_type", "months", "from_month", "to_month"];
export const DEFAULT_MONTHS = "24";
export const MONTH_CHOICES = new Map([
  ["3", "Last 3 months"],
  ["12", "Last 12 months"],
  [DEFAULT_MONTHS, "Last 24 months"],
  ["year", "This year"],
  ["all", "All months"],
]);

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // an address that was cut or typed by hand
  }
}

// The hash as { view, path, filters, options }. A hash without a slash names a chart or a collection.
export function readRoute(hash = location.hash) {
  const [address, query = ""] = hash.slice(1).split("?");
  const [view, ...path] = address.startsWith("/") || !address
    ? address.split("/").slice(1).filter(Boolean).map(decode)
    : ["charts", decode(address)];
  const [filters, options] = [new URLSearchParams(), new URLSearchParams()];
  for (const [name, value] of new URLSearchParams(query)) (FILTER_NAMES.includes(name) ? filters : options).append(name, value);
  return { view: view ?? "overview", path, filters, options };
}

function formatHash({ view, path, filters, options }) {
  const query = [filters, options].map(String).filter(Boolean).join("&");
  return `#/${[view, ...path].map(encodeURIComponent).join("/")}${query ? `?${query}` : ""}`;
}

// The address of a view with the filters in force, as the href of a link: hrefTo("clients", "eu", 12).
export const hrefTo = (view, ...path) => formatHash({ view, path, filters: readRoute().filters, options: new URLSearchParams() });

// A client's name as the link to its view.
export const clientLink = ({ region, institution_id: id, name }) => createElement("a", name, { href: hrefTo("clients", region, id) });

export function setFilters(filters) {
  location.hash = formatHash({ ...readRoute(), filters });
}

// Keeps a choice of a view, such as its sort column, in the address. It neither loads the view again nor adds to the history.
export function setOption(name, value) {
  const route = readRoute();
  if (value) route.options.set(name, value);
  else route.options.delete(name);
  history.replaceState(history.state, "", formatHash(route));
}

function firstMonth(choice) {
  if (choice === "all") return "";
  const today = new Date();
  if (choice === "year") return `${today.getFullYear()}-01`;
  const months = Number(MONTH_CHOICES.has(choice) ? choice : DEFAULT_MONTHS);
  // Noon of the 15th, so that no time zone moves it into another month.
  return new Date(Date.UTC(today.getFullYear(), today.getMonth() - months, 15, 12)).toISOString().slice(0, 7);
}

// The filters as the query string of the API, where a choice such as "Last 12 months" is a first month.
export function apiParams(filters) {
  const params = new URLSearchParams(filters);
  params.delete("months");
  if (!params.has("from_month") && !params.has("to_month")) {
    const from = firstMonth(filters.get("months"));
    if (from) params.set("from_month", from);
  }
  return params.toString();
}
