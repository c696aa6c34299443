"use strict";
{
  const root = document.documentElement;
  const theme = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const now = root.dataset.theme ?? (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
  });

  // Open folded parts for printing, since nobody can open them on paper.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details.fold:not([open])")];
    for (const fold of opened) fold.open = true;
  });
  addEventListener("afterprint", () => {
    for (const fold of opened) fold.open = false;
  });
}

if (document.getElementById("conversations-data")) {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("conversations-data").textContent);
  const table = $("conversations-table");
  // A prompt of lm_eval may begin with examples: its end asks the question.
  const asked = table.classList.contains("clipped");
  const blank = $("conversation-template").content.querySelector("tbody");
  const number = new Intl.NumberFormat("en");
  const text = (node, selector, value) => {
    node.querySelector(selector).textContent = value;
  };
  let matching = data.rows;
  let page = 0;

  // Lower-cased texts are kept, since each input in the search field searches them again.
  const lowered = new Map();
  const words = (row) => {
    if (!lowered.has(row)) lowered.set(row, `${row[1]}\n${row[3]}\n${row[4]}\n${row[7].join("\n")}`.toLowerCase());
    return lowered.get(row);
  };

  const drawn = (row) => {
    const [setting, id, label, prompt, explanation, predictions, probabilities, names, right] = row;
    const body = blank.cloneNode(true);
    text(body, ".where", data.settings[setting]);
    text(body, ".id", id);
    text(body, ".label", names[label - 1]);
    text(body, ".rated", names[label - 1]);
    const shown = asked
      ? Array.from(prompt.slice(-400)).slice(-160)
      : Array.from(prompt.slice(0, 400)).slice(0, 160);
    text(body, "summary", shown.join(""));
    text(body, ".prompt", prompt);
    text(body, ".explanation", explanation);
    body.querySelectorAll(".answer").forEach((cell, arm) => {
      const chosen = predictions[arm];
      const bars = probabilities[arm];
      cell.className = `answer ${right[arm] ? "right" : "wrong"}`;
      const whole = body.querySelectorAll(".answered")[arm];
      if (whole) whole.textContent = names[chosen - 1];
      text(cell, ".chosen", names[chosen - 1]);
      text(cell, "title", bars.map((p, i) => `${names[i]}: ${(p / 1000).toFixed(3)}`).join(", "));
      const chart = cell.querySelector("svg");
      if (bars.length === 0) {
        chart.remove();
        return;
      }
      chart.setAttribute("viewBox", `0 0 ${7 * bars.length} 22`);
      chart.setAttribute("width", Math.min(7 * bars.length, 112));
      const rect = chart.querySelector("rect");
      bars.forEach((p, i) => {
        const bar = i === 0 ? rect : chart.appendChild(rect.cloneNode());
        const height = Math.floor(p / 50);
        bar.setAttribute("x", 7 * i + 1);
        bar.setAttribute("y", 20 - height);
        bar.setAttribute("height", 2 + height);
        bar.setAttribute("class", i + 1 === chosen ? "pick" : i + 1 === label ? "truth" : "other");
      });
    });
    return body;
  };

  const show = () => {
    const pages = Math.max(1, Math.ceil(matching.length / data.page));
    const shown = matching.slice(page * data.page, (page + 1) * data.page);
    table.querySelectorAll("tbody").forEach((body) => body.remove());
    table.append(...shown.map(drawn));
    $("filter-count").textContent =
      `${number.format(matching.length)} of ${number.format(data.rows.length)} ${data.noun}`;
    $("place").textContent = `Page ${number.format(page + 1)} of ${number.format(pages)}`;
    $("previous").disabled = page === 0;
    $("next").disabled = page + 1 >= pages;
    $("pager").hidden = pages === 1;
  };

  const filter = () => {
    const wanted = $("filter-text").value.trim().toLowerCase();
    const setting = $("filter-setting").value;
    const arm = $("filter-arm").value;
    const kind = $("filter-kind").value;
    const asked = arm === "" ? data.arms.map((_, i) => i).slice(1) : [Number(arm)];
    matching = data.rows.filter((row) => {
      const [, , , , , predictions, , , right] = row;
      if (setting !== "" && row[0] !== Number(setting)) return false;
      const base = right[0];
      const differs = (i) => right[i] !== base;
      // With an arm and no kind: rows in which the arm and the baseline give different answers.
      if (kind === "" && arm !== "" && predictions[Number(arm)] === predictions[0]) return false;
      if (kind !== "" && (base !== (kind === "wrong") || !asked.some(differs))) return false;
      return wanted === "" || words(row).includes(wanted);
    });
    page = 0;
    show();
  };

  const options = (select, names, from) =>
    names.slice(from).forEach((name, i) => select.append(new Option(name, i + from)));
  options($("filter-setting"), data.settings, 0);
  options($("filter-arm"), data.arms, 1);
  let waiting;
  $("filter-text").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 120);
  });
  for (const id of ["filter-setting", "filter-arm", "filter-kind"])
    $(id).addEventListener("change", filter);
  $("filter").addEventListener("submit", (event) => {
    event.preventDefault();
    filter();
  });
  const turn = (step) => {
    page += step;
    show();
    table.scrollIntoView();
  };
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  for (const id of ["filter", "filter-count"]) $(id).hidden = false;
  show();
}
