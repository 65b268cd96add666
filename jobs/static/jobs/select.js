// The checkbox in the head of the table chooses all dead letters, or all calls, of the page.
"use strict";
{
    const all = document.getElementById("jobs-all");
    const boxes = [...document.querySelectorAll(".jobs-table tbody input[name=key]")];

    if (all) {
        all.hidden = false;
        all.addEventListener("change", () => {
            for (const box of boxes) {
                box.checked = all.checked;
            }
        });
        for (const box of boxes) {
            box.addEventListener("change", () => {
                all.checked = boxes.every((b) => b.checked);
            });
        }
    }
}
