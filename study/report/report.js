(() => {
  "use strict";
  const root = document.documentElement;
  const rowsOf = part => part.tBodies ? [...part.tBodies[0].rows] : [...part.querySelectorAll("[data-kind]")];
  document.querySelectorAll("table[data-sort]").forEach(table => {
    table.querySelectorAll("thead button").forEach(button => button.addEventListener("click", () => {
      const head = button.parentElement, up = head.getAttribute("aria-sort") !== "ascending", i = head.cellIndex;
      const key = row => button.dataset.by === "num" ? parseFloat(row.cells[i].dataset.v) : row.cells[i].textContent;
      const order = (a, b) => (a !== a) - (b !== b) || (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1);
      table.querySelectorAll("[aria-sort]").forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      rowsOf(table).sort((a, b) => order(key(a), key(b))).forEach(row => table.tBodies[0].append(row));
    }));
  });
  const openTarget = () => {
    const part = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (!part || !part.matches(".claim")) return;
    for (let at = part.firstElementChild; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    part.scrollIntoView();
  };
  addEventListener("hashchange", openTarget);
  openTarget();
  const showAll = [];
  document.querySelectorAll("select[data-filter]").forEach(select => {
    const table = document.getElementById(select.dataset.filter), count = select.parentElement.querySelector(".count");
    const show = () => {
      const rows = rowsOf(table);
      rows.forEach(row => { row.hidden = select.value !== "" && row.dataset.kind !== select.value; });
      table.querySelectorAll(".group").forEach(group => {
        group.hidden = !group.querySelector("[data-kind]:not([hidden])");
        if (select.value !== "" && group.tagName === "DETAILS") group.open = true;
      });
      count.textContent = rows.filter(row => !row.hidden).length + " of " + rows.length + " rows";
    };
    select.parentElement.hidden = false;
    select.addEventListener("change", show);
    show();
    showAll.push(() => { select.value = ""; show(); });
  });
  const theme = document.getElementById("theme");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const label = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.hidden = false;
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; label(); });
  label();
  addEventListener("beforeprint", () => {
    showAll.forEach(show => show());
    document.querySelectorAll("details").forEach(part => { part.open = true; });
  });
})();
