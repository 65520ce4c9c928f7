// The view of all clients: who needs attention, who grows and who fades.

import { createAttention, createRisk } from "./client_cells.js";
import { DataTable } from "./data_table.js";
import { createElement } from "./dom.js";
import { createChange, formatCount, formatPart } from "./format.js";
import { fetchJson } from "./requests.js";
import { sparkline } from "./sparkline.js";
import { clientLink, setOption } from "./state.js";

export const title = "Clients";

const LARGEST = 10;
const byUsers = (left, right) => right.users - left.users || left.name.localeCompare(right.name);
const isActive = (row) => row.is_active !== false;

const CHOICES = [
  { name: "all", title: "All", select: (rows) => rows, sort: "-attention" },
  { name: "at-risk", title: "At risk", select: (rows) => rows.filter((row) => row.attention.level === "at risk"), sort: "-attention" },
  { name: "largest", title: "Ten largest", select: (rows) => rows.filter((row) => isActive(row) && row.users !== null).sort(byUsers).slice(0, LARGEST), sort: "-size" },
  { name: "growing", title: "Growing", select: (rows) => rows.filter((row) => isActive(row) && row.change_quarter_count > 0), sort: "-change_quarter_count" },
  { name: "fading", title: "Fading", select: (rows) => rows.filter((row) => isActive(row) && row.change_quarter_count < 0), sort: "change_quarter_count" },
];

function createName(row) {
  return isActive(row) ? clientLink(row) : [clientLink(row), createElement("span", " (inactive)", { class: "quiet" })];
}

const createColumns = (month) => [
  { name: "name", title: "Client", isSearched: true, value: (row) => row.name, cell: createName },
  { name: "attention", title: "Attention", type: "wide", isHighFirst: true, value: (row) => row.attention.score, cell: (row) => createAttention(row.attention) },
  { name: "region", title: "Region", isSearched: true, value: (row) => row.region },
  { name: "size", title: "Size", isHighFirst: true, hint: "Sorted by the number of users", value: (row) => row.users, cell: (row) => row.size },
  { name: "users", title: "Active users", type: "number", hint: "Users with a session within 30 days, of all users", value: (row) => row.users_active_30d, cell: (row) => formatPart(row.users_active_30d, row.users) },
  { name: "submissions", title: month ? `Submissions ${month}` : "Submissions", type: "number", value: (row) => row.submissions, cell: (row) => formatCount(row.submissions) },
  { name: "trend", title: "Trend", isHighFirst: true, hint: "Submissions by month, sorted by the change on last year", value: (row) => row.change_year, cell: (row) => sparkline(row.series, { title: "Submissions" }) },
  { name: "change_quarter", title: "On last quarter", type: "number", value: (row) => row.change_quarter, cell: (row) => createChange(row.change_quarter) },
  { name: "change_quarter_count", title: "Change, count", hint: "Submissions more or fewer than in the quarter before", type: "number", value: (row) => row.change_quarter_count, cell: (row) => createChange(row.change_quarter_count, "") },
  { name: "change_year", title: "On last year", type: "number", hint: "The same quarter a year before", value: (row) => row.change_year, cell: (row) => createChange(row.change_year) },
  { name: "days", title: "Days since last submission", type: "number", value: (row) => row.days_since_last, cell: (row) => formatCount(row.days_since_last) },
  { name: "churned", title: "Forms churned", type: "number", hint: "Of the forms used in the quarter before", value: (row) => row.forms_churned, cell: (row) => formatPart(row.forms_churned, row.forms_used_before) },
  { name: "risk", title: "Security risk", isHighFirst: true, value: (row) => row.risk_score, cell: createRisk },
];

function describeBasis({ month, quarter, as_of: asOf }) {
  const parts = [month ? `Month: ${month}` : "No month is loaded", quarter ? `quarter: ${quarter}, compared with the one before and the same a year before` : "no quarter is loaded"];
  if (asOf) parts.push(`users and last submissions as of ${asOf.slice(0, 10)}`);
  return `${parts.join(" · ")}. “–” is unknown.`;
}

export async function load(container, { options }, params) {
  const answer = await fetchJson(`api/clients?${params}`);
  const table = new DataTable({
    title,
    noun: "clients",
    rows: answer.clients,
    columns: createColumns(answer.month),
    choices: CHOICES,
    csvHref: `api/clients.csv?${params}`,
    state: Object.fromEntries(options),
    onState: setOption,
  });
  container.append(createElement("p", describeBasis(answer), { class: "basis" }), table.element);
  return { status: table.status.textContent };
}
