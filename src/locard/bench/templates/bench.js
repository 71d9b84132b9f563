"use strict";
(() => {
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const data = JSON.parse(one("#data").textContent);
  const { columns, lines, alphas, levels, pairs } = data;
  const controls = one("#controls");
  const chosen = { level: levels.length - 1, alpha: 0, budget: null, words: [] };

  // Numbers.
  const digits = (x, n) => (x === null ? "–" : x !== 0 && Math.abs(x) < 1e-4 ? x.toExponential(n - 1) : String(Number(x.toPrecision(n))));
  const percent = x => (x > 0 && x < 0.01 ? "<1%" : x > 0.99 && x < 1 ? "99%" : `${Math.round(100 * x)}%`);
  const grouped = n => n.toLocaleString("en");
  const models = n => `${grouped(n)} ${n === 1 ? "pair" : "pairs"}`;

  // A header that sorts: a button in it, and the order told by aria-sort.
  const sorter = (th, sort) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...th.childNodes);
    th.append(button);
    button.addEventListener("click", () => {
      const before = th.getAttribute("aria-sort");
      const down = before ? before === "ascending" : th.dataset.sort === "number";
      for (const other of all("[aria-sort]", th.parentElement)) other.removeAttribute("aria-sort");
      th.setAttribute("aria-sort", down ? "descending" : "ascending");
      sort(down ? -1 : 1);
    });
  };
  // What has no value comes last, whichever way the rest is sorted.
  const compare = (a, b, sign) => {
    const [none, other] = [a === "" || a === null, b === "" || b === null];
    if (none || other) return none - other;
    return sign * (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  };

  const value = (cell, kind) => {
    const held = cell.dataset.value ?? one(`[data-alpha="${chosen.alpha}"]`, cell)?.dataset.value ?? "";
    return kind === "number" && held !== "" ? Number(held) : held;
  };
  const resort = table => {
    const th = one("[aria-sort]", table);
    if (!th) return;
    const sign = th.getAttribute("aria-sort") === "descending" ? -1 : 1;
    // What is not to be relied on, and what claims something else, is not put above others for finding more.
    const rows = [...table.tBodies[0].rows].map(row => ({
      row, rank: "fair" in th.dataset ? Number(row.dataset.rank) : 0, held: value(row.cells[th.cellIndex], th.dataset.sort),
    }));
    rows.sort((a, b) => a.rank - b.rank || compare(a.held, b.held, sign));
    table.tBodies[0].append(...rows.map(({ row }) => row));
  };
  const tables = all("table.sortable");
  for (const table of tables) for (const th of all("th[data-sort]", table)) sorter(th, () => resort(table));

  // What the controls choose, in all tables and panels.
  const seen = line => {
    const { level, budget, name } = line.dataset;
    const text = name.toLowerCase();
    return Number(level) <= chosen.level && ("anyBudget" in line.dataset || chosen.budget === null || Number(budget) === chosen.budget) &&
      chosen.words.every(word => text.includes(word));
  };
  const headline = () => {
    const rows = all("#board tbody tr:not([hidden])");
    const figure = row => value(row.cells[1], "number");
    const kept = rows.filter(row => lines[row.dataset.line].reliable !== false && row.dataset.claim === "derived" && figure(row) !== "");
    const broken = rows.filter(row => lines[row.dataset.line].reliable === false).length;
    const best = Math.max(...kept.map(figure));
    const names = [...new Set(kept.filter(row => figure(row) === best).map(row => lines[row.dataset.line].entry))];
    const told = !rows.length ? "No scheme is left: choose more access, another number of queries or another filter."
      : !kept.length ? "Of none of these schemes is the share found known, or it is not to be relied on."
      : `Shown ${levels[chosen.level] === "module" ? "the whole module" : levels[chosen.level]}, at alpha = ${alphas[chosen.alpha]}, ` +
        `${names.length > 3 ? `${names.length} schemes find` : names.length > 1 ? `${names.join(" and ")} find` : `${names[0]} finds`} the most: ${percent(best)} of the thefts.`;
    one("#headline").textContent = told + (broken ? ` ${broken} of ${rows.length} schemes ${broken === 1 ? "is" : "are"} not to be relied on.` : "");
  };
  const choose = () => {
    const form = new FormData(controls);
    chosen.level = Number(form.get("level"));
    chosen.alpha = Number(form.get("alpha") ?? 0);
    chosen.budget = form.get("budget") ? Number(form.get("budget")) : null;
    chosen.words = form.get("filter").toLowerCase().split(/\s+/).filter(Boolean);
    document.body.classList.toggle("one-budget", chosen.budget !== null);
    for (const part of all("[data-alpha]")) part.classList.toggle("off", Number(part.dataset.alpha) !== chosen.alpha);
    for (const line of all("[data-line]")) line.hidden = !seen(line);
    for (const table of tables) resort(table);
    for (const link of all(".cell a")) {
      const [line, column] = link.parentElement.dataset.cell.split("/");
      const [figure, n] = [...one(`[data-alpha="${chosen.alpha}"]`, link).childNodes].map(node => node.textContent);
      link.setAttribute("aria-label", `${lines[line].entry}, ${columns[column]}: ${figure}${n ? ` of ${n}` : ""}; show its pairs`);
    }
    headline();
    draw();
  };
  document.body.classList.add("live");
  controls.hidden = false;
  for (const part of all(".scripted")) part.hidden = false;
  controls.addEventListener("input", choose);
  controls.addEventListener("submit", event => event.preventDefault());

  // From a cell to its pairs: the address names the cell, so that it can be kept and gone back from.
  for (const cell of all("[data-cell]")) {
    if (!(cell.dataset.cell in pairs.cells)) continue;
    const link = document.createElement("a");
    link.href = `#pairs/${cell.dataset.cell}`;
    link.append(...cell.childNodes);
    cell.append(link);
  }
  const fields = [["Victim", "text", "victim"], ["Suspect", "text", "suspect"], ["Score", "number", "score"], ["p", "number", "p"], ["Flagged", "number", "p"]];
  if (pairs.seeds) fields.splice(2, 0, ["Seed", "number", "seed"]);
  const STEP = 200;
  const panel = one("#pairs");
  const state = { cell: null, rows: [], shown: STEP, key: null, sign: 1 };
  const head = one("#pairs-table thead tr");
  for (const [text, kind, key] of fields) {
    const th = document.createElement("th");
    th.scope = "col";
    th.textContent = text;
    th.dataset.sort = kind;
    if (kind === "number") th.className = "n";
    head.append(th);
    sorter(th, sign => {
      Object.assign(state, { key, sign: text === "Flagged" ? -sign : sign });
      draw();
    });
  }
  const flagged = pair => pair.p !== null && pair.p <= alphas[chosen.alpha];
  const open = name => {
    const cell = pairs.cells[name];
    state.cell = name;
    state.shown = STEP;
    state.rows = cell.v.map((victim, i) => ({
      victim: pairs.victims[victim], suspect: pairs.suspects[cell.s[i]], score: cell.x[i], p: pairs.p[cell.p[i]],
      seed: cell.d ? cell.d[i] : null, reason: cell.w && i in cell.w ? pairs.reasons[cell.w[i]] : "",
    }));
  };
  function draw() {
    panel.hidden = state.cell === null;
    for (const link of all(".cell a[aria-current]")) link.removeAttribute("aria-current");
    if (state.cell === null) return;
    one(`[data-cell="${state.cell}"] a`).setAttribute("aria-current", "true");
    const [line, column] = state.cell.split("/");
    const there = pairs.cells[state.cell].n;
    const hits = state.rows.filter(flagged).length;
    one("#pairs-title").textContent = `${lines[line].entry}, ${lines[line].asked}: ${columns[column]}`;
    one("#pairs-note").textContent = `${models(there)}` +
      (state.rows.length < there ? `, of which ${grouped(state.rows.length)} are in this page; of these ` : "; ") +
      `${grouped(hits)} flagged at alpha = ${alphas[chosen.alpha]}.`;
    const words = one("#pairs-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = state.rows.filter(pair => {
      const text = `${pair.victim} ${pair.suspect} ${pair.reason} ${flagged(pair) ? "yes" : "no"}`.toLowerCase();
      return words.every(word => text.includes(word));
    });
    if (state.key) rows.sort((a, b) => compare(a[state.key], b[state.key], state.sign));
    const body = one("#pairs-table tbody");
    body.replaceChildren(...rows.slice(0, state.shown).map(pair => {
      const row = document.createElement("tr");
      const cells = [pair.victim, pair.suspect, digits(pair.score, 4), digits(pair.p, 3), flagged(pair) ? "yes" : "no"];
      if (pair.reason) cells[1] += ` (no score: ${pair.reason})`;
      if (pairs.seeds) cells.splice(2, 0, pair.seed);
      cells.forEach((text, i) => {
        const td = document.createElement("td");
        td.textContent = text;
        if (i > 1) td.className = i === cells.length - 1 && text === "yes" ? "n yes" : "n";
        row.append(td);
      });
      return row;
    }));
    const more = one("#pairs-more");
    more.hidden = rows.length <= state.shown;
    more.textContent = `Show more of ${models(rows.length)}`;
  }
  one("#pairs-more").addEventListener("click", () => { state.shown += 5 * STEP; draw(); });
  one("#pairs-filter").addEventListener("input", () => { state.shown = STEP; draw(); });
  const follow = () => {
    const name = location.hash.startsWith("#pairs/") ? location.hash.slice(7) : null;
    if (name === null) return;
    if (!Object.hasOwn(pairs.cells, name)) return;
    open(name);
    draw();
    one("#pairs-title").focus({ preventScroll: true });
    panel.scrollIntoView({ block: "start" });
  };
  one("#pairs-close").addEventListener("click", () => { state.cell = null; draw(); });
  addEventListener("hashchange", follow);
  choose();
  follow();
})();
