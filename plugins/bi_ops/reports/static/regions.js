// The view of all regions: growth, retention and platforms, of all together and of each.

import { DataTable } from "./data_table.js";
import { createElement, formatNumber } from "./dom.js";
import { createChange, describeGaps, formatCount, formatName, formatPart, formatPercent } from "./format.js";
import { fetchJson, fetchPage } from "./requests.js";
import { sparkline } from "./sparkline.js";
import { createViewFigure, lineSpec, partialPeriods, toSeries } from "./view_figures.js";

export const title = "Regions";

const ALL = "All regions";
const nameOf = ({ region }) => region || ALL;
const MONTHS = [
  { name: "period", title: "Month", type: "text" },
  { name: "submissions", title: "Submissions", type: "integer" },
  { name: "sessions", title: "Sessions", type: "integer" },
];
const STATUSES = ["retained", "churned", "new", "reactivated", "dormant", "never_used"];
const QUARTERS = [
  { name: "quarter", title: "Quarter", type: "text" },
  { name: "retention_pct", title: "Retention %", type: "number" },
  { name: "churn_pct", title: "Churn %", type: "number" },
  ...STATUSES.map((name) => ({ name, title: formatName(name), type: "integer" })),
];
const PLATFORMS = [
  { name: "platform", title: "Platform", type: "text" },
  { name: "submissions", title: "Submissions", type: "integer" },
  { name: "share", title: "Share %", type: "number" },
];
const newest = ({ retention }) => retention.at(-1) ?? {};

const createColumns = ({ month, quarter }) => [
  { name: "region", title: "Region", value: nameOf },
  { name: "clients", title: "Active clients", type: "number", value: (row) => row.active_clients, cell: (row) => formatPart(row.active_clients, row.clients) },
  { name: "trend", title: "Trend", value: (row) => row.month.change_year, isHighFirst: true, hint: "Submissions by month, sorted by the change on last year", cell: (row) => sparkline(submissionSeries(row), { title: `Submissions of ${nameOf(row)}` }) },
  { name: "month", title: month ? `Submissions ${month}` : "Submissions of the month", type: "number", value: (row) => row.month.submissions, cell: (row) => formatCount(row.month.submissions) },
  { name: "change_month", title: "On last month", type: "number", value: (row) => row.month.change_month, cell: (row) => createChange(row.month.change_month) },
  { name: "change_month_year", title: "On last year", type: "number", hint: "The same month a year before", value: (row) => row.month.change_year, cell: (row) => createChange(row.month.change_year) },
  { name: "quarter", title: quarter ? `Submissions ${quarter}` : "Submissions of the quarter", type: "number", value: (row) => row.quarter.submissions, cell: (row) => formatCount(row.quarter.submissions) },
  { name: "change_quarter", title: "On last quarter", type: "number", value: (row) => row.quarter.change_quarter, cell: (row) => createChange(row.quarter.change_quarter) },
  { name: "change_quarter_year", title: "On last year", type: "number", hint: "The same quarter a year before", value: (row) => row.quarter.change_year, cell: (row) => createChange(row.quarter.change_year) },
  { name: "year", title: "Submissions of 12 months", type: "number", value: (row) => row.year.submissions, cell: (row) => formatCount(row.year.submissions) },
  { name: "change_year", title: "On the 12 before", type: "number", value: (row) => row.year.change, cell: (row) => createChange(row.year.change) },
  { name: "retention", title: "Forms retained", type: "number", hint: "Of the forms used in the quarter before", value: (row) => newest(row).retention_pct, cell: (row) => formatPercent(newest(row).retention_pct) },
  { name: "churn", title: "Forms churned", type: "number", hint: "Of the forms used in the quarter before", value: (row) => newest(row).churn_pct, cell: (row) => formatPercent(newest(row).churn_pct) },
];

const submissionSeries = ({ series }) => series.map(({ period, submissions, partial }) => ({ period, value: submissions, partial }));

