"use strict";
// Sorts the table of every score by the column whose heading is clicked, and filters its rows.
const table = document.querySelector("table.scores");
const body = table.tBodies[0];
const original = [...body.rows];
const headings = [...table.tHead.rows[0].cells];

function sort(column) {
  const heading = headings[column];
  const isRising = heading.getAttribute("aria-sort") !== "ascending";
  headings.forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", isRising ? "ascending" : "descending");
  const text = (row) => row.cells[column].textContent;
  const isNumeric = original.every((row) => text(row) === "" || !isNaN(Number(text(row))));
  const compare = (a, b) => (isNumeric ? Number(a) - Number(b) : a.localeCompare(b));
  const filled = original.filter((row) => text(row) !== "");
  filled.sort((a, b) => (isRising ? 1 : -1) * compare(text(a), text(b)));
  // what is not defined comes last, whichever way
  body.append(...filled, ...original.filter((row) => text(row) === ""));
}

headings.forEach((heading, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = heading.textContent;
  button.addEventListener("click", () => sort(column));
  heading.replaceChildren(button);
});

const filter = document.querySelector(".filter");
filter.hidden = false;
filter.querySelector("input").addEventListener("input", (event) => {
  const wanted = event.target.value.trim().toLowerCase();
  for (const row of original) {
    const words = `${row.cells[0].textContent} ${row.cells[1].textContent}`.toLowerCase();
    row.hidden = !words.includes(wanted);
  }
});
