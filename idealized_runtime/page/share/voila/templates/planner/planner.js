// What the widgets leave out: names and states for screen readers, files that are dropped, the address, what is saved.
"use strict";
(() => {
  const choose = HTMLInputElement.prototype.click;
  // The widget opens a dialogue from an input that is in no document: give that input the dropped file instead.
  const give = (button, files) => {
    HTMLInputElement.prototype.click = function () {
      if (this.type !== "file") return choose.call(this);
      this.files = files;
      this.dispatchEvent(new Event("change"));
    };
    try { button.click(); } finally { HTMLInputElement.prototype.click = choose; }
  };
  const inZone = event => event.target.closest && event.target.closest(".drop");
  for (const name of ["dragover", "drop"]) {
    document.addEventListener(name, event => {
      event.preventDefault();
      document.querySelectorAll(".drop.over").forEach(zone => zone.classList.remove("over"));
      const zone = inZone(event);
      if (zone && name === "dragover") zone.classList.add("over");
      if (zone && name === "drop" && event.dataTransfer.files.length) give(zone.querySelector(".widget-upload"), event.dataTransfer.files);
    });
  }
  // A press on a candidate or a model in a figure is one on its button.
  document.addEventListener("click", event => {
    const spot = event.target.closest(".spot");
    const button = spot && document.querySelector(`.${spot.dataset.press}`);
    if (button) button.click();
  });
  document.addEventListener("click", event => {
    const button = event.target.closest(".copy");
    if (!button) return;
    const text = button.dataset.copy ? new URL(button.dataset.copy, location.href).href : button.closest(".widget-html").querySelector("pre").textContent;
    navigator.clipboard.writeText(text).then(() => {
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  });
  // What is shown anew takes the focus with it: it goes to what is called the same, or else to what stands in its place.
  let focused = null;
  const nameOf = element => element.getAttribute("aria-label") || element.textContent;
  const alike = (element, block) => [...block.querySelectorAll(element.tagName)];
  document.addEventListener("focusin", event => {
    const element = event.target, block = element.closest(".widget-html");
    focused = { element, name: nameOf(element), block, place: block && alike(element, block).indexOf(element) };
  });
  document.addEventListener("focusout", event => setTimeout(() => {
    if (focused && focused.element === event.target && event.target.isConnected && document.hasFocus()) focused = null;
  }));
  const refocus = () => {
    if (!focused || focused.element.isConnected || document.activeElement !== document.body) return;
    const { element, name, block, place } = focused;
    const again = alike(element, document).find(other => nameOf(other) === name) || (block && alike(element, block)[place]);
    if (again) again.focus({ preventScroll: true });
  };
  const set = (element, name, value) => { if (element.getAttribute(name) !== value) element.setAttribute(name, value); };
  const improve = () => {
    document.querySelectorAll('[title="null"]').forEach(element => element.removeAttribute("title"));
    document.querySelectorAll(".pair").forEach(pair => {
      const handle = pair.querySelector(".noUi-handle"), label = pair.querySelector(".widget-label");
      if (handle && label) {
        set(handle, "aria-label", label.textContent);
        set(handle, "aria-valuetext", pair.querySelector("input").value);
      }
    });
    // The widget counts the files that it was given; they are taken out of it at once.
    document.querySelectorAll(".widget-upload").forEach(button => {
      const text = button.lastChild;
      if (/ \(\d+\)$/.test(text.data)) text.data = text.data.replace(/ \(\d+\)$/, "");
    });
    document.querySelectorAll(".widget-toggle-button").forEach(button => set(button, "aria-pressed", String(button.classList.contains("mod-active"))));
    document.querySelectorAll(".spot").forEach(spot => {
      const button = document.querySelector(`.${spot.dataset.press}.widget-toggle-button`);
      if (button) set(spot, "aria-pressed", String(button.classList.contains("mod-active")));
    });
    document.querySelectorAll(".answer, .busy, .comparison").forEach(element => { set(element, "role", "status"); set(element, "aria-live", "polite"); });
    document.querySelectorAll("#rendered_cells").forEach(element => set(element, "role", "main"));
    document.querySelectorAll(".choices, .results").forEach(element => {
      set(element, "role", "region");
      set(element, "aria-label", element.classList.contains("choices") ? "Choices" : "What the answer is made of");
    });
    const link = document.querySelector(".state-link");
    if (link && link.href !== location.href) history.replaceState(null, "", link.href);
    document.querySelectorAll("a.download:not([data-saved])").forEach(file => { file.dataset.saved = "yes"; file.click(); });
  };
  let isAsked = false;
  new MutationObserver(() => {
    // At once: a key that is pressed before the next frame starts from there.
    refocus();
    if (isAsked) return;
    isAsked = true;
    requestAnimationFrame(() => { isAsked = false; improve(); });
  }).observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ["class", "title", "style"] });
})();
