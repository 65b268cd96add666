// What htmx leaves to a page with live parts: when not to ask, and what to say without an answer.
//
// A live part has the class `jobs-live`. With `data-stream` it is told by Server-Sent Events when
// to ask.
"use strict";
{
    const note = document.getElementById("jobs-live-note");
    const parts = [...document.querySelectorAll(".jobs-live")];
    const streamed = parts.filter((part) => part.dataset.stream);
    let signedOut = false;
    let stream = null;

    function tell(text) {
        note.textContent = text;
        note.hidden = !text;
        parts.forEach((part) => part.classList.toggle("jobs-stale", Boolean(text)));
    }

    function leave() {
        signedOut = true;
        stream?.close();
        tell(note.dataset.signedOut);
    }

    // Somebody is selecting a text, perhaps to copy it.
    function isSelected(part) {
        const chosen = document.getSelection();
        return Boolean(chosen && !chosen.isCollapsed && part.contains(chosen.anchorNode));
    }

    function listen() {
        stream?.close();
        stream = null;
        if (document.hidden || signedOut || !streamed.length) {
            return;
        }
        stream = new EventSource(streamed[0].dataset.stream);
        stream.addEventListener("message", look);
        stream.addEventListener("over", leave);
    }

    function look() {
        parts.forEach((part) => window.htmx.trigger(part, "jobs:look"));
    }

    for (const part of parts) {
        part.addEventListener("htmx:beforeRequest", (event) => {
            if (document.hidden || signedOut) {
                event.preventDefault();
            }
        });
        part.addEventListener("htmx:beforeSwap", (event) => {
            const answer = event.detail.xhr;
            const asked = new URL(part.getAttribute("hx-get"), window.location.href);
            if (new URL(answer.responseURL).pathname !== asked.pathname) {
                leave(); // it is the page to sign in
            }
            if (signedOut || isSelected(part)) {
                event.detail.shouldSwap = false;
            }
        });
        part.addEventListener("htmx:afterRequest", (event) => {
            if (signedOut || event.detail.xhr.status === 403) {
                leave();
            } else {
                tell(event.detail.successful ? "" : note.dataset.stale);
            }
        });
    }

    document.addEventListener("visibilitychange", () => {
        listen();
        if (!document.hidden) {
            look();
        }
    });
    window.addEventListener("pagehide", () => stream?.close());
    listen();
}
