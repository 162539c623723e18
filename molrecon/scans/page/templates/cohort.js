"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const filter = find("filter"), count = find("count"), body = find("volumes").tBodies[0];
  const choices = [...document.querySelectorAll(".choice")], heads = [...document.querySelectorAll(".sort")];
  const rows = [...body.rows].map((row) => {
    const values = {};
    for (const cell of row.querySelectorAll("[data-key]")) {
      values[cell.dataset.key] = cell.dataset.value ? Number(cell.dataset.value) : null;
    }
    return { row, values, text: row.textContent.toLowerCase(), shown: row.dataset.shown.split(" ") };
  });
  let chosen = "", sorted = "name", descending = false;

  function narrow() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const one of rows) {
      const wanted = (!chosen || one.shown.includes(chosen)) && words.every((word) => one.text.includes(word));
      one.row.hidden = !wanted;
      shown += wanted;
    }
    count.textContent = `${shown} of ${rows.length} shown`;
    choices.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.choice === chosen)));
  }

  function order(key) {
    descending = key === sorted ? !descending : !["name", "state"].includes(key);  // the largest numbers first
    sorted = key;
    const sign = descending ? -1 : 1;
    rows.sort((a, b) => {
      const [v, w] = [a.values[key], b.values[key]];
      if (v === w) return a.values.name - b.values.name;
      if (v === null || w === null) return v === null ? 1 : -1;  // what is unknown comes last
      return sign * (v - w);
    });
    body.append(...rows.map((one) => one.row));
    heads.forEach((head) => {
      const cell = head.parentElement;
      if (head.dataset.key === key) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
  }

  function toRow(step) {
    const links = rows.filter((one) => !one.row.hidden).map((one) => one.row.querySelector("a")).filter(Boolean);
    const at = links.indexOf(document.activeElement);
    const next = at < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(Math.max(at + step, 0), links.length - 1);
    if (links.length) links[next].focus();
  }

  function choose(word) {
    chosen = word;
    narrow();
  }

  filter.addEventListener("input", narrow);
  choices.forEach((button) => button.addEventListener("click", () => choose(button.dataset.choice)));
  heads.forEach((head) => head.addEventListener("click", () => order(head.dataset.key)));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target === filter, pressed = event.key;
    const actions = {
      ArrowDown: () => toRow(1), ArrowUp: () => toRow(-1),
      Escape: () => { filter.value = ""; choose(""); filter.blur(); },
    };
    if (!typing) actions["/"] = () => filter.focus();
    const number = !typing && /^[1-9]$/.test(pressed) ? choices[Number(pressed) - 1] : undefined;
    const action = actions[pressed] ?? (number && (() => choose(number.dataset.choice)));
    if (action) {
      event.preventDefault();
      action();
    }
  });
  if (filter.value) narrow();  // what a browser remembers from before a reload
})();
