// Light or dark: as the system says, or as was chosen here, which this browser remembers.

import { byId } from "./dom.js";

const KEY = "groupcast-theme";

export function setUpTheme() {
  const choice = byId("theme");
  choice.value = remembered();
  apply(choice.value);
  choice.addEventListener("change", () => {
    apply(choice.value);
    try {
      localStorage.setItem(KEY, choice.value);
    } catch {
      // Storage may be forbidden; the choice then holds for this page.
    }
  });
}

function remembered() {
  try {
    const theme = localStorage.getItem(KEY);
    return theme === "light" || theme === "dark" ? theme : "";
  } catch {
    return "";
  }
}

function apply(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}
