"use strict";
// A figure that was folded away when the page was drawn has no size yet: draw it when it unfolds.
for (const fold of document.querySelectorAll("details")) {
  fold.addEventListener("toggle", () => {
    if (!fold.open) return;
    for (const element of fold.querySelectorAll("[data-figure]")) {
      page.draw(element, page.data.figures[element.dataset.figure]);
    }
  });
}
