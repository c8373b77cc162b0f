// The desk without this script does all that it does with it: this only saves looking and clicking.
"use strict";
(() => {
  const body = document.body;
  const started = Date.now();
  const serverNow = body.dataset.now ? Date.parse(body.dataset.now) : started;
  const now = () => serverNow + (Date.now() - started);

  // How long there is time, as ml_assets/desk/pages.py writes it.
  const left = (milliseconds) => {
    let minutes = Math.floor(milliseconds / 60000);
    if (minutes < 0) return "past";
    const days = Math.floor(minutes / 1440);
    minutes %= 1440;
    const hours = Math.floor(minutes / 60);
    minutes %= 60;
    if (days) return `${days} d ${hours} h`;
    return hours ? `${hours} h ${String(minutes).padStart(2, "0")} min` : `${minutes} min`;
  };
  const tick = () => {
    for (const one of document.querySelectorAll("[data-until]")) {
      const rest = Date.parse(one.dataset.until) - now();
      one.textContent = left(rest);
      one.classList.toggle("soon", rest >= 0 && rest < 30 * 60000);
    }
    for (const row of document.querySelectorAll("tr[data-cut]")) {
      row.classList.toggle("past", Date.parse(row.dataset.cut) <= now() || "closed" in row.dataset);
    }
    for (const clock of document.querySelectorAll("[data-clock]")) {
      clock.textContent = new Intl.DateTimeFormat("en-GB", {
        timeZone: clock.dataset.clock, hour: "2-digit", minute: "2-digit",
      }).format(now());
    }
  };
  tick();
  setInterval(tick, 15000);

  // A form is sent once, however often its button is pressed.
  for (const form of document.querySelectorAll("form[data-work]")) {
    form.addEventListener("submit", (event) => {
      if (form.dataset.sent) event.preventDefault();
      form.dataset.sent = "1";
    });
  }
  // A page that the browser kept can be used again.
  addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  });

  // Parts that take a moment come by themselves, or when asked for.
  const fetchPart = async (place, address) => {
    place.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(address, { headers: { accept: "text/html" } });
      if (!answer.ok) throw new Error(String(answer.status));
      const part = new DOMParser().parseFromString(await answer.text(), "text/html");
      const heading = place.querySelector("h2");
      place.replaceChildren(...(heading ? [heading] : []), ...part.body.childNodes);
    } catch {
      // The link that is there leads to a page that says what is wrong.
    }
    place.removeAttribute("aria-busy");
  };
  for (const part of document.querySelectorAll("[data-part]")) fetchPart(part, part.dataset.part);
  for (const part of document.querySelectorAll("[data-fetch]")) {
    part.querySelector("a").addEventListener("click", (event) => {
      event.preventDefault();
      fetchPart(part, part.dataset.fetch);
    });
  }

  const work = document.querySelector("form.work");
  if (!work) return;

  // What colleagues do, and whether there is newer scoring. The list itself does not move.
  let after = body.dataset.after;
  const look = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(`${body.dataset.changes}&after=${after}`);
      if (!answer.ok) return;
      const found = await answer.json();
      if (found.newer) document.querySelector("[data-newer]").hidden = false;
      after = String(found.last);
      for (const [entity, at] of Object.entries(found.rows)) {
        const row = work.querySelector(`tr[data-entity="${CSS.escape(entity)}"]`);
        if (!row) continue;
        row.querySelector("[data-owner]").textContent = at.owner ?? "";
        row.querySelector("[data-state]").textContent = at.state;
        row.className = at.state.replace(" ", "-") + (at.mine ? " mine" : " moved");
        if (at.owner && !at.mine) row.querySelector(".buttons")?.remove();
      }
      for (const entity of found.closed) {
        const row = work.querySelector(`tr[data-entity="${CSS.escape(entity)}"]:not(.acted-on, .done)`);
        if (!row || row.dataset.closed) continue;
        row.dataset.closed = "1";
        row.classList.add("past");
        row.querySelector("[data-state]").textContent = "no longer open";
        row.querySelector(".buttons")?.remove();
      }
    } catch {
      // The next look may find the desk again.
    }
  };
  setInterval(look, 15000);
  document.addEventListener("visibilitychange", look);

  // Ticks.
  const all = work.querySelector("[data-all]");
  const boxes = () => [...work.querySelectorAll("input[name=entity]")];
  const count = () => {
    const number = boxes().filter((box) => box.checked).length;
    const said = work.querySelector("[data-ticked]");
    if (said) said.textContent = number ? String(number) : "";
    work.classList.toggle("some", number > 0);
  };
  if (all) {
    all.hidden = false;
    all.addEventListener("change", () => {
      for (const box of boxes()) box.checked = all.checked;
      count();
    });
  }
  work.addEventListener("change", count);
  count();

  // Filters apply when they are chosen.
  const narrow = document.querySelector("form.narrow");
  narrow.addEventListener("change", (event) => {
    if (event.target.tagName === "SELECT") narrow.requestSubmit();
  });

  // Keys.
  const keys = document.querySelector("[data-keys]");
  keys.hidden = false;
  const rows = () => [...work.querySelectorAll("tr[data-entity]")];
  let at = -1;
  const move = (by) => {
    const found = rows();
    if (!found.length) return;
    found[at]?.classList.remove("here");
    at = Math.min(found.length - 1, Math.max(0, at + by));
    const row = found[at];
    row.classList.add("here");
    row.scrollIntoView({ block: "nearest" });
    row.querySelector("th a").focus({ preventScroll: true });
  };
  work.addEventListener("focusin", (event) => {
    const row = event.target.closest("tr[data-entity]");
    if (!row) return;
    rows()[at]?.classList.remove("here");
    at = rows().indexOf(row);
    row.classList.add("here");
  });
  const press = (value) => rows()[at]?.querySelector(`button[value^="${value}|"]`)?.click();
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input:not([type=checkbox]), select, textarea")) return;
    const does = {
      j: () => move(1), k: () => move(-1), c: () => press("claimed"), a: () => press("acted"),
      x: () => rows()[at]?.querySelector("input[name=entity]")?.click(),
      o: () => rows()[at]?.querySelector("th a")?.click(),
      "/": () => document.querySelector("[data-search]").focus(),
    }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  });
})();
