// Follows a task: asks for its state until that is finished, and not while the tab is hidden.
"use strict";

const live = document.querySelector("[data-live]");

if (live && live.dataset.finished !== "true") {
  const line = live.querySelector("[data-live-line]");
  const panel = live.querySelector("[data-live-panel]");
  const FIRST = 500, LONGEST = 5000; // milliseconds between two questions
  let pause = FIRST, timer = null, asking = false, last = "";

  function show(state) {
    // Unchanged parts stay as they are, so that nothing is read out or closed again.
    if (line.textContent !== state.line) { line.textContent = state.line; pause = FIRST; }
    if (last !== state.html) { panel.innerHTML = last = state.html; }
    live.dataset.finished = state.finished;
    line.classList.toggle("busy", !state.finished);
  }

  async function ask() {
    timer = null;
    if (document.hidden || asking) return;
    asking = true;
    try {
      const response = await fetch(live.dataset.live, { headers: { Accept: "application/json" } });
      if (!response.ok) throw new Error(response.status);
      show(await response.json());
    } catch {
      line.textContent = live.dataset.offline;
    }
    asking = false;
    if (live.dataset.finished !== "true") {
      timer = setTimeout(ask, pause);
      pause = Math.min(pause * 1.1, LONGEST); // a task that takes long is asked about less often
    }
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && timer === null && live.dataset.finished !== "true") {
      pause = FIRST;
      ask();
    }
  });
  timer = setTimeout(ask, pause);
}
