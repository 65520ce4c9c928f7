// The registry of the views: see router.js for what a view is.

import * as charts from "./charts.js";
import * as client from "./client.js";
import * as clients from "./clients.js";
import * as freshness from "./freshness.js";
import * as overview from "./overview.js";
import * as regions from "./regions.js";

// The views of the navigation, in its order.
const VIEWS = { overview, clients, regions, charts, freshness };
export const NAVIGATION = Object.entries(VIEWS);

// The view of a route: an unknown one leads to the overview.
export const findView = ({ view, path }) => (view === "clients" && path.length ? client : VIEWS[view] ?? overview);