// Which region grew last quarter, as a sentence.
function describeQuarter({ quarter, regions }) {
  const own = regions.filter(({ region }) => region);
  if (!quarter || !own.length) return "No quarter is loaded.";
  const describe = (row) => {
    const { period, change_quarter: change } = row.quarter;
    const other = period && period !== quarter ? ` (${period})` : "";
    if (change === null || change === undefined) return `${nameOf(row)} has no quarter to compare with`;
    const verb = change > 0 ? `grew by ${formatNumber(change)} %` : change < 0 ? `fell by ${formatNumber(-change)} %` : "did not change";
    return `${nameOf(row)} ${verb}${other}`;
  };
  const byChange = [...own].sort((left, right) => (right.quarter.change_quarter ?? -Infinity) - (left.quarter.change_quarter ?? -Infinity));
  return `Submissions of ${quarter} on the quarter before: ${byChange.map(describe).join(", ")}.`;
}

function growthFigure(row, csv) {
  const partial = partialPeriods(row.series);
  const names = { Submissions: "submissions", Sessions: "sessions" };
  return {
    name: `growth-${row.region || "all"}`,
    title: `${nameOf(row)}: submissions and sessions`,
    question: "Is use growing?",
    columns: MONTHS,
    rows: row.series,
    values: toSeries(row.series, names),
    spec: lineSpec("A month", Object.keys(names), partial),
    partial,
    note: describeGaps(row.series.map((point) => ({ ...point, isLoaded: point.submissions !== null }))),
    csvHref: csv("months"),
    emptyText: "No month is loaded.",
  };
}

function retentionFigure(row, csv) {
  const names = { Retention: "retention_pct", Churn: "churn_pct" };
  const values = row.retention.map((quarter) => ({ ...quarter, period: quarter.quarter }));
  const partial = partialPeriods(values);
  const unknown = row.retention.filter((quarter) => quarter.retention_pct === null).map(({ quarter }) => quarter);
  return {
    name: `retention-${row.region || "all"}`,
    title: `${nameOf(row)}: retention and churn of forms`,
    question: "Of the forms used in the quarter before, how many are still used?",
    columns: QUARTERS,
    rows: row.retention,
    values: toSeries(values, names),
    spec: lineSpec("% of the forms used before", Object.keys(names), partial),
    partial,
    note: unknown.length ? `No form was used before, or the quarter is not loaded: ${unknown.join(", ")}.` : "",
    csvHref: csv("quarters"),
    emptyText: "No quarter is loaded.",
  };
}

function platformFigure(row, csv, month) {
  const total = Object.values(row.platforms ?? {}).reduce((sum, value) => sum + (value ?? 0), 0);
  const rows = total ? Object.entries(row.platforms).map(([platform, submissions]) => ({ platform, submissions, share: Math.round(1000 * submissions / total) / 10 })) : [];
  return {
    name: `platforms-${row.region || "all"}`,
    title: `${nameOf(row)}: platforms`,
    question: `Where do the submissions${month ? ` of ${month}` : ""} come from?`,
    columns: PLATFORMS,
    rows,
    spec: {
      mark: { type: "bar" },
      encoding: {
        y: { field: "platform", type: "nominal", title: null, sort: null },
        x: { field: "share", type: "quantitative", title: "% of submissions", scale: { domain: [0, 100] } },
        tooltip: PLATFORMS.map(({ name, title: text, type }) => ({ field: name, title: text, ...(type === "text" ? { type: "nominal" } : { type: "quantitative", format: "," }) })),
      },
    },
    csvHref: csv("platforms"),
    emptyText: month ? `No submission in ${month}.` : "No month is loaded.",
  };
}

function createRegion(row, { month, params, themes }) {
  const section = createElement("section", undefined, { class: "region", "data-region": row.region });
  const grid = createElement("div", undefined, { class: "grid" });
  const csv = (name) => `api/regions/${name}.csv?${params}`;
  const figures = [growthFigure(row, csv), retentionFigure(row, csv), platformFigure(row, csv, month)];
  grid.append(...figures.map((figure) => createViewFigure(figure, themes)));
  section.append(createElement("h2", nameOf(row)), grid);
  return section;
}

export async function load(container, _route, params) {
  const [answer, { themes }] = await Promise.all([fetchJson(`api/regions?${params}`), fetchPage()]);
  const text = describeQuarter(answer);
  const table = new DataTable({ title: "Growth by region", noun: "rows", hasSearch: false, rows: answer.regions, columns: createColumns(answer), csvHref: `api/regions/growth.csv?${params}` });
  container.append(createElement("p", text, { class: "answer" }), table.element);
  container.append(...answer.regions.map((row) => createRegion(row, { month: answer.month, params, themes })));
  return { status: text };
}
