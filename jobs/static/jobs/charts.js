// Draws the charts of the dashboard with uPlot. The data comes with the live part of the numbers,
// whose tables say the same in words.
"use strict";
{
    const numbers = document.getElementById("jobs-numbers");
    const language = document.documentElement.lang;
    const dashes = [[], [6, 4], [2, 3], [8, 3, 2, 3]];
    const charts = [];

    function data() {
        const found = document.getElementById("jobs-series");
        return found && {lines: JSON.parse(found.dataset.series), zone: found.dataset.timeZone};
    }

    function colour(name) {
        return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    }

    function plain(value, digits) {
        return new Intl.NumberFormat(language, {maximumSignificantDigits: digits}).format(value);
    }

    const units = {
        rate: (value) => plain(value, 3),
        seconds(value) {
            if (value < 1) {
                return `${plain(value * 1000, 3)} ms`;
            }
            return value < 120 ? `${plain(value, 3)} s` : `${plain(value / 60, 3)} min`;
        },
    };

    function axis(more) {
        return {
            stroke: () => colour("--body-quiet-color"),
            grid: {stroke: () => colour("--hairline-color"), width: 1},
            ticks: {stroke: () => colour("--hairline-color"), width: 1},
            ...more,
        };
    }

    // A line needs two values. One without neighbours is a point, or nothing would be seen of it.
    function lonely(plot, n) {
        const values = plot.data[n];
        return values.flatMap((value, at) =>
            value !== null && (values[at - 1] ?? values[at + 1] ?? null) === null ? [at] : []);
    }

    function make(figure) {
        const {lines, zone} = data();
        const names = [...figure.querySelectorAll("[data-line]")];
        const say = units[figure.dataset.unit];
        const place = document.createElement("div");
        place.setAttribute("aria-hidden", "true"); // the tables below are for screen readers
        const span = lines.at.at(-1) - lines.at[0];
        const clock = {hour: "2-digit", minute: "2-digit", hourCycle: "h23"};
        const date = {month: "short", day: "numeric"};
        let [exact, rough] = [clock, clock];
        if (span > 60 * 86400) {
            [exact, rough] = [{...date, year: "numeric"}, date];
        } else if (span > 2 * 86400) {
            [exact, rough] = [{...clock, weekday: "short"}, {weekday: "short", day: "numeric"}];
        }
        // The numbers of a year are those of days in UTC.
        const timeZone = exact.year ? "UTC" : zone;
        const moment = new Intl.DateTimeFormat(language, {timeZone, ...exact});
        const day = new Intl.DateTimeFormat(language, {timeZone, ...rough});
        const series = names.map((element, n) => ({
            label: element.textContent,
            stroke: () => colour(`--jobs-line-${n + 1}`),
            dash: dashes[n],
            width: 2,
            points: {
                show: false,
                filter: lonely,
                size: 6,
                fill: () => colour(`--jobs-line-${n + 1}`),
            },
            value: (_plot, value) => (value === null ? "–" : say(value)),
        }));
        names.forEach((element) => element.remove());
        figure.append(place);
        const plot = new window.uPlot(
            {
                width: figure.clientWidth,
                height: 200,
                scales: {y: {range: (_plot, _low, high) => [0, high > 0 ? high * 1.1 : 1]}},
                axes: [
                    axis({values: (_plot, at) => at.map((t) => day.format(t * 1000))}),
                    axis({size: 64, values: (_plot, all) => all.map(say)}),
                ],
                series: [
                    {
                        label: figure.parentElement.dataset.time,
                        value: (_plot, at) => (at ? moment.format(at * 1000) : "–"),
                    },
                    ...series,
                ],
                cursor: {drag: {x: false, y: false}},
            },
            [lines.at, ...names.map((element) => lines[element.dataset.line])],
            place,
        );
        const drawn = {plot, keys: names.map((element) => element.dataset.line)};
        new ResizeObserver(() => plot.setSize({width: figure.clientWidth, height: 200}))
            .observe(figure);
        charts.push(drawn);
    }

    function refresh() {
        const found = data();
        if (!found) {
            return;
        }
        if (!charts.length) {
            document.querySelectorAll(".jobs-chart").forEach(make);
            return;
        }
        for (const {plot, keys} of charts) {
            plot.setData([found.lines.at, ...keys.map((key) => found.lines[key])]);
        }
    }

    function redraw() {
        charts.forEach(({plot}) => plot.redraw(false, true));
    }

    numbers.addEventListener("htmx:afterSwap", refresh);
    // Their colours are those of the theme.
    new MutationObserver(redraw)
        .observe(document.documentElement, {attributes: true, attributeFilter: ["data-theme"]});
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    refresh();
}
