// Asks Prometheus what the panels of a dashboard ask, as Grafana would.

const MOST_POINTS = 500; // per series: about one per pixel of a panel

/** Prometheus' intervals, seconds: https://grafana.com/docs/grafana/latest/datasources/prometheus/template-variables/ */
function intervals(seconds, scrape) {
  const step = Math.max(scrape, Math.ceil(seconds / MOST_POINTS / scrape) * scrape);
  return { step, rate: Math.max(step + scrape, 4 * scrape) };
}

async function ask(prometheus, path, values) {
  const answer = await (await fetch(`${prometheus}/api/v1/${path}?${new URLSearchParams(values)}`)).json();
  if (answer.status !== "success") throw new Error(`${values.query}: ${answer.error}`);
  return answer.data.result;
}

function legend(format, labels) {
  return format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] ?? "");
}

/** The series of every panel, by its id: [{refId, name, labels, points: [[ms, value]]}], and the step in milliseconds. */
export async function answers(dashboard, { prometheus, from, to, scrape }) {
  const { step, rate } = intervals(to - from, scrape);
  const start = Math.floor(from / step) * step;
  const times = Array.from({ length: Math.floor((to - start) / step) + 1 }, (_, number) => start + number * step);
  const series = {};
  for (const panel of dashboard.panels.filter(({ targets }) => targets)) {
    series[panel.id] = [];
    for (const { refId, expr, legendFormat } of panel.targets) {
      const query = expr.replaceAll("$gateway", ".*").replaceAll("$__rate_interval", `${rate}s`).replaceAll("$__range", `${to - from}s`);
      for (const { metric, values } of await ask(prometheus, "query_range", { query, start, end: to, step })) {
        const known = new Map(values);
        const points = times.map((at) => [at * 1000, known.has(at) ? Number(known.get(at)) : null]); // Grafana leaves a gap, too
        series[panel.id].push({ refId, labels: metric, name: legend(legendFormat, metric) || panel.title, points });
      }
    }
  }
  return { step: step * 1000, series };
}
