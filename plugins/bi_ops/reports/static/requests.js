// Requests to this server; the page makes no others.

// The server computes few reports at once and answers 503 with Retry-After. A long Retry-After means MongoDB is down.
const MAX_REQUESTS = 4;
const MAX_RETRIES = 10;
const MAX_RETRY_SECONDS = 2;
let freeSlots = MAX_REQUESTS;
const slotQueue = [];

async function withSlot(action) {
  if (freeSlots) freeSlots -= 1;
  else await new Promise((resume) => slotQueue.push(resume));
  try {
    return await action();
  } finally {
    const resume = slotQueue.shift();
    if (resume) resume();
    else freeSlots += 1;
  }
}

async function fetchWithRetries(path) {
  for (let retries = 0; ; retries += 1) {
    const response = await withSlot(() => fetch(path));
    const seconds = Number(response.headers.get("Retry-After"));
    if (response.status !== 503 || !seconds || seconds > MAX_RETRY_SECONDS || retries === MAX_RETRIES) return response;
    await new Promise((resume) => setTimeout(resume, 1000 * seconds * (1 + Math.random())));
  }
}

export async function fetchJson(path) {
  const response = await fetchWithRetries(path);
  const body = await response.json().catch(() => ({}));
  const message = Array.isArray(body.detail) ? body.detail.map((error) => error.msg).join("; ") : body.detail;
  if (!response.ok) throw new Error(message || `The server answered with HTTP status ${response.status}.`);
  return body;
}

let page = null;

// The reports' definitions, the filters' options and the themes, requested once.
export function fetchPage() {
  page ??= fetchJson("api/page").catch((error) => {
    page = null;
    throw error;
  });
  return page;
}
