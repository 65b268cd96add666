// The form of a schedule: shows the fields of the chosen kind of rule, helps to write a crontab, and
// previews the schedule while somebody types.
"use strict";
{
    const PAUSE = 250;
    const place = document.getElementById("jobs-live-preview");
    const form = place.closest("form");
    const words = document.getElementById("jobs-preview");
    const about = document.getElementById("jobs-task");
    const $ = window.django?.jQuery;

    // ------------------------------------------------------------------ kinds of rule

    // The row of a field, or its part of a line: in Django's markup, or in that of a theme.
    function rowOf(name) {
        const field = `.field-${name}`;
        return form.querySelector(
            `.form-row${field}, .form-group${field}, .field-line${field}, .form-row.${name}`,
        );
    }

    const kinds = [...form.querySelectorAll("input[name=kind]")];

    function showKind() {
        const chosen = kinds.find((radio) => radio.checked)?.value;
        for (const radio of kinds) {
            rowOf(radio.value)?.toggleAttribute("hidden", radio.value !== chosen);
        }
    }

    // Fields that one choice alone needs.
    const misfire = form.elements.misfire;

    function showWindow() {
        const box = form.querySelector(".fieldBox.field-misfire_window");
        const part = box?.parentElement ?? rowOf("misfire_window");
        const wrong = part?.querySelector(".errorlist");
        part?.toggleAttribute("hidden", misfire.value !== "all" && !wrong);
    }

    // ------------------------------------------------------------------ crontab

    for (const help of form.querySelectorAll(".jobs-cron")) {
        const text = document.getElementById(help.dataset.for);
        const preset = help.querySelector("select");
        const parts = [...help.querySelectorAll("input")];

        function split() {
            const fields = text.value.trim().split(/\s+/).filter(Boolean);
            const six = fields.length === parts.length;
            parts.forEach((part, n) => {
                part.value = (six ? fields[n] : fields[n - 1]) ?? "";
            });
            preset.value = [...preset.options].some((o) => o.value === text.value) ? text.value : "";
        }

        function join() {
            const values = parts.map((part) => part.value.replace(/\s+/g, ""));
            const [second, ...rest] = values;
            text.value = [...(second ? [second] : []), ...rest.map((v) => v || "*")].join(" ");
            preset.value = [...preset.options].some((o) => o.value === text.value) ? text.value : "";
        }

        preset.addEventListener("change", () => {
            if (preset.value) {
                text.value = preset.value;
                split();
                later();
            }
        });
        for (const part of parts) {
            part.addEventListener("input", join);
        }
        text.addEventListener("input", split);
        split();
        help.hidden = false;
    }

    // ------------------------------------------------------------------ preview

    const ASKED = [
        "task", "kind", "crontab", "interval_0", "interval_1", "at", "timezone",
        "start_at", "end_at", "paused_until",
    ];
    let timer = 0;
    let last = 0;

    function later() {
        window.clearTimeout(timer);
        timer = window.setTimeout(() => ask(), PAUSE);
    }

    async function ask({first = false} = {}) {
        const sent = new URLSearchParams({id: place.dataset.id});
        const fields = new FormData(form);
        for (const name of ASKED) {
            sent.set(name, fields.get(name) ?? "");
        }
        const number = ++last;
        try {
            const answer = await fetch(`${place.dataset.url}?${sent}`, {
                cache: "no-store",
                signal: AbortSignal.timeout(15000),
            });
            if (!answer.ok || answer.redirected) {
                throw new Error(answer.statusText);
            }
            const said = await answer.json();
            if (number === last) {
                show(said);
                if (!first) {
                    // The page as it came says more, until somebody types.
                    showAllErrors(said.errors);
                }
            }
        } catch {
            // The form works without a preview; saving checks everything again.
            if (number === last) {
                words.replaceChildren();
            }
        }
    }

    function show(said) {
        words.innerHTML = said.html;
        if (about) {
            about.innerHTML = said.task;
        }
        yours();
    }

    function showAllErrors(errors) {
        for (const name of new Set(ASKED.slice(2).map((name) => name.replace(/_[01]$/, "")))) {
            showErrors(name, errors[name] ?? []);
        }
    }

    // Where Django puts errors: in front of the field, or of its part of a line.
    function showErrors(name, texts) {
        const row = rowOf(name);
        if (!row) {
            return;
        }
        const box = row.querySelector(`.fieldBox.field-${name}`);
        const parent = box ? box.parentElement : row;
        let list = parent.querySelector(":scope > .errorlist");
        (box ?? row).classList.toggle("errors", texts.length > 0);
        if (!texts.length) {
            list?.remove();
            return;
        }
        if (!list) {
            list = document.createElement("ul");
            list.className = "errorlist";
            parent.prepend(list);
        }
        list.replaceChildren(...texts.map((text) => {
            const item = document.createElement("li");
            item.textContent = text;
            return item;
        }));
    }

    // The same moments in the reader's own time zone.
    function yours() {
        const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
        if (!words.querySelector("table") || zone === form.elements.timezone?.value) {
            return;
        }
        const language = document.documentElement.lang || undefined;
        const day = new Intl.DateTimeFormat(language, {weekday: "short"});
        const date = new Intl.DateTimeFormat("sv-SE", {dateStyle: "short", timeStyle: "medium"});
        for (const time of words.querySelectorAll("time")) {
            const at = new Date(time.dateTime);
            time.textContent = `${day.format(at)} ${date.format(at)}`;
        }
        for (const cell of words.querySelectorAll(".jobs-yours")) {
            cell.hidden = false;
        }
        words.querySelector("th.jobs-yours").textContent = `${place.dataset.you} (${zone})`;
    }

    // ------------------------------------------------------------------ start

    function changed({target}) {
        if (target.name === "kind") {
            showKind();
        }
        if (!target.name || ASKED.includes(target.name)) {
            later();
        }
    }

    if (kinds.length) {
        // Programs that fill in forms don't always send both events.
        for (const kind of ["input", "change"]) {
            form.addEventListener(kind, changed);
        }
        showKind();
        misfire.addEventListener("change", showWindow);
        showWindow();
        if ($?.fn.select2) {
            // Select2 fires its events through jQuery alone.
            $(form).find(".jobs-search").select2({theme: "admin-autocomplete"}).on("change", () => later());
        }
        ask({first: true});
    } else if (words) {
        yours();
    }
}
