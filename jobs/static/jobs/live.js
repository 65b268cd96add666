// Keeps a page up to date: fetches its changing part every few seconds while the page is visible.
// An answer with the header HX-Refresh has it loaded anew.
"use strict";
{
    const region = document.getElementById("jobs-live");
    const note = document.getElementById("jobs-live-note");
    const pause = Number(region.dataset.seconds) * 1000;
    let timer = 0;
    let asking = false;

    function show(html) {
        // Somebody is selecting a text, perhaps to copy it.
        const chosen = document.getSelection();
        if (chosen && !chosen.isCollapsed && region.contains(chosen.anchorNode)) {
            return;
        }
        const focused = region.contains(document.activeElement) ? document.activeElement : null;
        region.innerHTML = html;
        if (focused && focused.href) {
            const again = [...region.querySelectorAll("a")].find((a) => a.href === focused.href);
            again?.focus({preventScroll: true});
        }
    }

    function tell(text) {
        note.textContent = text;
        note.hidden = !text;
        region.classList.toggle("jobs-stale", Boolean(text));
    }

    // Returns whether to ask again.
    async function refresh() {
        let answer;
        try {
            answer = await fetch(region.dataset.url, {
                cache: "no-store",
                signal: AbortSignal.timeout(15000),
            });
            if (answer.redirected || answer.status === 403) {
                tell(region.dataset.signedOut);
                return false;
            }
            if (!answer.ok) {
                throw new Error(answer.statusText);
            }
            if (answer.headers.get("HX-Refresh")) {
                window.location.reload();
                return false;
            }
            show(await answer.text());
            tell("");
        } catch {
            tell(region.dataset.stale);
        }
        return true;
    }

    async function step() {
        window.clearTimeout(timer);
        if (document.hidden || asking) {
            return;
        }
        asking = true;
        const goOn = await refresh();
        asking = false;
        if (goOn) {
            timer = window.setTimeout(step, pause);
        } else {
            document.removeEventListener("visibilitychange", step);
        }
    }

    document.addEventListener("visibilitychange", step);
    timer = window.setTimeout(step, pause);
}
