// Looks at the built site in a real Chromium, as a reader does: pages in light and dark, and as wide as a phone.
//
//     node check.mjs SITE [--shots FOLDER] [--all]
//
// Fails on: a request to anybody but the site, an error in the console, an accessibility finding of axe that is
// serious or critical, a page that has to be scrolled sideways, and a link or anchor within the site that leads
// nowhere. Without --all, axe looks at a page of each kind only; links are checked on all. The site is served on
// 127.0.0.1. CHROMIUM names the browser; by default it is looked for where distributions put it. What the pages
// look like is kept in FOLDER.

import { createServer } from "node:http";
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { extname, join, normalize, resolve } from "node:path";
import { chromium } from "playwright-core";

const KINDS = [
  "index.html",
  "tutorial.html",
  "how-to/policies.html",
  "how-to/from-urllib3.html",
  "reference/configuration.html",
  "reference/command-line.html",
  "reference/api/gip_resilience.policy.html",
  "explanation/budgets.html",
  "observability.html",
  "overload.html",
  "404.html",
];
const VIEWS = [
  { name: "light", scheme: "light", width: 1280, height: 900 },
  { name: "dark", scheme: "dark", width: 1280, height: 900 },
  { name: "phone", scheme: "light", width: 390, height: 844 },
  { name: "phone-dark", scheme: "dark", width: 390, height: 844 },
];
const TYPES = {
  ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml",
  ".json": "application/json", ".png": "image/png", ".woff2": "font/woff2", ".txt": "text/plain",
  ".xml": "application/xml",
};
const BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

const [site, ...options] = process.argv.slice(2);
if (!site || !existsSync(join(site, "index.html"))) fail("usage: node check.mjs SITE [--shots FOLDER] [--all]");
const shots = options.includes("--shots") ? options[options.indexOf("--shots") + 1] : "";
const executablePath = process.env.CHROMIUM || BROWSERS.find((path) => existsSync(path));
if (!executablePath) fail("no Chromium: apt-get install chromium, or CHROMIUM=/path/to/it");
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf-8");
const problems = new Set();

function fail(text) {
  console.error(text);
  process.exit(2);
}

function files(folder, under = "") {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? files(path, `${under}${name}/`) : [`${under}${name}`];
  });
}

const server = createServer((request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, "http://site").pathname)).replace(/\/$/, "/index.html");
  const file = join(resolve(site), path);
  if (!file.startsWith(resolve(site)) || !existsSync(file)) {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, { "content-type": TYPES[extname(file)] || "application/octet-stream" });
  response.end(readFileSync(file));
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const home = `http://127.0.0.1:${server.address().port}/`;

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const pages = files(site).filter((name) => name.endsWith(".html"));
const looked = options.includes("--all") ? pages : KINDS;

for (const view of VIEWS) {
  const context = await browser.newContext({
    colorScheme: view.scheme, viewport: { width: view.width, height: view.height }, reducedMotion: "reduce",
  });
  for (const name of looked) {
    const page = await context.newPage();
    const tell = (text) => problems.add(`${name} (${view.name}): ${text}`);
    page.on("request", (request) => {
      if (!request.url().startsWith(home) && !request.url().startsWith("data:")) tell(`asks for ${request.url()}`);
    });
    page.on("pageerror", (error) => tell(`error: ${error.message}`));
    page.on("console", (message) => message.type() === "error" && tell(`console: ${message.text()}`));
    await page.goto(home + name, { waitUntil: "networkidle" });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (wide > 0) tell(`${wide} pixels wider than the window`);
    if (shots) {
      mkdirSync(shots, { recursive: true });
      const file = `${name.replace(/\.html$/, "").replaceAll("/", "-")}-${view.name}.png`;
      await page.screenshot({ path: join(shots, file) });
    }
    await page.evaluate(axe);
    const found = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
    for (const { id, impact, help, nodes } of found.violations) {
      if (impact === "serious" || impact === "critical") {
        tell(`${impact}: ${id}, ${help}: ${nodes.length} time(s), first ${nodes[0].target.join(" ")}`);
      }
    }
    await page.close();
  }
  await context.close();
}

// Links, on every page: to files that are there, and to anchors that are.
const known = new Map();
const context = await browser.newContext({ javaScriptEnabled: false });
const reader = await context.newPage();
const links = [];
for (const name of pages) {
  await reader.goto(home + name, { waitUntil: "domcontentloaded" });
  const [ids, hrefs] = await reader.evaluate(() => [
    [...document.querySelectorAll("[id]")].map((element) => element.id),
    [...document.querySelectorAll("a[href], img[src], link[href], script[src]")].map((element) => element.href || element.src),
  ]);
  known.set(name, new Set(ids));
  links.push(...hrefs.map((href) => [name, href]));
}
for (const [name, href] of links) {
  if (!href.startsWith(home)) continue;
  const [path, anchor] = href.slice(home.length).split("#");
  const there = decodeURIComponent(path.split("?")[0]) || "index.html";
  if (!existsSync(join(site, there))) problems.add(`${name}: leads to ${there}, which is not there`);
  else if (anchor && known.has(there) && !known.get(there).has(decodeURIComponent(anchor)) && anchor !== "__skip") {
    problems.add(`${name}: leads to ${there}#${anchor}, which is not there`);
  }
}

await browser.close();
server.close();
for (const problem of problems) console.error(problem);
console.log(`${looked.length} pages in ${VIEWS.length} views, ${links.length} links on ${pages.length} pages: ${problems.size} problem(s)`);
process.exit(problems.size ? 1 : 0);
