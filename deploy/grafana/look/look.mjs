// Draws a dashboard with the data of a Prometheus: node look.mjs (README.md says what may be set).
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { answers } from "./ask.mjs";

const { env } = process;
const here = import.meta.dirname;
const language = env.LOOK_LANGUAGE ?? "en";
const to = Number(env.LOOK_TO ?? Math.floor(Date.now() / 1000));
const from = to - 60 * Number(env.LOOK_MINUTES ?? 360);
const width = 1600;
const dashboard = JSON.parse(readFileSync(join(here, `../dashboards/vestnik-${language}.json`), "utf8"));
const data = await answers(dashboard, { prometheus: env.PROMETHEUS ?? "http://127.0.0.1:9090", from, to, scrape: Number(env.LOOK_SCRAPE ?? 15) });
const height = Math.max(...dashboard.panels.map(({ gridPos: { y, h } }) => y + h)) * 38 + 16;

// The CommonJS builds: the ES modules of @grafana/ui 12.1.0 were published incomplete.
const whole = (name) => [name, join(here, `node_modules/${name}/dist/cjs/index.cjs`)];
const bundled = await build({
  entryPoints: [join(here, "page.jsx")], bundle: true, write: false, minify: true, format: "iife", jsx: "automatic", logLevel: "error",
  define: { "process.env.NODE_ENV": '"production"', global: "window" }, loader: { ".svg": "dataurl", ".png": "dataurl", ".ttf": "empty" }, outdir: "/", alias: Object.fromEntries(["@grafana/data", "@grafana/ui"].map(whole)),
});
const home = mkdtempSync(join(tmpdir(), "look-"));
try {
  const script = bundled.outputFiles.find(({ path }) => path.endsWith(".js")).text;
  const style = bundled.outputFiles.filter(({ path }) => path.endsWith(".css")).map(({ text }) => text).join("");
  const known = JSON.stringify({ dashboard, from, to, width, ...data }).replaceAll("<", "\\u003c");
  writeFileSync(join(home, "page.js"), script);
  writeFileSync(join(home, "page.html"), `<!doctype html><meta charset="utf-8"><style>${style}</style><div id="page"></div><script>window.LOOK=${known}</script><script src="page.js"></script>`);
  const picture = env.LOOK_PICTURE ?? join(here, `../../../docs/pictures/dashboard-${language}.png`);
  execFileSync(env.CHROMIUM ?? "chromium", [
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", `--user-data-dir=${join(home, "browser")}`, `--window-size=${width},${height}`,
    "--virtual-time-budget=15000", `--screenshot=${picture}`, `file://${join(home, "page.html")}`,
  ], { stdio: env.LOOK_LOUD ? "inherit" : "ignore" });
  console.log(picture);
} finally {
  rmSync(home, { recursive: true, force: true });
}
