// The view of one client: its use, its forms, the people to talk to, its security and its place among its peers.

import { createAttention, createRisk } from "./client_cells.js";
import { DataTable } from "./data_table.js";
import { createElement, formatNumber } from "./dom.js";
import { createChange, describeGaps, formatCount, formatDate, formatName, formatPart, formatPercent } from "./format.js";
import { fetchJson, fetchPage } from "./requests.js";
import { createSecurity } from "./security.js";
import { sparkline } from "./sparkline.js";
import { hrefTo } from "./state.js";
import { createViewFigure, lineSpec, toSeries } from "./view_figures.js";

export const title = "Client";

const FORM_COLUMNS = [
  { name: "name", title: "Form", isSearched: true, value: (form) => form.name },
  { name: "form_type", title: "Type", isSearched: true, value: (form) => form.form_type },
  { name: "status", title: "Status", isSearched: true, hint: "In the newest quarter", value: (form) => form.status, cell: (form) => (form.status ? formatName(form.status) : "unknown") },
  { name: "last_submitted_at", title: "Last use", isHighFirst: true, value: (form) => form.last_submitted_at, cell: (form) => (form.last_submitted_at ? formatDate(form.last_submitted_at) : "never") },
  { name: "submissions_90d", title: "Submissions, 90 days", type: "number", value: (form) => form.submissions_90d, cell: (form) => formatCount(form.submissions_90d) },
  { name: "state", title: "Published", value: (form) => (form.is_archived ? "archived" : form.is_published ? "published" : "not published") },
];

const TYPE_COLUMNS = [
  { name: "form_type", title: "Form type", value: (row) => row.form_type },
  { name: "submissions", title: "Submissions", type: "number", value: (row) => row.submissions, cell: (row) => formatCount(row.submissions) },
  { name: "forms_in_use", title: "Forms in use", type: "number", value: (row) => row.forms_in_use, cell: (row) => formatCount(row.forms_in_use) },
];

const createPeopleColumns = (region) => [
  { name: "user_name", title: "Person", isSearched: true, value: (person) => person.user_name },
  { name: "action", title: "Among the ten most active", isSearched: true, value: (person) => formatName(person.action) },
  { name: "rank", title: `Rank in ${region}`, type: "number", isHighFirst: false, value: (person) => person.rank },
  { name: "count", title: "Actions of a year", type: "number", value: (person) => person.count },
  { name: "share_pct", title: `Share of ${region}`, type: "number", value: (person) => person.share_pct, cell: (person) => formatPercent(person.share_pct) },
  { name: "last_at", title: "Last", isHighFirst: true, value: (person) => person.last_at, cell: (person) => formatDate(person.last_at) },
];

function createFact(name, ...content) {
  const fact = createElement("div");
  const value = createElement("dd");
  value.append(...content);
  fact.append(createElement("dt", name), value);
  return fact;
}

function createSummary({ client, peers }, { month, quarter }) {
  const line = createElement("p", undefined, { class: "basis" });
  const place = [client.country, client.size && `${client.size} client`, client.is_active === false ? "inactive" : ""].filter(Boolean);
  line.append(createElement("a", "← All clients", { href: hrefTo("clients") }), ` · ${[client.region, ...place].join(" · ")}`);
  const facts = createElement("dl", undefined, { class: "facts" });
  const trend = client.series.length ? [sparkline(client.series, { title: "Submissions" })] : [];
  facts.append(
    createFact("Attention", createAttention(client.attention)),
    createFact(month ? `Submissions ${month}` : "Submissions", formatCount(client.submissions), " ", ...trend),
    createFact(quarter ? `Submissions ${quarter}` : "Submissions of the quarter", formatCount(client.quarter_submissions)),
    createFact("On last quarter", createChange(client.change_quarter)),
    createFact("On the same quarter last year", createChange(client.change_year)),
    createFact("Active users, 30 days", formatPart(client.users_active_30d, client.users)),
    createFact("Days since last submission", formatCount(client.days_since_last)),
    createFact("Forms churned", formatPart(client.forms_churned, client.forms_used_before)),
    createFact("Security risk", createRisk(client)),
    createFact("Among clients of its size", describePeers(peers)),
  );
  return [line, facts];
}

function describePeers(peers) {
  if (!peers?.size) return "unknown size";
  const rank = peers.submissions_rank === null ? "no rank" : `${peers.submissions_rank} of ${peers.clients}`;
  const median = `median ${formatCount(peers.submissions_median)} submissions`;
  const change = peers.change_quarter_median === null ? "" : `, median change ${formatNumber(peers.change_quarter_median)} % on last quarter`;
  return `${rank} ${peers.size} clients by submissions; ${median}${change}`;
}

function createSection(name, heading, ...content) {
  const section = createElement("section", undefined, { "data-name": name });
  section.append(createElement("h2", heading), ...content.flat());
  return section;
}

function monthFigure(name, heading, months, csvHref) {
  const lastYear = `${name}_last_year`;
  const names = { [heading]: name, "A year before": lastYear };
  return {
    name: `client-${name}`,
    title: heading,
    question: "By month, with the same month a year before.",
    columns: [
      { name: "period", title: "Month", type: "text" },
      { name, title: heading, type: "integer" },
      { name: lastYear, title: "A year before", type: "integer" },
    ],
    rows: months,
    values: toSeries(months, names),
    spec: lineSpec(`${heading} a month`, Object.keys(names)),
    note: describeGaps(months.map((month) => ({ ...month, isLoaded: month[name] !== null }))),
    csvHref,
    emptyText: "No month is loaded.",
  };
}

function createPeople(people, { region }, csvHref) {
  if (!people.length) return createElement("p", `None of this client's people is among the ten most active of ${region} in any action.`);
  return new DataTable({ title: "People to talk to", noun: "people", rows: people, columns: createPeopleColumns(region), sort: "rank", csvHref }).element;
}

export async function load(container, { path: [region, id] }, params) {
  const address = `api/clients/${encodeURIComponent(region)}/${encodeURIComponent(id)}`;
  const [answer, { themes }] = await Promise.all([fetchJson(`${address}?${params}`), fetchPage()]);
  const { client } = answer;
  const csv = (name) => `${address}/${name}.csv?${params}`;
  const charts = createElement("div", undefined, { class: "grid" });
  charts.append(...[["submissions", "Submissions"], ["sessions", "Sessions"]].map(([name, heading]) =>
    createViewFigure({ ...monthFigure(name, heading, answer.months, csv("months")), title: `${client.name}: ${heading.toLowerCase()}` }, themes)));
  const table = (options) => new DataTable({ csvHref: csv(options.name), ...options }).element;
  container.append(
    ...createSummary(answer, { month: client.series.at(-1)?.period, quarter: client.quarter }),
    createSection("people", "People to talk to", createPeople(answer.people, client, csv("people"))),
    createSection("months", "Use by month", charts),
    createSection("form-types", "Form types", table({ name: "form_types", title: "Form types", noun: "form types", hasSearch: false, rows: answer.form_types, columns: TYPE_COLUMNS, sort: "-submissions" })),
    createSection("forms", "Forms", table({ name: "forms", title: "Forms", noun: "forms", rows: answer.forms, columns: FORM_COLUMNS, sort: "-last_submitted_at" })),
    createSection("security", "Security", createSecurity(answer.security, csv("security"))),
  );
  return { title: client.name, status: `${client.name} updated` };
}
